//! `livemerge-api-server`: the public Snapshot service.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("fail points are for tests: build this program without the feature `failpoints`");

use clap::Parser;
use livemerge_api_server::{config::Config, server};
use livemerge_runtime::{Args, hold_hangups, process, telemetry, trace};
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Each call makes and drops hundreds of small things, at which it is quicker than the C library's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Takes and deletes snapshots of running virtual machines.
#[derive(Parser)]
#[command(name = "livemerge-api-server", version)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    process(run(&Cli::parse().args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    hold_hangups()?;
    let config: Config = args.load("LIVEMERGE_SERVER_")?;
    config.check(args.insecure)?;
    if args.check_config {
        config.check_files()?;
    }
    if args.report(&config, &mut std::io::stdout())? {
        return Ok(());
    }
    telemetry::init(&config.log)?;
    livemerge_proto::rules::prepare();
    let _traces = trace::start(&config.traces, env!("CARGO_PKG_NAME"), "")?;
    server::run(&config, args.insecure).await
}
