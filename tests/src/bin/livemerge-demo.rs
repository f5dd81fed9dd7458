//! `make demo`: the main job on a real guest, with figures.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("the demo cannot listen for signals, so it could not clean up after itself");
        return ExitCode::FAILURE;
    };
    let done = tokio::select! {
        done = livemerge_tests::demo::run() => done,
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
