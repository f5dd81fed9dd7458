//! `make demo`: the main job on a real guest, with figures. `make play`: the guest and the services
//! alone, until Ctrl-C.

use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use livemerge_tests::demo::{self, Kept, Storage};
use tokio::signal::unix::{SignalKind, signal};

/// Deletes snapshots of a real guest while it writes, and counts lost records.
#[derive(Parser)]
struct Cli {
    /// Only boot the guest and start the services, on their default ports.
    #[arg(long)]
    play: bool,
    /// Leave the guest and the services, on their default ports, running until Ctrl-C.
    #[arg(long, conflicts_with = "play")]
    keep: bool,
    /// What the guest's images are kept in.
    #[arg(long, value_enum, default_value = "file")]
    storage: Storage,
}

async fn show(play: bool, keep: bool, storage: Storage) -> Result<Option<Kept>> {
    // Nobody outside a virtual host could reach what is left running in it.
    ensure!(
        !keep || storage != Storage::Lvm,
        "only a demo on files or objects can be kept"
    );
    if play {
        return demo::play().await.map(Some);
    }
    if storage == Storage::Lvm && !livemerge_vhost::is_here() {
        tokio::task::spawn_blocking(demo::run_in_a_virtual_host).await??;
        return Ok(None);
    }
    demo::run(storage, keep).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {
        play,
        keep,
        storage,
    } = Cli::parse();
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("the demo cannot listen for signals, so it could not clean up after itself");
        return ExitCode::FAILURE;
    };
    let done = tokio::select! {
        done = show(play, keep, storage) => done,
        _ = interrupt.recv() => Err(anyhow!("interrupted; everything that was started is ended")),
        _ = terminate.recv() => Err(anyhow!("terminated; everything that was started is ended")),
    };
    match done {
        Ok(Some(_kept)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
