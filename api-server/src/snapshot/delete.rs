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
use super::left::{self, with_snapshots};
use super::news::{self, News};
use super::plan::{Mint, Wanted, plan_delete};
use super::step::{Answer, Ask, Draft, Step, Wait};
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, Failure, MergeKind, NewEvent, OperationState,
    Severity, Snapshot, SnapshotState, Work,
};
use crate::hosts::{
    HostError, MergeOrder, MergePhase, MergeSeen, MergeSight, RemovalOrder, Removed,
};
use crate::store::SnapshotChange;
use livemerge_proto::ids::MergeId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

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
        if let Some(current) = tasks.iter().position(removing) {
            return self.removing(tasks, current);
        }
        self.undone(tasks)
    }

    fn merging(&self, tasks: &[DiskTask], merging: impl Fn(&DiskTask) -> bool) -> Step {
        if self.draft.operation.cancel_requested && self.never_ordered() {
            return self.called_off(tasks);
        }
        if let Some(told) = self.tell(tasks, &merging) {
            return told;
        }
        let (mut absent, mut unknown) = (false, false);
        for (current, task) in tasks.iter().enumerate().filter(|(_, task)| merging(task)) {
            match self.draft.seen.sight(task.merge) {
                MergeSight::Seen(seen) => {
                    if let Some(step) = self.merge_seen(tasks, current, seen) {
                        return step;
                    }
                }
                MergeSight::Absent => absent = true,
                MergeSight::Unknown => unknown = true,
            }
        }
        let ordered: Vec<&DiskTask> = tasks.iter().filter(|task| merging(task)).collect();
        if unknown {
            let cause = Problem::new(Reason::HostUnreachable, "the host's agent does not answer");
            return Step::Wait(Wait {
                cause: Some(cause),
                ..Wait::for_a_sign()
            });
        }
        if absent {
            return self.order(tasks, &ordered);
        }
        self.wish(&ordered)
            .unwrap_or_else(|| Step::Wait(self.under_way(&ordered)))
    }

    /// The host works on them, or waits itself, and says why.
    fn under_way(&self, ordered: &[&DiskTask]) -> Wait {
        let waiting = |task: &&DiskTask| match self.draft.seen.sight(task.merge) {
            MergeSight::Seen(seen) => seen.waiting.as_deref(),
            MergeSight::Absent | MergeSight::Unknown => None,
        };
        ordered
            .iter()
            .find_map(waiting)
            .map_or_else(Wait::for_a_sign, Wait::for_the_host)
    }

    /// Whether the merges of the round were never asked for.
    fn never_ordered(&self) -> bool {
        !self.draft.seen.begun && self.draft.seen.attempts == 0
    }

    /// The round's turn had come, and is taken back.
    fn called_off(&self, tasks: &[DiskTask]) -> Step {
        let mut tasks = tasks.to_vec();
        for task in &mut tasks {
            if task.state == DiskState::Merging {
                task.state = DiskState::Pending;
            }
        }
        self.go_on(tasks, Changed::default(), vec![])
    }

    /// The host's journal does not have the merges of the round yet.
    fn order(&self, tasks: &[DiskTask], ordered: &[&DiskTask]) -> Step {
        match self.draft.seen.answer {
            Some(Answer::MergesAccepted) => Step::Wait(Wait::for_a_sign()),
            Some(Answer::Error(HostError::Refused(problem))) => self.merges_refused(tasks, problem),
            Some(Answer::Error(HostError::Unknown(problem))) => self.draft.again(problem),
            _ => {
                let limit = self.limit_of_one(ordered.len());
                let order = |task: &&DiskTask| MergeOrder {
                    id: task.merge,
                    vm: self.draft.operation.vm,
                    disk: task.disk.clone(),
                    direction: task.kind.direction(),
                    kept: task.kept.clone(),
                    removed: task.merging().removed,
                    spare: left::spare(task),
                    bytes_per_second: limit,
                };
                Step::Ask(Ask::Merges(ordered.iter().map(order).collect()))
            }
        }
    }

    /// What was asked of the operation since its merges began, and the host has not got yet.
    fn wish(&self, ordered: &[&DiskTask]) -> Option<Step> {
        let open = |task: &&&DiskTask| match self.draft.seen.sight(task.merge) {
            MergeSight::Seen(seen) => matches!(
                seen.phase,
                MergePhase::Pending | MergePhase::Copying | MergePhase::Ready
            ),
            _ => false,
        };
        let heard = matches!(
            self.draft.seen.answer,
            Some(Answer::Heard | Answer::Error(_))
        );
        if heard {
            return None;
        }
        if self.draft.operation.cancel_requested {
            let task = ordered.iter().find(open)?;
            return Some(Step::Ask(Ask::Cancel(task.merge)));
        }
        let limit = self.limit_of_one(ordered.len());
        let other_limit = |task: &&&DiskTask| match self.draft.seen.sight(task.merge) {
            MergeSight::Seen(seen) => seen.bytes_per_second != limit,
            _ => false,
        };
        let others = ordered.iter().filter(open).filter(other_limit);
        let others: Vec<_> = others.map(|task| task.merge).collect();
        (!others.is_empty()).then_some(Step::Ask(Ask::Limit(others, limit)))
    }

    /// What each of so many jobs may copy in a second, so that all together keep the limit.
    fn limit_of_one(&self, jobs: usize) -> u64 {
        let own = self.draft.operation.options.bytes_per_second;
        let limits = [own, self.draft.seen.bytes_per_second];
        let limit = limits.into_iter().filter(|limit| *limit > 0).min();
        limit.unwrap_or(0).div_ceil(jobs.max(1) as u64)
    }

    /// Goes on from what the host shows. `None` while a merge is under way.
    fn merge_seen(&self, tasks: &[DiskTask], current: usize, seen: &MergeSeen) -> Option<Step> {
        match &seen.phase {
            MergePhase::Failed(failure) => {
                Some(self.lost(tasks, current, DiskState::Failed(failure.clone())))
            }
            MergePhase::Cancelled => Some(self.lost(tasks, current, DiskState::Cancelled)),
            MergePhase::Merged => Some(self.merged(tasks, current, seen)),
            _ => None,
        }
    }

    /// Tells what the host shows for the first time. All disks have caught up before one pivots,
    /// and so it is told.
    fn tell(&self, tasks: &[DiskTask], merging: impl Fn(&DiskTask) -> bool) -> Option<Step> {
        let mut told = tasks.to_vec();
        let (mut events, mut left) = (Vec::new(), Vec::new());
        for task in told.iter_mut().filter(|task| merging(task)) {
            if let MergeSight::Seen(seen) = self.draft.seen.sight(task.merge) {
                let before = task.told.overlaid;
                events.extend(self.news(task, seen));
                left.extend((task.told.overlaid && !before).then(|| self.left_by(task)));
            }
        }
        if events.is_empty() {
            return None;
        }
        events.sort_by_key(|event| event.kind != EventKind::LiveMergeReady);
        let work = Work::Delete(DeletePhase::Disks(told));
        let note = self.draft.note(|operation| operation.work = work, events);
        Some(with_snapshots(note, left))
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

    /// The chain has lost the volumes: the record follows the data.
    fn merged(&self, tasks: &[DiskTask], current: usize, seen: &MergeSeen) -> Step {
        let mut tasks = tasks.to_vec();
        let (copied_bytes, longest_pause) = (seen.done_bytes, seen.longest_pause);
        tasks[current].state = DiskState::Removing {
            copied_bytes,
            longest_pause,
            gone: 0,
            freed_bytes: 0,
            copy_time: seen.copy_time,
        };
        let task = &tasks[current];
        let text = format!(
            "disk {}: {} merged into {}",
            task.disk,
            was(&details::removed(task)),
            task.kept.volume
        );
        let mut event = self.disk_event(EventKind::LiveMergeCompleted, task, text);
        details::add(&mut event, "copied_bytes", copied_bytes);
        details::add(&mut event, "planned_bytes", task.planned_bytes);
        details::add(&mut event, "copy_time_ms", seen.copy_time.as_millis());
        details::add(&mut event, "longest_pause_ms", longest_pause.as_millis());
        details::add(&mut event, "pivot_attempts", seen.pivot_attempts);
        let changed = self.follow(&mut tasks, current);
        self.go_on(tasks, changed, vec![event])
    }

    /// A removal may wait for as long as somebody uses the volume. Whoever does not want to wait
    /// cancels: what is merged stays merged, and a later delete removes it.
    fn removing(&self, tasks: &[DiskTask], current: usize) -> Step {
        match self.draft.seen.answer {
            Some(Answer::Removal(Removed {
                gone: true,
                freed_bytes,
            })) => self.removed(tasks, current, *freed_bytes),
            _ if self.draft.operation.removal_is_given_up() => self.cancelled(Some(tasks.to_vec())),
            Some(Answer::Removal(Removed { gone: false, .. })) => Step::Wait(Wait::for_a_sign()),
            Some(Answer::Error(HostError::Refused(problem))) => self.draft.remove_again(problem),
            Some(Answer::Error(HostError::Unknown(problem))) => self.draft.again(problem),
            _ => {
                let task = &tasks[current];
                let DiskState::Removing { gone, .. } = task.state else {
                    unreachable!("only such a task is removed");
                };
                let leaving = task.leaving(gone);
                Step::Ask(Ask::Removal(RemovalOrder {
                    id: leaving.removal,
                    volume: leaving.volume.clone(),
                }))
            }
        }
    }

    /// One volume of a disk is gone from storage, perhaps the last.
    fn removed(&self, tasks: &[DiskTask], current: usize, freed: u64) -> Step {
        let mut tasks = tasks.to_vec();
        let task = &mut tasks[current];
        let of = task.removed.len();
        let DiskState::Removing {
            copied_bytes,
            longest_pause,
            gone,
            freed_bytes,
            copy_time,
        } = &mut task.state
        else {
            unreachable!("only such a task is removed");
        };
        let volume = task.removed[of - 1 - *gone].volume.volume.clone();
        *gone += 1;
        *freed_bytes += freed;
        let last = *gone == of;
        if last {
            task.state = DiskState::Removed {
                copied_bytes: *copied_bytes,
                longest_pause: *longest_pause,
                freed_bytes: *freed_bytes,
                copy_time: *copy_time,
            };
        }
        let text = format!("{volume} was removed from storage");
        let mut event = self.disk_event(EventKind::VolumeRemoved, task, text);
        details::add(&mut event, "volume", &volume);
        details::add(&mut event, "freed_bytes", freed);
        let mut events = vec![event];
        if !last {
            return self.go_on(tasks, Changed::default(), events);
        }
        if tasks.iter().all(DiskTask::is_removed) {
            return self.done(tasks, events);
        }
        let mut changed = Changed::default();
        let task = tasks[current].clone();
        for snapshot in self.draft.seen.snapshots {
            let disks = snapshot.disks.iter();
            let left: Vec<_> = disks
                .filter(|disk| !goes_with(&task, snapshot.id, disk))
                .cloned()
                .collect();
            if left != snapshot.disks {
                changed.put(snapshot, SnapshotState::Deleting, left);
            }
        }
        events.extend(self.begin_next(&mut tasks));
        self.go_on(tasks, changed, events)
    }

    /// The next round's turn begins, when nothing of the one before is open and its end was not
    /// asked for.
    fn begin_next(&self, tasks: &mut [DiskTask]) -> Vec<NewEvent> {
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
    fn done(&self, tasks: Vec<DiskTask>, mut events: Vec<NewEvent>) -> Step {
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

    pub(super) fn deleted_event(&self, snapshot: &Snapshot) -> NewEvent {
        let text = format!("snapshot {} was deleted", snapshot.name);
        let event = self
            .draft
            .event(EventKind::SnapshotDeleted, Severity::Info, text);
        NewEvent {
            snapshot: Some(snapshot.id),
            ..event
        }
    }

    fn planned_event(&self, task: &DiskTask) -> NewEvent {
        let (removed, kept) = (details::removed(task), &task.kept.volume);
        let list = removed.join(", ");
        let what = match (&task.state, task.kind) {
            (DiskState::Removing { .. }, _) => {
                format!("{} merged already and will be removed", was(&removed))
            }
            (_, MergeKind::ActiveCommit) => format!("active commit of {list} into {kept}"),
            (_, MergeKind::Commit) => format!("intermediate commit of {list} into {kept}"),
            (_, MergeKind::OfflineCommit) => format!("offline commit of {list} into {kept}"),
            (_, MergeKind::Pull) => format!("pull of {list} into {kept}"),
        };
        let text = format!("disk {}: {what}", task.disk);
        let mut event = self.disk_event(EventKind::LiveMergePlanned, task, text);
        details::add(&mut event, "planned_bytes", task.planned_bytes);
        if let Some(time) = task.foreseen.time {
            details::add(&mut event, "planned_time_ms", time.as_millis());
        }
        event
    }

    pub(super) fn disk_event(&self, kind: EventKind, task: &DiskTask, text: String) -> NewEvent {
        let mut event = self.draft.event(kind, Severity::Info, text);
        details::of_disk(&mut event, task);
        event
    }
}

/// `a was`, `a, b were`.
fn was(volumes: &[String]) -> String {
    let verb = if volumes.len() == 1 { "was" } else { "were" };
    format!("{} {verb}", volumes.join(", "))
}

pub(super) fn failed_event(draft: &Draft<'_>, failure: &Failure) -> NewEvent {
    let what = format!("snapshot {} was not deleted", draft.operation.snapshot_name);
    draft.failed(EventKind::SnapshotDeleteFailed, &what, failure)
}
