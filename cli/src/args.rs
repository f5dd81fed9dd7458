//! The command line.

mod access;
mod age;
mod diagnostics;
mod event;
mod label;
mod operation;
mod rate;
mod snapshot;
mod volume;

pub(crate) use access::AccessArgs;
pub(crate) use age::Age;
pub(crate) use diagnostics::DiagnosticsArgs;
pub(crate) use event::{EventCommand, EventFilterArgs, WatchEventsArgs};
pub(crate) use operation::{CancelArgs, LimitArgs, OperationCommand, State};
pub(crate) use snapshot::{
    CreateArgs, DeleteArgs, MergeArgs, PlanArgs, SnapshotArgs, SnapshotCommand, UpdateArgs,
};

pub(crate) use volume::{RemovedArgs, RestoreArgs, StoragesArgs, VolumeCommand};

use crate::connect::{DEFAULT_SERVER, Server};
use crate::failure::EXIT_CODES;
use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use livemerge_proto::ids::RequestId;
use std::time::Duration;

/// Snapshots of running virtual machines: take, list, delete by live merge.
#[derive(Debug, Parser)]
#[command(name = "livemerge", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// For every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Stands over them in the help.
const EVERY: &str = "For every command";

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The API server: `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`
    #[arg(long, global = true, help_heading = EVERY, value_name = "URL", env = "LIVEMERGE_SERVER", default_value = DEFAULT_SERVER)]
    pub(crate) server: Server,
    /// How answers are written
    #[arg(
        long,
        short,
        global = true,
        help_heading = EVERY,
        value_name = "FORM",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// The command's time over all, such as `90s` or `1h 30m` [default: 30s a call, a wait has no end]
    #[arg(long, global = true, help_heading = EVERY, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Names the change that a command asks for, so that it can be repeated without being done
    /// twice [default: a fresh UUID]
    #[arg(long, global = true, help_heading = EVERY, value_name = "UUID")]
    pub(crate) request_id: Option<RequestId>,
    /// How the server is called.
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// The commands, by subject.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hypervisor hosts
    #[command(subcommand)]
    Host(HostCommand),
    /// Virtual machines and the chains of their disks
    #[command(subcommand)]
    Vm(VmCommand),
    /// Snapshots of virtual machines
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Storage domains, and volumes that were removed and can be brought back while they are kept
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// The durable operations
    #[command(subcommand)]
    Operation(OperationCommand),
    /// The audit log
    #[command(subcommand)]
    Event(EventCommand),
    /// Compares the record with hosts and storage, and repairs what is safe to; exits 1 when a finding
    /// is an error
    Doctor(DoctorArgs),
    /// Writes an archive for whoever is to find out what is wrong: versions, hosts, operations, events,
    /// findings, metrics and configurations, and nothing secret
    Diagnostics(DiagnosticsArgs),
    /// Writes the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether the command asks for a change that a request id names. What can be repeated
    /// without one, as a cancel, has none.
    pub(crate) fn takes_request_id(&self) -> bool {
        match self {
            Self::Host(HostCommand::Register(_) | HostCommand::Maintenance { .. }) => true,
            Self::Snapshot(SnapshotCommand::Create(_)) => true,
            Self::Volume(VolumeCommand::Restore(_)) => true,
            Self::Snapshot(SnapshotCommand::Delete(delete)) => !delete.dry_run,
            Self::Doctor(doctor) => doctor.repair.is_some(),
            _ => false,
        }
    }
}

/// `livemerge host`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Lists the hosts
    List,
    /// Shows one host
    Get {
        /// The host's id
        host: String,
    },
    /// Makes a host known, as its agent does at its start
    Register(RegisterArgs),
    /// Takes a host into maintenance, or out of it: what merges there ends, and nothing new is begun
    Maintenance {
        /// The host's id
        host: String,
        /// Into it, or out of it
        state: Switch,
    },
}

/// Whether something is so from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// `livemerge host register`
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The host's id
    pub(crate) host: String,
    /// Where its agent listens: `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: String,
}

/// `livemerge vm`
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Lists the machines
    List {
        /// Only those on this host
        #[arg(long)]
        host: Option<String>,
    },
    /// Shows one machine
    Get {
        /// The machine's id or name
        vm: String,
    },
    /// Draws the chains of the disks as the host has them now, base first
    Chain {
        /// The machine's id or name
        vm: String,
        /// Only this disk, such as `vda`
        #[arg(long)]
        disk: Option<String>,
    },
}

/// `livemerge doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only what concerns this machine, by id or name
    #[arg(long)]
    pub(crate) vm: Option<String>,
    /// Only what concerns this host
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Applies the repair of this finding, if the server finds it again just so
    #[arg(long, value_name = "FINDING", conflicts_with_all = ["vm", "host"])]
    pub(crate) repair: Option<String>,
}

/// `90s`, `1h 30m`, `PT5M`, or a plain number of seconds; more than zero.
fn duration(text: &str) -> Result<Duration, String> {
    let wanted = |_| "must be a time such as `90s` or `1h 30m`".to_owned();
    let seconds = text.parse::<u64>().map(Duration::from_secs);
    let time = match seconds {
        Ok(time) => time,
        Err(_with_unit) => {
            let time: jiff::SignedDuration = text.parse().map_err(wanted)?;
            Duration::try_from(time).map_err(|_| "must not be negative".to_owned())?
        }
    };
    if time.is_zero() {
        Err("must be more than zero".to_owned())
    } else {
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "0", "0s", "-1s", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
