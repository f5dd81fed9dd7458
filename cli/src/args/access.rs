//! What the server is shown, and what it must show.

use super::EVERY;
use clap::Args;
use std::path::PathBuf;

/// Certificates and a token, all by files: what stands on a command line can be read by others.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// The authorities whose certificate the server must have (PEM); needed for `https://`
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "LIVEMERGE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The certificate to show (PEM)
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "LIVEMERGE_CERT_FILE")]
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "LIVEMERGE_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, if not the one in the address
    #[arg(long, global = true, help_heading = EVERY, value_name = "NAME", env = "LIVEMERGE_TLS_NAME")]
    pub(crate) server_name: Option<String>,
    /// The file of the bearer token to show
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "LIVEMERGE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}
