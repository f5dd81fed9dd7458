//! The exporter of a domain of objects as a process: started by an agent, and not ended with it.
//!
//! ```text
//!   agent ─▶ livemerge-host-agent export --url URL --socket-dir DIR DOMAIN ─▶ DIR/nbd.sock ◀─ QEMU
//! ```
//!
//! Told to stop (SIGTERM), it writes back what was written, releases its leases and ends.

use anyhow::Context as _;
use livemerge_runtime::LogConfig;
use livemerge_storage::{Exporter, StorageId};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is exported, and where.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The domain's id.
    domain: StorageId,

    /// Where its objects are; their credentials come from the environment
    #[arg(long)]
    url: String,

    /// The directory of the socket
    #[arg(long, value_name = "DIR")]
    socket_dir: PathBuf,
}

/// Exports until it is told to stop.
///
/// # Errors
/// When another process exports the domain on this host, and when it cannot begin.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    livemerge_runtime::telemetry::init(&LogConfig::default())?;
    // Signals for whoever started it are not for this process. One that leads a session does already.
    let _session = rustix::process::setsid();
    let mut told = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let exporter = tokio::select! {
        opened = Exporter::open(args.domain.clone(), &args.url, &args.socket_dir) => opened?,
        // Nobody has written to it.
        _ = told.recv() => return Ok(()),
    };
    tracing::info!(storage = %args.domain, "the exporter serves");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(exporter.serve(stop.clone()));
    told.recv().await;
    stop.cancel();
    serving.await.context("the exporter broke off")
}
