//! How a delete fails, and what it leaves of the snapshot. Pure.
//!
//! Invariants:
//! - A disk that is not touched when the operation fails names what it named before the plan. A
//!   snapshot is READY again only if that holds for all its disks, and no delete before touched it.

use super::delete::{Delete, failed_event};
use super::details;
use super::step::{Step, put};
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, Failure, OperationState, SnapshotState, Work,
};
use crate::store::SnapshotChange;
use jiff::SignedDuration;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

/// A host's journal remembers a merge that has ended for longer than this.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

impl Delete<'_> {
    pub(super) fn merge_failed(
        &self,
        tasks: &[DiskTask],
        current: usize,
        failure: Failure,
    ) -> Step {
        let mut tasks = tasks.to_vec();
        tasks[current].state = DiskState::Failed(failure.clone());
        self.fail(Some(tasks), failure)
    }

    /// The host has said no to the order of a merge.
    pub(super) fn merge_refused(
        &self,
        tasks: &[DiskTask],
        current: usize,
        problem: &Problem,
    ) -> Step {
        let mut tasks = tasks.to_vec();
        let failure = Failure::from(problem.clone());
        tasks[current].state = if self.never_began(problem) {
            DiskState::Refused(failure.clone())
        } else {
            DiskState::Failed(failure.clone())
        };
        self.fail(Some(tasks), failure)
    }

    /// Whether a merge that is refused has never begun and never will: nobody has ever shown or
    /// accepted it (a journal can be damaged: that it has no such merge now proves nothing), the
    /// host's journal cannot have forgotten one, and no earlier copy of the order is under way.
    fn never_began(&self, problem: &Problem) -> bool {
        let since = self.draft.operation.started_at.unwrap_or(self.draft.now);
        !self.draft.seen.begun
            && problem.reason != Reason::MergeIdConflict
            && self.draft.seen.attempts <= 1
            && self.draft.now.duration_since(since) < REMEMBERED
    }

    /// The snapshot stays in the list. It is whole only if nothing of it was ever touched.
    pub(super) fn fail(&self, tasks: Option<Vec<DiskTask>>, failure: Failure) -> Step {
        let mut events = Vec::new();
        for task in tasks.iter().flatten() {
            if let DiskState::Failed(failure) | DiskState::Refused(failure) = &task.state {
                let what = format!("the live merge of disk {} failed", task.disk);
                let mut event = self
                    .draft
                    .failed(EventKind::LiveMergeFailed, &what, failure);
                details::of_disk(&mut event, task);
                events.push(event);
            }
        }
        events.push(failed_event(self.draft, &failure));
        let snapshot = self.left(tasks.as_deref().unwrap_or_default());
        let work = tasks.map_or_else(
            || self.draft.operation.work.clone(),
            |tasks| Work::Delete(DeletePhase::Disks(tasks)),
        );
        self.draft.end(
            OperationState::Failed(failure),
            work,
            vec![snapshot],
            events,
        )
    }

    /// What a failed delete leaves: a disk that it has not touched is as it was before the plan.
    fn left(&self, tasks: &[DiskTask]) -> SnapshotChange {
        let mut disks = self.snapshot.disks.clone();
        for disk in &mut disks {
            let untouched = |task: &&DiskTask| task.disk == disk.disk && task.is_untouched();
            if let Some(task) = tasks.iter().find(untouched) {
                disk.merging.clone_from(&task.earlier);
            }
        }
        let whole = !self.snapshot.was_incomplete
            && tasks.iter().all(DiskTask::is_untouched)
            && disks.iter().all(|disk| disk.merging.is_none());
        let state = if whole {
            SnapshotState::Ready
        } else {
            SnapshotState::Incomplete
        };
        put(self.snapshot, state, disks)
    }
}
