//! Deleting a snapshot, disk by disk, step by step. Pure.
//!
//! Invariants:
//! - A snapshot's disk names the overlay that is merged into it (`merging`) before the merge is
//!   ordered, and until that overlay is gone from storage.
//! - When a disk is merged, every snapshot that named the overlay names the base, in the same
//!   transaction: the record follows the data.
//! - A removal is asked for only after the host has shown the merge as merged, or the chain without
//!   the overlay. A snapshot's row goes last.

use super::create::record_gone;
use super::details;
use super::news::{self, News};
use super::plan::{Mint, plan_delete};
use super::step::{Answer, Ask, Draft, Step, Wait, put};
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, Failure, NewEvent, OperationState, Severity,
    Snapshot, SnapshotDisk, SnapshotState, Work,
};
use crate::hosts::{
    HostError, MergeOrder, MergePhase, MergeSeen, MergeSight, RemovalOrder, Removed,
};
use crate::store::SnapshotChange;
use livemerge_proto::ids::MergeId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

/// A volume that stays in use that often in a row ends the operation; a later delete goes on.
const MAX_REMOVALS: u32 = 12;

pub(super) fn step(phase: &DeletePhase, draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    let Some(snapshot) = draft.seen.snapshot else {
        let failure = record_gone(draft).into();
        let event = failed_event(draft, &failure);
        return draft.end(
            OperationState::Failed(failure),
            draft.operation.work.clone(),
            vec![],
            vec![event],
        );
    };
    let delete = Delete { draft, snapshot };
    match phase {
        DeletePhase::Planning => delete.planning(mint),
        DeletePhase::Disks(tasks) => delete.disks(tasks),
    }
}

pub(super) fn awaited_merge(phase: &DeletePhase) -> Option<MergeId> {
    let DeletePhase::Disks(tasks) = phase else {
        return None;
    };
    tasks
        .iter()
        .find(|task| task.state == DiskState::Merging)
        .map(|task| task.merge)
}

pub(super) struct Delete<'a> {
    pub(super) draft: &'a Draft<'a>,
    pub(super) snapshot: &'a Snapshot,
}

