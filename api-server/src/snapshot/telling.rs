//! What a delete tells in the audit log.

use super::delete::Delete;
use super::details;
use super::follow::Changed;
use super::left::with_snapshots;
use super::news::{self, News};
use super::step::Step;
use super::types::{
    DeletePhase, DiskState, DiskTask, EventKind, MergeKind, NewEvent, Severity, Snapshot, Work,
};
use crate::hosts::{MergeSeen, MergeSight};

impl Delete<'_> {
    /// Tells what the host shows for the first time. All disks have caught up before one pivots,
    /// and so it is told.
    pub(super) fn tell(
        &self,
        tasks: &[DiskTask],
        merging: impl Fn(&DiskTask) -> bool,
    ) -> Option<Step> {
        let mut told = tasks.to_vec();
        let (mut events, mut left) = (Vec::new(), Vec::new());
        let mut changed = Changed::default();
        for task in told.iter_mut().filter(|task| merging(task)) {
            if let MergeSight::Seen(seen) = self.draft.seen.sight(task.merge) {
                let before = task.told.overlaid;
                events.extend(self.news(task, seen));
                if task.told.overlaid && !before {
                    left.push(self.left_by(task));
                    self.set_chain_tells(task, &mut changed);
                }
            }
        }
        if events.is_empty() {
            return None;
        }
        left.extend(changed.into_changes());
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

    pub(super) fn planned_event(&self, task: &DiskTask) -> NewEvent {
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
pub(super) fn was(volumes: &[String]) -> String {
    let verb = if volumes.len() == 1 { "was" } else { "were" };
    format!("{} {verb}", volumes.join(", "))
}
