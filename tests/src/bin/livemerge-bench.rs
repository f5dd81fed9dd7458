//! `make bench`: merges beside their peers, as ratios.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use livemerge_tests::bench::{self, Bench};
use tokio::signal::unix::{SignalKind, signal};

/// Merges beside their named peers, in one run, as ratios.
#[derive(Parser)]
struct Cli {
    /// Which; all of them where none is named.
    #[arg(value_enum, value_name = "BENCH")]
    benches: Vec<Bench>,
    /// How many rounds are counted, instead of each benchmark's own number.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    runs: Option<usize>,
    /// Where the figures are written.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("at least 1".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("the bench cannot listen for signals, so it could not clean up after itself");
        return ExitCode::FAILURE;
    };
    // What is dropped half-way ends what it has started.
    let done = tokio::select! {
        done = Box::pin(bench::run(&cli.benches, cli.runs, &cli.json)) => done,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted; everything that was started is ended")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated; everything that was started is ended")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
