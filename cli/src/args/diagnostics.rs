//! The command line of `livemerge diagnostics`.

use clap::Args;
use std::path::PathBuf;

/// `livemerge diagnostics`
#[derive(Debug, Args)]
pub(crate) struct DiagnosticsArgs {
    /// The archive to write; it must not be there yet
    #[arg(default_value = "livemerge-diagnostics.tar.gz", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where a server or an agent serves metrics, such as `http://127.0.0.1:7430/metrics`; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Vec<String>,
    /// A configuration on this machine; what may be a secret in it is left out; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// At most so many of the latest operations
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    pub(crate) operations: usize,
    /// At most so many of the latest events
    #[arg(long, default_value_t = 2000, value_name = "NUMBER")]
    pub(crate) events: usize,
}
