//! Every fault at every step: prints what came of each, and writes `target/sweep.json`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use livemerge_tests::kills::{self, Victim};
use livemerge_tests::power;
use livemerge_tests::sweep::{self, Filter, Tally};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Plays merges under faults, and looks whether any promise is broken.
#[derive(Parser)]
struct Cli {
    /// Only cases whose name has this part.
    #[arg(long, value_name = "PART")]
    case: Option<String>,
    /// Only cases of one fault.
    #[arg(long, conflicts_with = "pairs")]
    singles: bool,
    /// Only cases of a second fault after the first.
    #[arg(long)]
    pairs: bool,
    /// How many cases are played side by side.
    #[arg(long, default_value_t = 24)]
    jobs: usize,
    /// Kills of a real QEMU within its pivot, and a quarter as many of each other victim: QEMU in
    /// every phase and between two disks, the whole host, libvirtd, the API server, the agent in every
    /// phase of a commit, a pull and a merge of a machine that is off, as it starts the block job and
    /// within the pivot, and the exporter of images that are objects. Each takes some seconds.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Only kills of these, and no cases.
    #[arg(long, value_enum)]
    victim: Vec<Victim>,
    /// Cuts of the host's power in one run, with what its disks had not flushed. Each takes some seconds.
    #[arg(long, default_value_t = 200)]
    power_cuts: usize,
    /// Only cuts of the power, no kills and no cases.
    #[arg(long, conflicts_with = "victim")]
    only_power: bool,
    /// What the kills' and the cuts' moments are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the counts are written.
    #[arg(long, value_name = "FILE", default_value = "target/sweep.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let stop = CancellationToken::new();
    // What is dropped half-way ends what it has started.
    let done = tokio::select! {
        done = Box::pin(sweep(Cli::parse(), &stop)) => done,
        () = stopped(&stop) => Err(anyhow::anyhow!("stopped; everything that was started is ended")),
    };
    match done {
        Ok(tally) if tally.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the sweep could not be run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal asks for an end soon, which counts what has been done; after the second one
/// nothing is waited for.
async fn stopped(stop: &CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    for _ in 0..2 {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        if !stop.is_cancelled() {
            eprintln!("stopping: what is under way is played to its end; once more to give it up");
        }
        stop.cancel();
    }
}

async fn sweep(cli: Cli, stop: &CancellationToken) -> Result<Tally> {
    let filter = Filter {
        only: cli.case,
        singles: !cli.pairs,
        pairs: !cli.singles,
        jobs: cli.jobs,
    };
    let mut tally = if cli.victim.is_empty() && !cli.only_power {
        tokio::select! {
            tally = sweep::run(&filter) => tally?,
            () = stop.cancelled() => bail!("stopped before all cases were played"),
        }
    } else {
        Tally::default()
    };
    if cli.kills > 0 && !cli.only_power {
        tally.merge(kills::sweep(cli.kills, cli.seed, &cli.victim, stop).await);
    }
    if cli.power_cuts > 0 && cli.victim.is_empty() {
        tally.merge(power::sweep(cli.power_cuts, cli.seed, stop).await);
    }
    let json = serde_json::to_string_pretty(&tally)?;
    std::fs::write(&cli.json, json + "\n")
        .with_context(|| format!("writing {}", cli.json.display()))?;
    Ok(tally)
}
