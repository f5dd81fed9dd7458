//! What to do next with an operation: a pure function of the record and what was just observed.
//!
//! ```text
//!   create:  Planning ──chains──▶ Overlaying ──overlays on──▶ done
//!
//!   delete:  Planning ──survey──▶ each disk: Pending ▶ Merging ──merged──▶ Removing ──gone──▶ Removed
//!                                                        └──failed, cancelled──▶ the operation ends
//! ```
//!
//! [`Step::Ask`] repeats what is safe to repeat; only its *answer*, or what the host shows by
//! itself, moves the record on. An answer that was not had leads to waiting.

use super::plan::Mint;
use super::types::{
    Consistency, EventKind, Failure, Leaving, NewEvent, Operation, OperationState, Severity,
    Snapshot, SnapshotDisk, SnapshotState, Work,
};
use super::{create, delete, obstacle, removing};
use crate::hosts::{
    HostError, Measured, MergeOrder, MergeSight, MergeWaiting, OverlayOrder, RemovalOrder,
    Removals, VmChains,
};
use crate::store::{Change, SnapshotChange};
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_runtime::Backoff;
use livemerge_storage::RemovalId;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the decision rests on.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The snapshots of the operation whose records are there, oldest first.
    pub snapshots: &'a [Snapshot],
    /// The machine's other snapshots.
    pub others: &'a [Snapshot],
    /// The machine's host, if it is known.
    pub host: Option<&'a HostId>,
    /// The merges that the operation now waits for.
    pub merges: BTreeMap<MergeId, MergeSight>,
    /// For how long it could not be told how they stand, or nobody has answered.
    pub unseen: Duration,
    /// What in the record, also of other machines, needs a volume that is to be removed next, by the
    /// removal.
    pub needed: &'a BTreeMap<RemovalId, Problem>,
    /// What the last question was answered with, since the record last changed.
    pub answer: Option<&'a Answer>,
    /// How often in a row the answer was no answer.
    pub attempts: u32,
    /// Whether one of them may have begun: it was accepted or seen since the record last changed, or
    /// an earlier run of the server may have had it accepted.
    pub begun: bool,
    /// How many bytes a second the host's merges have copied, when that is known. Only a plan needs it.
    pub rate: Option<u64>,
    /// What all of the operation's jobs may copy in a second where they merge; 0 for no limit.
    pub bytes_per_second: u64,
}

impl Observation<'_> {
    /// What is known of one merge.
    pub fn sight(&self, merge: MergeId) -> &MergeSight {
        self.merges.get(&merge).unwrap_or(&MergeSight::Unknown)
    }
}

/// Asked of the machine's host. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The chains of all disks of the machine.
    Chains(VmId),
    /// The same, and what merging costs each way.
    Survey(VmId),
    /// Overlays, once.
    Overlays(OverlayOrder),
    /// Merges that go together, once.
    Merges(Vec<MergeOrder>),
    /// That a merge is given up, and those that go together with it.
    Cancel(MergeId),
    /// That the job of each of these merges copies no more than so many bytes a second.
    Limit(Vec<MergeId>, u64),
    /// Removals of volumes that leave together, each once.
    Removals(Vec<RemovalOrder>),
}

/// A host's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Chains`].
    Chains(VmChains),
    /// To [`Ask::Survey`].
    Survey(VmChains, Vec<Measured>),
    /// To [`Ask::Overlays`]: they are on, and this lies below.
    OverlaysOn(Consistency),
    /// To [`Ask::Merges`]: they are in the host's journal, and will be seen.
    MergesAccepted,
    /// To [`Ask::Cancel`] and [`Ask::Limit`]: what comes of it will be seen.
    Heard,
    /// To [`Ask::Removals`]. What has no answer there was not done.
    Removals(Removals),
    /// To any: no, or none.
    Error(HostError),
}

impl Answer {
    /// The no, or the lack of an answer, that there is in it. A no goes first: it says more.
    pub fn error(&self) -> Option<&HostError> {
        match self {
            Self::Error(error) => Some(error),
            Self::Removals(removals) => {
                let errors = || removals.values().filter_map(|came| came.as_ref().err());
                let no = errors().find(|error| matches!(error, HostError::Refused(_)));
                no.or_else(|| errors().next())
            }
            _ => None,
        }
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Write this down and look again: the work has moved.
    Enter(Box<Change>),
    /// Write this down and look again: the work stands where it stood, and what was answered and
    /// how often counts on.
    Note(Box<Change>),
    /// Ask the host.
    Ask(Ask),
    /// Look again when something changes, or after this time.
    Wait(Wait),
}

impl Step {
    /// For logs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Enter(_) => "enter",
            Self::Note(_) => "note",
            Self::Wait(_) => "wait",
            Self::Ask(ask) => match ask {
                Ask::Chains(_) => "ask for the chains",
                Ask::Survey(_) => "ask for a survey",
                Ask::Overlays(_) => "order overlays",
                Ask::Merges(_) => "order merges",
                Ask::Cancel(_) => "cancel a merge",
                Ask::Limit(..) => "limit merges",
                Ask::Removals(_) => "order removals",
            },
        }
    }
}

/// What an operation waits for. When the time is over, the last question is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// At the latest.
    pub time: Duration,
    /// What is in the way; `None` when all goes well.
    pub cause: Option<Problem>,
    /// What makes the wait shorter.
    pub sign: Sign,
    /// When the host tries next and how often it has, when it is the host that waits.
    pub by_host: Option<(Timestamp, u32)>,
}

/// What makes a wait shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Anything that the host shows.
    Any,
    /// The host's return, or its loss: nothing else promises another answer.
    Return,
}

