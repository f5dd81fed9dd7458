//! `livemerge operation`

use super::rate::rate;
use clap::{Args, Subcommand, ValueEnum};
use livemerge_proto::v1;

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
    /// Asks an operation to end before it is done; refused once a guest is being switched
    Cancel(CancelArgs),
    /// Limits what an operation under way copies
    Limit(LimitArgs),
}

/// `livemerge operation cancel`
#[derive(Debug, Args)]
#[command(after_help = "\
A commit writes into an older volume as soon as it begins: what it has touched by then stays as an
INCOMPLETE snapshot, which can be deleted again. With --wait the command says what is left, and
succeeds if the operation has ended as cancelled.

Example:
  livemerge operation cancel 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f --wait")]
pub(crate) struct CancelArgs {
    /// The operation's id
    pub(crate) operation: String,
    /// Waits for the end, shows the progress, and says what is left of the snapshots
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `livemerge operation limit`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  livemerge operation limit 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f 50MiB")]
pub(crate) struct LimitArgs {
    /// The operation's id
    pub(crate) operation: String,
    /// All its block jobs together copy no more than so much a second, such as `50MiB`; 0 for no
    /// limit
    #[arg(value_parser = rate)]
    pub(crate) rate: i64,
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
    /// Given up before it was done, as asked for
    Cancelled,
}

impl From<State> for v1::OperationState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}
