//! `livemerge-host-agent`: the Merge service of one hypervisor host.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("fail points are for tests: build this program without the feature `failpoints`");

use clap::{Parser, Subcommand};
use livemerge_host_agent::export::{self, ExportArgs};
use livemerge_host_agent::{agent, config::Config, hypervisor::Libvirt};
use livemerge_runtime::{Args, hold_hangups, process, telemetry, trace};
use std::process::ExitCode;
use std::sync::Arc;

/// Merges the disks of this host's virtual machines while they run.
#[derive(Parser)]
#[command(name = "livemerge-host-agent", version)]
struct Cli {
    #[command(flatten)]
    args: Args,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the volumes of a domain of objects to this host's machines; the agent starts it itself
    Export(ExportArgs),
}

fn main() -> ExitCode {
    // As the variable FAILPOINTS says.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let cli = Cli::parse();
    match &cli.command {
        None => process(run(&cli.args)),
        Some(Command::Export(args)) => process(export::run(args)),
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    hold_hangups()?;
    let config: Config = args.load("LIVEMERGE_AGENT_")?;
    config.check(args.insecure)?;
    if args.check_config {
        config.check_files()?;
    }
    let call_limit = config.hypervisor.call_limit()?;
    if args.report(&config, &mut std::io::stdout())? {
        return Ok(());
    }
    telemetry::init(&config.log)?;
    livemerge_proto::rules::prepare();
    let _traces = trace::start(&config.traces, env!("CARGO_PKG_NAME"), &config.host.id)?;
    let hypervisor = Arc::new(Libvirt::open(&config.hypervisor.uri, call_limit)?);
    agent::run(&config, hypervisor, args.insecure).await
}
