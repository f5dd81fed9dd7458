//! How a delete ends before it is done, and what it leaves of the snapshots. Pure.
//!
//! Invariants:
//! - A disk that is not touched when the operation ends names what it named before the plan. A
//!   snapshot is READY again only if that holds for all its disks, and no delete before touched it.
//! - A snapshot whose disks are all merged and removed by then is gone, whatever became of others.

use super::delete::{Delete, failed_event};
use super::details;
use super::follow::{Changed, goes_with};
use super::step::{Step, put};
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, Failure, NewEvent, OperationState, Severity,
    Snapshot, SnapshotDisk, SnapshotState, Work,
};
use crate::store::SnapshotChange;
use jiff::SignedDuration;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

/// A host's journal remembers a merge that has ended for longer than this.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

impl Delete<'_> {
    /// The merge of one disk has come to nothing. Those that go together with it come to their own
    /// end first.
    pub(super) fn lost(&self, tasks: &[DiskTask], current: usize, state: DiskState) -> Step {
        let mut tasks = tasks.to_vec();
        tasks[current].state = state;
        let event = self.lost_event(&tasks[current]);
        self.go_on(tasks, Changed::default(), event.into_iter().collect())
    }

    /// The host has said no to the order of a round's merges: to all of them.
    pub(super) fn merges_refused(&self, tasks: &[DiskTask], problem: &Problem) -> Step {
        let mut tasks = tasks.to_vec();
        let failure = Failure::from(problem.clone());
        let mut events = Vec::new();
        for task in &mut tasks {
            if task.state == DiskState::Merging {
                task.state = if self.never_began(problem) {
                    DiskState::Refused(failure.clone())
                } else {
                    DiskState::Failed(failure.clone())
                };
                events.extend(self.lost_event(task));
            }
        }
        self.go_on(tasks, Changed::default(), events)
    }

    /// Whether a merge that is refused has never begun and never will: nobody has ever shown or
    /// accepted it (a journal can be damaged: that it has no such merge now proves nothing), and the
    /// host's journal cannot have forgotten one. However often it was ordered: a copy of an earlier try
    /// that comes after this one is late, and the agent carries out none. Who does not understand an order
    /// has not looked at its place, and tells nothing of earlier tries.
    fn never_began(&self, problem: &Problem) -> bool {
        let since = self.draft.operation.started_at.unwrap_or(self.draft.now);
        let tells = match problem.reason {
            Reason::MergeIdConflict => false,
            Reason::AgentIncompatible | Reason::FieldInvalid => self.draft.seen.attempts <= 1,
            _ => true,
        };
        !self.draft.seen.begun && tells && self.draft.now.duration_since(since) < REMEMBERED
    }

    fn lost_event(&self, task: &DiskTask) -> Option<NewEvent> {
        match &task.state {
            DiskState::Failed(failure) | DiskState::Refused(failure) => {
                let what = format!("the live merge of disk {} failed", task.disk);
                let kind = EventKind::LiveMergeFailed;
                let mut event = self.draft.failed(kind, &what, failure);
                details::of_disk(&mut event, task);
                Some(event)
            }
            DiskState::Cancelled => {
                let text = format!("the live merge of disk {} was cancelled", task.disk);
                let mut event = self.disk_event(EventKind::LiveMergeCancelled, task, text);
                event.severity = Severity::Warning;
                Some(event)
            }
            _ => None,
        }
    }

    /// A round is over without its work, or the next one shall not begin.
    pub(super) fn undone(&self, tasks: &[DiskTask]) -> Step {
        let failure = tasks.iter().find_map(|task| match &task.state {
            DiskState::Failed(failure) | DiskState::Refused(failure) => Some(failure.clone()),
            _ => None,
        });
        match failure {
            Some(failure) => self.fail(Some(tasks.to_vec()), failure),
            None => self.cancelled(Some(tasks.to_vec())),
        }
    }

    /// The snapshots stay in the list.
    pub(super) fn fail(&self, tasks: Option<Vec<DiskTask>>, failure: Failure) -> Step {
        let event = failed_event(self.draft, &failure);
        self.end(OperationState::Failed(failure), tasks, event)
    }

    /// The same, because somebody wished it.
    pub(super) fn cancelled(&self, tasks: Option<Vec<DiskTask>>) -> Step {
        let name = &self.draft.operation.snapshot_name;
        let text = format!("the deletion of snapshot {name} was cancelled");
        let event = self
            .draft
            .event(EventKind::OperationCancelled, Severity::Info, text);
        self.end(OperationState::Cancelled, tasks, event)
    }

    fn end(&self, state: OperationState, tasks: Option<Vec<DiskTask>>, event: NewEvent) -> Step {
        let mut events = vec![event];
        let mut changes = Vec::new();
        for snapshot in self.draft.seen.snapshots {
            let change = left(snapshot, tasks.as_deref());
            if matches!(change, SnapshotChange::Delete(_)) {
                events.insert(0, self.deleted_event(snapshot));
            }
            changes.push(change);
        }
        let work = tasks.map_or_else(
            || self.draft.operation.work.clone(),
            |tasks| Work::Delete(DeletePhase::Disks(tasks)),
        );
        self.draft.end(state, work, changes, events)
    }
}

/// What is left of a snapshot: a disk that was not touched is as it was before the plan. One that
/// has no disk any more, though the plan was made, is done.
fn left(snapshot: &Snapshot, plan: Option<&[DiskTask]>) -> SnapshotChange {
    let tasks = plan.unwrap_or_default();
    let mut disks = snapshot.disks.clone();
    disks.retain(|disk| !of(tasks, snapshot, disk).is_some_and(DiskTask::is_removed));
    if plan.is_some() && disks.is_empty() {
        return SnapshotChange::Delete(snapshot.id);
    }
    for disk in &mut disks {
        let Some(task) = of(tasks, snapshot, disk) else {
            continue;
        };
        if task.is_untouched() {
            let mut deletes = task.deletes.iter();
            let own = deletes.find(|deleted| deleted.snapshot == snapshot.id);
            disk.merging = own.and_then(|deleted| deleted.earlier.clone());
        } else if let DiskState::Failed(failure) = &task.state
            && failure.reason == Reason::ChainLacksData
        {
            // Whatever kind of merge it was meant to be.
            disk.merging
                .iter_mut()
                .for_each(|it| it.chain_tells = false);
        }
    }
    let mut own = tasks.iter().filter(|task| {
        let mut deletes = task.deletes.iter();
        deletes.any(|deleted| deleted.snapshot == snapshot.id)
    });
    let whole = !snapshot.was_incomplete
        && own.all(DiskTask::is_untouched)
        && disks.iter().all(|disk| disk.merging.is_none());
    let state = if whole {
        SnapshotState::Ready
    } else {
        SnapshotState::Incomplete
    };
    put(snapshot, state, disks)
}

/// The task that a snapshot goes with on a disk.
fn of<'t>(tasks: &'t [DiskTask], snapshot: &Snapshot, disk: &SnapshotDisk) -> Option<&'t DiskTask> {
    tasks.iter().find(|task| goes_with(task, snapshot.id, disk))
}
