//! `make bench`: merges and calls beside their peers, as ratios.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use livemerge_tests::bench::{self, Bench};
use tokio::signal::unix::{SignalKind, signal};

/// Merges and calls beside their named peers, in one run, as ratios.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    peer: Option<Peer>,
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

/// What a benchmark starts as a process of its own.
#[derive(Subcommand)]
enum Peer {
    /// A server of tonic and nothing else, which answers what a server answered for a snapshot
    #[command(name = bench::echo::SUBCOMMAND, hide = true)]
    Echo { like: String, snapshot: String },
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
    let work = async {
        match &cli.peer {
            None => bench::run(&cli.benches, cli.runs, &cli.json).await,
            Some(Peer::Echo { like, snapshot }) => bench::echo::serve(like, snapshot).await,
        }
    };
    let done = tokio::select! {
        done = Box::pin(work) => done,
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
