//! Deleting snapshots, round by round, step by step. Pure.
//!
//! ```text
//!   Planning ──chains──▶ round 0: all its merges are ordered together
//!                          Pending ─▶ Merging ─┬─ merged ─▶ Removing ─▶ Removed
//!                                              └─ Failed, Cancelled, Refused
//!                        round 1, once all of round 0 is removed; and so on
//! ```
//!
//! Invariants:
//! - A snapshot's disk says what is merged (`merging`) before the merge is ordered, and until the
//!   volumes that leave are gone from storage.
//! - When a disk is merged, every snapshot that named a volume that left names the kept one, in the
//!   same transaction: the record follows the data.
//! - A removal is asked for only after the host has shown the merge as merged, or the chain without
//!   the volumes. A snapshot's row goes last.

use super::create::record_gone;
use super::details;
use super::follow::{Changed, goes_with};
use super::foreseen::foresee_times;
use super::plan::{Mint, Wanted, plan_delete};
use super::step::{Answer, Ask, Draft, Step};
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, Failure, NewEvent, OperationState, SnapshotState,
    Work,
};
use crate::hosts::HostError;
use crate::store::SnapshotChange;
use livemerge_proto::ids::MergeId;

pub(super) fn step(phase: &DeletePhase, draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    if draft.seen.snapshots.is_empty() {
        let failure = record_gone(draft).into();
        let event = failed_event(draft, &failure);
        return draft.end(
            OperationState::Failed(failure),
            draft.operation.work.clone(),
            vec![],
            vec![event],
        );
    }
    let delete = Delete { draft };
    match phase {
        DeletePhase::Planning => delete.planning(mint),
        DeletePhase::Disks(tasks) => delete.round(tasks),
    }
}

/// The merges that are ordered, or are to be.
pub(super) fn awaited_merges(phase: &DeletePhase) -> Vec<MergeId> {
    let DeletePhase::Disks(tasks) = phase else {
        return vec![];
    };
    let merging = tasks.iter().filter(|task| task.state == DiskState::Merging);
    merging.map(|task| task.merge).collect()
}

pub(super) struct Delete<'a> {
    pub(super) draft: &'a Draft<'a>,
}

impl Delete<'_> {
    fn planning(&self, mint: Mint<'_>) -> Step {
        if self.draft.operation.cancel_requested {
            return self.cancelled(None);
        }
        let (vm, costs) = match self.draft.seen.answer {
            Some(Answer::Survey(vm, costs)) => (vm, costs),
            Some(Answer::Error(HostError::Refused(problem))) => {
                return self.fail(None, problem.clone().into());
            }
            Some(Answer::Error(HostError::Unknown(problem))) => return self.draft.again(problem),
            _ => return Step::Ask(Ask::Survey(self.draft.operation.vm)),
        };
        match plan_delete(&self.wanted(), vm, costs, mint) {
            Ok(tasks) => self.planned(tasks),
            Err(problem) => self.fail(None, problem.into()),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            deletes: self.draft.seen.snapshots,
            others: self.draft.seen.others,
            options: &self.draft.operation.options,
        }
    }

    /// Writes the plan down, and the first round's turn with it.
    fn planned(&self, mut tasks: Vec<DiskTask>) -> Step {
        let limit = self.limit_of_one(1);
        foresee_times(&mut tasks, self.draft.seen.rate, limit);
        let mut changed = Changed::default();
        for snapshot in self.draft.seen.snapshots {
            let mut disks = snapshot.disks.clone();
            disks.retain_mut(|disk| {
                let task = tasks.iter().find(|task| goes_with(task, snapshot.id, disk));
                disk.merging = task.map(DiskTask::merging);
                task.is_some()
            });
            changed.put(snapshot, SnapshotState::Deleting, disks);
        }
        let mut events: Vec<_> = tasks.iter().map(|task| self.planned_event(task)).collect();
        events.extend(self.begin_next(&mut tasks));
        for task in &tasks {
            if matches!(task.state, DiskState::Removing { .. }) {
                self.follow_found(task, &mut changed);
            }
        }
        self.go_on(tasks, changed, events)
    }

    /// The round that is under way: first its merges, then its removals.
    fn round(&self, tasks: &[DiskTask]) -> Step {
        let Some(open) = tasks.iter().find(|task| !task.is_removed()) else {
            return self.done(tasks.to_vec(), vec![]);
        };
        let now = open.round;
        let of_round = |state: fn(&DiskState) -> bool| {
            move |task: &DiskTask| task.round == now && state(&task.state)
        };
        let merging = of_round(|state| *state == DiskState::Merging);
        if tasks.iter().any(&merging) {
            return self.merging(tasks, merging);
        }
        let removing = of_round(|state| matches!(state, DiskState::Removing { .. }));
        if tasks.iter().any(removing) {
            return self.removing(tasks);
        }
        self.undone(tasks)
    }

    /// The next round's turn begins, when nothing of the one before is open and its end was not
    /// asked for.
    pub(super) fn begin_next(&self, tasks: &mut [DiskTask]) -> Vec<NewEvent> {
        let Some(round) = tasks
            .iter()
            .find(|task| !task.is_removed())
            .map(|task| task.round)
        else {
            return vec![];
        };
        let mut of_round: Vec<_> = tasks
            .iter_mut()
            .filter(|task| task.round == round)
            .collect();
        let untouched = |task: &&mut DiskTask| {
            matches!(
                task.state,
                DiskState::Pending | DiskState::Removing { .. } | DiskState::Removed { .. }
            )
        };
        if self.draft.operation.cancel_requested || !of_round.iter().all(untouched) {
            return vec![];
        }
        let mut events = Vec::new();
        for task in &mut of_round {
            if task.state == DiskState::Pending {
                task.state = DiskState::Merging;
                let text = format!(
                    "disk {}: the merge of {} into {} begins",
                    task.disk,
                    details::removed(task).join(", "),
                    task.kept.volume
                );
                events.push(self.disk_event(EventKind::LiveMergeStarted, task, text));
            }
        }
        events
    }

    pub(super) fn go_on(
        &self,
        tasks: Vec<DiskTask>,
        changed: Changed,
        events: Vec<NewEvent>,
    ) -> Step {
        let work = Work::Delete(DeletePhase::Disks(tasks));
        self.draft.enter(work, changed.into_changes(), events)
    }

    /// All is merged and removed: the snapshots' rows go with the operation's end.
    pub(super) fn done(&self, tasks: Vec<DiskTask>, mut events: Vec<NewEvent>) -> Step {
        let snapshots = self.draft.seen.snapshots;
        events.extend(
            snapshots
                .iter()
                .map(|snapshot| self.deleted_event(snapshot)),
        );
        let gone = snapshots
            .iter()
            .map(|snapshot| SnapshotChange::Delete(snapshot.id));
        let work = Work::Delete(DeletePhase::Disks(tasks));
        self.draft
            .end(OperationState::Succeeded, work, gone.collect(), events)
    }
}

pub(super) fn failed_event(draft: &Draft<'_>, failure: &Failure) -> NewEvent {
    let what = format!("snapshot {} was not deleted", draft.operation.snapshot_name);
    draft.failed(EventKind::SnapshotDeleteFailed, &what, failure)
}
