//! What a decision is made from, beside the record.

use super::again::on_a_server;
use super::step::Action;
use super::types::{MergeRecord, Phase, Window};
use crate::hypervisor::{BlockJobOutcome, DiskView, HypervisorError, JobProgress, VmState};
use crate::volumes::unanswered;
use livemerge_proto::problem::Problem;
use std::time::Duration;

/// What was seen just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The machine and its disk.
    pub machine: Machine,
    /// The machine stands still because a disk had no room, and may be let run at any time: nobody has
    /// told it to stand still since.
    pub lacks_room: bool,
    /// What an event or a refusal said since the last action.
    pub told: Option<Told>,
    /// How long that has been known.
    pub told_for: Duration,
    /// How long this process has had the record in its present phase. Monotonic.
    pub in_phase: Duration,
    /// How long the expected block job has been missing. Zero when it is there.
    pub job_missing_for: Duration,
    /// How long libvirt has shown a mark of a job that is not there.
    pub mark_alone_for: Duration,
    /// How long the disk's job, or its mark, has been shown as one of no kind that a merge has.
    pub of_no_kind_for: Duration,
    /// For how long the copy has not been closer to its end than before.
    pub stalled_for: Duration,
    /// Whether the guest can be held back, as far as known.
    pub can_help: bool,
    /// Whether the guest can be held back could not be told just now, and is asked for again later.
    pub help_waits: bool,
    /// What helps the copy was done by an earlier process.
    pub inherited_help: bool,
    /// The spare overlay is in the chain. Looked for while it is being put on.
    pub overlaid: bool,
    /// The other merges that go together with this one.
    pub peers: Peers,
    /// Nothing was done since the record was read from the journal: an earlier process may have
    /// stopped anywhere.
    pub fresh_start: bool,
}

/// The machine as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// It cannot be told.
    Unknown,
    /// Certainly not defined.
    Gone,
    /// Seen.
    Seen {
        /// What it does.
        state: VmState,
        /// The disk, if the machine has it.
        disk: Option<Box<DiskView>>,
        /// The disk's block job.
        job: Option<JobProgress>,
    },
}

/// What was told beside the observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The block job's event.
    Job(BlockJobOutcome),
    /// The hypervisor understood the last action and said no.
    Refused(String),
    /// The job was not started: the kept volume was not given the room for its data, the server of a layer is
    /// away, or the machine is being migrated.
    NotStarted(Problem),
}

impl Told {
    /// What an error of the last action says. Nothing, unless it is certain that nothing was done.
    pub(super) fn by(error: HypervisorError, action: Action, record: &MergeRecord) -> Option<Self> {
        let starts = action == Action::StartJob;
        match error {
            HypervisorError::Migrating(_) if starts => Some(Self::NotStarted(unanswered(&error))),
            // Where it may come back, nothing is lost by asking again.
            HypervisorError::Storage(_) if starts && on_a_server(record) => {
                Some(Self::NotStarted(unanswered(&error)))
            }
            HypervisorError::Refused(text)
            | HypervisorError::Storage(text)
            | HypervisorError::Migrating(text) => Some(Self::Refused(text)),
            HypervisorError::NotFound(_) | HypervisorError::Unknown(_) => None,
        }
    }

    /// Whether it still counts once this is done and that phase entered.
    pub fn outlives(&self, phase: &Phase, action: Option<Action>) -> bool {
        use BlockJobOutcome::{Cancelled, Failed};
        match (self, phase) {
            // A guest that is let run changes nothing of it: nobody starts the job again.
            (Self::Job(Cancelled), Phase::Ready { .. }) => true,
            (Self::Job(Cancelled), Phase::Pivoting { window, .. }) => *window == Window::Releasing,
            // It is why the job will be asked for again.
            (Self::Job(Failed), Phase::Copying { .. }) => action.is_none(),
            _ => false,
        }
    }

    /// Whether an event says more. A refusal's text says more than one that may follow it, unless the
    /// job was called off.
    pub fn gives_way_to(&self, event: BlockJobOutcome) -> bool {
        !matches!(self, Self::Refused(_)) || event == BlockJobOutcome::Cancelled
    }
}

/// The merges of other disks that go together with one, all of them taken as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Each one that will pivot has caught up, or is past that.
    pub ready: bool,
    /// One has come to nothing, or will.
    pub lost: bool,
    /// One has lost its way back: from here on all go forward.
    pub passed: bool,
}

impl Peers {
    /// Of a merge that stands alone.
    pub const NONE: Self = Self {
        ready: true,
        lost: false,
        passed: false,
    };

    /// What these records are to another one.
    pub fn of<'a>(others: impl IntoIterator<Item = &'a MergeRecord>) -> Self {
        others.into_iter().fold(Self::NONE, |all, other| Self {
            ready: all.ready && other.in_nobody_s_way(),
            lost: all.lost || other.phase.lost(),
            passed: all.passed || other.phase.passed(),
        })
    }
}
