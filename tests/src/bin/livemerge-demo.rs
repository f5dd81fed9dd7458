//! `make demo`: the main job on a real guest, with figures. `make play`: the guest and the services
//! alone, until Ctrl-C.

use std::process::ExitCode;

use clap::Parser;
use livemerge_tests::demo::{Storage, run_in_a_virtual_host};
use tokio::signal::unix::{SignalKind, signal};

/// Deletes snapshots of a real guest while it writes, and counts lost records.
#[derive(Parser)]
struct Cli {
    /// Only boot the guest and start the services, on their default ports.
    #[arg(long)]
    play: bool,
    /// What the guest's images are kept in.
    #[arg(long, value_enum, default_value = "file")]
    storage: Storage,
}

async fn show(storage: Storage) -> anyhow::Result<()> {
    if storage == Storage::Lvm && !livemerge_vhost::is_here() {
        return tokio::task::spawn_blocking(run_in_a_virtual_host).await?;
    }
    livemerge_tests::demo::run(storage).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { play, storage } = Cli::parse();
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("the demo cannot listen for signals, so it could not clean up after itself");
        return ExitCode::FAILURE;
    };
    let done = tokio::select! {
        done = show(storage), if !play => done,
        done = livemerge_tests::demo::play(), if play => done,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted; everything that was started is ended")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated; everything that was started is ended")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