impl Wait {
    /// For a sign from the host, which is on its way.
    pub(super) fn for_a_sign() -> Self {
        Self {
            time: Duration::from_secs(5),
            cause: None,
            sign: Sign::Any,
            by_host: None,
        }
    }

    /// For a sign from the host, which waits itself.
    pub(super) fn for_the_host(waiting: &MergeWaiting) -> Self {
        Self {
            cause: Some(waiting.cause.clone()),
            by_host: Some((waiting.next_try_at, waiting.attempts)),
            ..Self::for_a_sign()
        }
    }

    /// Until asking again is worth it.
    fn to_ask_again(cause: Problem, time: Duration) -> Self {
        Self {
            time,
            cause: Some(cause),
            sign: Sign::Return,
            by_host: None,
        }
    }
}

/// Between two questions to a host.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
/// Between two tries of a removal that is refused: whoever uses the volume may do so for days.
const REMOVE_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// Decides. An operation that has ended only waits.
pub fn step(operation: &Operation, seen: &Observation<'_>, now: Timestamp, mint: Mint<'_>) -> Step {
    let draft = Draft::new(operation, seen, now);
    let next = match &operation.work {
        Work::Create(phase) => create::step(phase, &draft, mint),
        Work::Delete(phase) => delete::step(phase, &draft, mint),
    };
    obstacle::told(next, &draft)
}

/// The merges whose state the operation needs to see.
pub fn awaited_merges(operation: &Operation) -> Vec<MergeId> {
    match &operation.work {
        Work::Delete(phase) => delete::awaited_merges(phase),
        Work::Create(_) => vec![],
    }
}

/// The volumes that the operation has removed next, when nothing goes before that: of each disk the
/// youngest first.
pub fn next_removals(operation: &Operation) -> Vec<&Leaving> {
    match &operation.work {
        Work::Delete(phase) => removing::next(phase),
        Work::Create(_) => vec![],
    }
}

/// Builds changes of one operation.
pub(super) struct Draft<'a> {
    pub(super) operation: &'a Operation,
    pub(super) seen: &'a Observation<'a>,
    pub(super) now: Timestamp,
}

impl<'a> Draft<'a> {
    fn new(operation: &'a Operation, seen: &'a Observation<'a>, now: Timestamp) -> Self {
        Self {
            operation,
            seen,
            now,
        }
    }

    /// The operation goes on with this work.
    pub(super) fn enter(
        &self,
        work: Work,
        snapshots: Vec<SnapshotChange>,
        events: Vec<NewEvent>,
    ) -> Step {
        self.change(OperationState::Running, work, snapshots, events)
    }

    /// The operation stands where it stood, but for what it notes.
    pub(super) fn note(&self, note: impl FnOnce(&mut Operation), events: Vec<NewEvent>) -> Step {
        let mut operation = self.operation.clone();
        note(&mut operation);
        Step::Note(Box::new(Change {
            operation,
            snapshots: vec![],
            events,
        }))
    }

    /// The last question was not answered: it is asked again, later each time.
    pub(super) fn again(&self, problem: &Problem) -> Step {
        self.after(ASK_AGAIN, problem)
    }

    /// A removal was refused: it is asked for again, however often.
    pub(super) fn remove_again(&self, problem: &Problem) -> Step {
        self.after(REMOVE_AGAIN, problem)
    }

    fn after(&self, backoff: Backoff, problem: &Problem) -> Step {
        let time = backoff.after(self.seen.attempts, self.operation.id);
        Step::Wait(Wait::to_ask_again(problem.clone(), time))
    }

    /// The operation ends.
    pub(super) fn end(
        &self,
        state: OperationState,
        work: Work,
        snapshots: Vec<SnapshotChange>,
        events: Vec<NewEvent>,
    ) -> Step {
        self.change(state, work, snapshots, events)
    }

    fn change(
        &self,
        state: OperationState,
        work: Work,
        snapshots: Vec<SnapshotChange>,
        events: Vec<NewEvent>,
    ) -> Step {
        let mut operation = self.operation.clone();
        operation.started_at = operation.started_at.or(Some(self.now));
        operation.ended_at = state.ended().then_some(self.now);
        operation.state = state;
        operation.work = work;
        operation.host = operation.host.or_else(|| self.seen.host.cloned());
        Step::Enter(Box::new(Change {
            operation,
            snapshots,
            events,
        }))
    }

    /// An entry of the audit log about this operation.
    pub(super) fn event(&self, kind: EventKind, severity: Severity, message: String) -> NewEvent {
        NewEvent {
            kind,
            severity,
            occurred_at: self.now,
            host: self.seen.host.or(self.operation.host.as_ref()).cloned(),
            vm: Some(self.operation.vm),
            snapshot: Some(self.operation.snapshot),
            operation: Some(self.operation.id),
            actor: None,
            message,
            details: BTreeMap::new(),
        }
    }

    /// An entry about a failure: its reason and values go into the details.
    pub(super) fn failed(&self, kind: EventKind, what: &str, failure: &Failure) -> NewEvent {
        let text = format!("{what}: {}", failure.message);
        let mut event = self.event(kind, Severity::Error, text);
        event.details.clone_from(&failure.metadata);
        event
            .details
            .insert("reason".to_owned(), failure.reason.to_string());
        event
    }
}

/// The snapshot in another state and with other disks.
pub(super) fn put(
    snapshot: &Snapshot,
    state: SnapshotState,
    disks: Vec<SnapshotDisk>,
) -> SnapshotChange {
    SnapshotChange::Put(Snapshot {
        state,
        disks,
        ..snapshot.clone()
    })
}