impl Delete<'_> {
    fn planning(&self, mint: Mint<'_>) -> Step {
        let chains = match self.draft.seen.answer {
            Some(Answer::Chains(chains)) => chains,
            Some(Answer::Error(HostError::Refused(problem))) => {
                return self.fail(None, problem.clone().into());
            }
            Some(Answer::Error(HostError::Unknown(problem))) => return self.again(problem),
            _ => return Step::Ask(Ask::Chains(self.draft.operation.vm)),
        };
        match plan_delete(self.snapshot, self.draft.seen.others, chains, mint) {
            Ok(tasks) => self.planned(tasks),
            Err(problem) => self.fail(None, problem.into()),
        }
    }

    /// Writes the plan down, and the first disk's turn with it.
    fn planned(&self, mut tasks: Vec<DiskTask>) -> Step {
        let mut disks = self.snapshot.disks.clone();
        let mut events = Vec::new();
        disks.retain_mut(|disk| {
            let task = tasks.iter().find(|task| task.disk == disk.disk);
            disk.merging = task.map(|task| task.top.clone());
            task.is_some()
        });
        events.extend(tasks.iter().map(|task| self.planned_event(task)));
        events.extend(self.begin_next(&mut tasks));
        let repointed = tasks
            .iter()
            .filter(|task| matches!(task.state, DiskState::Removing { .. }));
        let mut snapshots = self.repoint(repointed);
        snapshots.push(put(self.snapshot, SnapshotState::Deleting, disks));
        self.go_on(tasks, snapshots, events)
    }

    fn disks(&self, tasks: &[DiskTask]) -> Step {
        let Some(current) = tasks.iter().position(|task| !task.is_removed()) else {
            return self.done(tasks.to_vec(), vec![]);
        };
        let task = &tasks[current];
        match &task.state {
            DiskState::Pending | DiskState::Merging => self.merging(tasks, current),
            DiskState::Removing { .. } => self.removing(tasks, current),
            DiskState::Removed { .. } => unreachable!("removed disks were passed over"),
            DiskState::Failed(failure) | DiskState::Refused(failure) => {
                self.fail(Some(tasks.to_vec()), failure.clone())
            }
        }
    }

    fn merging(&self, tasks: &[DiskTask], current: usize) -> Step {
        let task = &tasks[current];
        match &self.draft.seen.merge {
            MergeSight::Seen(seen) => self.merge_seen(tasks, current, seen),
            MergeSight::Unknown => {
                let cause =
                    Problem::new(Reason::HostUnreachable, "the host's agent does not answer");
                Step::Wait(Wait {
                    cause: Some(cause),
                    ..Wait::for_a_sign()
                })
            }
            MergeSight::Absent => match self.draft.seen.answer {
                Some(Answer::MergeAccepted) => Step::Wait(Wait::for_a_sign()),
                Some(Answer::Error(HostError::Refused(problem))) => {
                    self.merge_refused(tasks, current, problem)
                }
                Some(Answer::Error(HostError::Unknown(problem))) => self.again(problem),
                _ => Step::Ask(Ask::Merge(MergeOrder {
                    id: task.merge,
                    vm: self.draft.operation.vm,
                    disk: task.disk.clone(),
                    base: task.base.clone(),
                    top: task.top.clone(),
                })),
            },
        }
    }

    /// Tells what the host shows for the first time, and goes on from there.
    fn merge_seen(&self, tasks: &[DiskTask], current: usize, seen: &MergeSeen) -> Step {
        let mut told = tasks.to_vec();
        let events = self.news(&mut told[current], seen);
        if !events.is_empty() {
            let work = Work::Delete(DeletePhase::Disks(told));
            return self.draft.note(|operation| operation.work = work, events);
        }
        match &seen.phase {
            MergePhase::Failed(failure) => self.merge_failed(tasks, current, failure.clone()),
            MergePhase::Merged => self.merged(tasks, current, seen),
            _ => Step::Wait(Wait::for_a_sign()),
        }
    }

    fn news(&self, task: &mut DiskTask, seen: &MergeSeen) -> Vec<NewEvent> {
        let news = news::of_merge(&mut task.told, seen);
        let event = |news: News| {
            let text = format!("disk {}: {}", task.disk, news.text);
            let mut event = self.disk_event(news.kind, task, text);
            event.severity = news.severity;
            details::add(&mut event, "pivot_attempts", seen.pivot_attempts);
            details::add(&mut event, "copied_bytes", seen.done_bytes);
            event
        };
        news.into_iter().map(event).collect()
    }

    /// The chain has lost the overlay: the record follows the data.
    fn merged(&self, tasks: &[DiskTask], current: usize, seen: &MergeSeen) -> Step {
        let mut tasks = tasks.to_vec();
        let (copied_bytes, longest_pause) = (seen.done_bytes, seen.longest_pause);
        tasks[current].state = DiskState::Removing {
            copied_bytes,
            longest_pause,
        };
        let task = &tasks[current];
        let text = format!(
            "disk {}: {} was merged into {}",
            task.disk, task.top.volume, task.base.volume
        );
        let mut event = self.disk_event(EventKind::LiveMergeCompleted, task, text);
        details::add(&mut event, "copied_bytes", copied_bytes);
        details::add(&mut event, "longest_pause_ms", longest_pause.as_millis());
        details::add(&mut event, "pivot_attempts", seen.pivot_attempts);
        let snapshots = self.repoint(std::iter::once(task));
        self.go_on(tasks, snapshots, vec![event])
    }

    fn removing(&self, tasks: &[DiskTask], current: usize) -> Step {
        match self.draft.seen.answer {
            Some(Answer::Removal(Removed {
                gone: true,
                freed_bytes,
            })) => self.removed(tasks, current, *freed_bytes),
            Some(Answer::Removal(Removed { gone: false, .. })) => Step::Wait(Wait::for_a_sign()),
            Some(Answer::Error(HostError::Refused(problem)))
                if self.draft.seen.refusals >= MAX_REMOVALS =>
            {
                self.fail(Some(tasks.to_vec()), problem.clone().into())
            }
            Some(Answer::Error(HostError::Refused(problem) | HostError::Unknown(problem))) => {
                self.again(problem)
            }
            _ => {
                let task = &tasks[current];
                Step::Ask(Ask::Removal(RemovalOrder {
                    id: task.removal,
                    volume: task.top.clone(),
                }))
            }
        }
    }

    fn removed(&self, tasks: &[DiskTask], current: usize, freed_bytes: u64) -> Step {
        let mut tasks = tasks.to_vec();
        if let DiskState::Removing {
            copied_bytes,
            longest_pause,
        } = tasks[current].state
        {
            tasks[current].state = DiskState::Removed {
                copied_bytes,
                longest_pause,
                freed_bytes,
            };
        }
        let task = &tasks[current];
        let text = format!("{} was removed from storage", task.top.volume);
        let mut event = self.disk_event(EventKind::VolumeRemoved, task, text);
        details::add(&mut event, "freed_bytes", freed_bytes);
        let mut events = vec![event];
        if current + 1 == tasks.len() {
            return self.done(tasks, events);
        }
        let left = self
            .snapshot
            .disks
            .iter()
            .filter(|disk| disk.disk != task.disk)
            .cloned()
            .collect();
        let snapshot = put(self.snapshot, SnapshotState::Deleting, left);
        events.extend(self.begin_next(&mut tasks));
        self.go_on(tasks, vec![snapshot], events)
    }

    /// The next disk's turn begins.
    fn begin_next(&self, tasks: &mut [DiskTask]) -> Option<NewEvent> {
        let open = tasks.iter_mut().find(|task| !task.is_removed())?;
        if open.state != DiskState::Pending {
            return None;
        }
        open.state = DiskState::Merging;
        let text = format!(
            "disk {}: the merge of {} into {} begins",
            open.disk, open.top.volume, open.base.volume
        );
        Some(self.disk_event(EventKind::LiveMergeStarted, open, text))
    }

    fn go_on(
        &self,
        tasks: Vec<DiskTask>,
        snapshots: Vec<SnapshotChange>,
        events: Vec<NewEvent>,
    ) -> Step {
        self.draft
            .enter(Work::Delete(DeletePhase::Disks(tasks)), snapshots, events)
    }

    /// All is merged and removed: the snapshot's row goes with the operation's end.
    fn done(&self, tasks: Vec<DiskTask>, mut events: Vec<NewEvent>) -> Step {
        let text = format!("snapshot {} was deleted", self.snapshot.name);
        events.push(
            self.draft
                .event(EventKind::SnapshotDeleted, Severity::Info, text),
        );
        let gone = SnapshotChange::Delete(self.snapshot.id);
        let work = Work::Delete(DeletePhase::Disks(tasks));
        self.draft
            .end(OperationState::Succeeded, work, vec![gone], events)
    }

    fn again(&self, problem: &Problem) -> Step {
        Step::Wait(Wait::to_ask_again(
            problem.clone(),
            self.draft.seen.attempts,
        ))
    }

    /// Snapshots that named a merged overlay name its base from now on.
    fn repoint<'t>(&self, merged: impl Iterator<Item = &'t DiskTask>) -> Vec<SnapshotChange> {
        let merged: Vec<&DiskTask> = merged.collect();
        let others = self.draft.seen.others.iter().filter_map(|other| {
            let disks: Vec<SnapshotDisk> = other
                .disks
                .iter()
                .map(|disk| follow(disk, &merged))
                .collect();
            (disks != other.disks).then(|| put(other, other.state, disks))
        });
        others.collect()
    }

    fn planned_event(&self, task: &DiskTask) -> NewEvent {
        let (top, base) = (&task.top.volume, &task.base.volume);
        let text = match (&task.state, task.active) {
            (DiskState::Removing { .. }, _) => format!(
                "disk {}: {top} is merged already and will be removed",
                task.disk
            ),
            (_, true) => format!("disk {}: active commit of {top} into {base}", task.disk),
            (_, false) => format!(
                "disk {}: intermediate commit of {top} into {base}",
                task.disk
            ),
        };
        self.disk_event(EventKind::LiveMergePlanned, task, text)
    }

    fn disk_event(&self, kind: EventKind, task: &DiskTask, text: String) -> NewEvent {
        let mut event = self.draft.event(kind, Severity::Info, text);
        details::of_disk(&mut event, task);
        event
    }
}

fn follow(disk: &SnapshotDisk, merged: &[&DiskTask]) -> SnapshotDisk {
    let mut disk = disk.clone();
    if let Some(task) = merged
        .iter()
        .find(|task| task.disk == disk.disk && task.top.volume == disk.volume)
    {
        disk.volume = task.base.volume.clone();
    }
    disk
}

pub(super) fn failed_event(draft: &Draft<'_>, failure: &Failure) -> NewEvent {
    let what = format!("snapshot {} was not deleted", draft.operation.snapshot_name);
    draft.failed(EventKind::SnapshotDeleteFailed, &what, failure)
}
