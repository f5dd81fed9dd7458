//! The command line.

mod event;

pub(crate) use event::{EventCommand, EventFilterArgs, WatchEventsArgs};

use crate::connect::{DEFAULT_SERVER, Server};
use crate::failure::EXIT_CODES;
use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use livemerge_proto::ids::RequestId;
use livemerge_proto::v1;
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

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The API server: `http://ADDRESS:PORT` or `unix:/PATH`
    #[arg(long, global = true, value_name = "URL", env = "LIVEMERGE_SERVER", default_value = DEFAULT_SERVER)]
    pub(crate) server: Server,
    /// How answers are written
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORM",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// The command's time over all, such as `90s` or `1h 30m` [default: 30s a call, a wait has no end]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Names the change that a command asks for, so that it can be repeated without being done
    /// twice [default: a fresh UUID]
    #[arg(long, global = true, value_name = "UUID")]
    pub(crate) request_id: Option<RequestId>,
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
    /// The durable operations
    #[command(subcommand)]
    Operation(OperationCommand),
    /// The audit log
    #[command(subcommand)]
    Event(EventCommand),
    /// Compares the record with hosts and storage, and repairs what is safe to; exits 1 when a finding
    /// is an error
    Doctor(DoctorArgs),
    /// Writes the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether the command asks for a change, which a request id names.
    pub(crate) fn mutates(&self) -> bool {
        match self {
            Self::Host(HostCommand::Register(_))
            | Self::Snapshot(SnapshotCommand::Create(_) | SnapshotCommand::Delete(_)) => true,
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
}

/// `livemerge host register`
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The host's id
    pub(crate) host: String,
    /// Where its agent listens: `http://ADDRESS:PORT` or `unix:/PATH`
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: String,
    /// The agent's generation; an older one than known is refused
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) generation: i64,
    /// The agent's version
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "VERSION"
    )]
    pub(crate) agent_version: String,
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

/// `livemerge snapshot`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Takes a snapshot of all disks of a machine
    Create(CreateArgs),
    /// Shows one snapshot
    Get(SnapshotArgs),
    /// Lists the snapshots of a machine, oldest first
    List {
        /// The machine's id or name; `-` for all machines
        vm: String,
    },
    /// Deletes a snapshot while the machine runs; from then on its point in time is gone
    Delete(DeleteArgs),
}

/// `livemerge snapshot create`
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The machine's id or name
    pub(crate) vm: String,
    /// The snapshot's name, unique among the machine's snapshots
    #[arg(long)]
    pub(crate) name: String,
    /// Free text
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(crate) description: String,
    /// Waits for the end, and shows the progress
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Which snapshot.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The snapshot's id or name
    pub(crate) snapshot: String,
    /// Looks for the name among this machine's snapshots only
    #[arg(long)]
    pub(crate) vm: Option<String>,
}

/// `livemerge snapshot delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Which one.
    #[command(flatten)]
    pub(crate) which: SnapshotArgs,
    /// Refuses unless the snapshot still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) etag: String,
    /// A snapshot that does not exist is no error
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Waits for the end, and shows the progress
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `livemerge operation`
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// Shows one operation
    Get {
        /// The operation's id
        operation: String,
    },
    /// Lists the operations, newest first
    List {
        /// Only those of this machine, by id or name
        #[arg(long)]
        vm: Option<String>,
        /// Only those in this state; can be given again for several
        #[arg(long)]
        state: Vec<State>,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Shows the progress to the end; as JSON, one document a line for each change
    Watch {
        /// The operation's id
        operation: String,
    },
    /// Waits for the end, quietly
    Wait {
        /// The operation's id
        operation: String,
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

/// The states of operations.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum State {
    /// An earlier operation on the same machine goes first
    Queued,
    /// Under way
    Running,
    /// Done, wholly
    Succeeded,
    /// Ended without success
    Failed,
}

impl From<State> for v1::OperationState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
        }
    }
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
