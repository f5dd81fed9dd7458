//! The removals of a round of a delete, once its merges are seen as merged: all of its volumes are ordered
//! together, and each is written down as it goes. Pure.
//!
//! ```text
//!   a: a1 a2 a3   b: b1 b2  ─▶ one order: a3 a2 a1 b2 b1 ─▶ gone: a3 a2 b2 b1 ─▶ one order: a1
//! ```

use super::delete::Delete;
use super::details;
use super::follow::{Changed, goes_with};
use super::step::{Answer, Ask, Step, Wait, next_removals};
use super::types::{DeletePhase, DiskState, DiskTask, EventKind, Leaving, NewEvent, SnapshotState};
use crate::hosts::{HostError, REMOVED_AT_ONCE, RemovalOrder, Removals, Removed};

/// The volumes that are removed next, if the removals of a round have begun: of each disk the youngest
/// first, because the younger ones are built on the older ones.
pub(super) fn next(phase: &DeletePhase) -> Vec<&Leaving> {
    let DeletePhase::Disks(tasks) = phase else {
        return vec![];
    };
    let Some(open) = tasks.iter().find(|task| !task.is_removed()) else {
        return vec![];
    };
    let of_round = || tasks.iter().filter(|task| task.round == open.round);
    if of_round().any(|task| task.state == DiskState::Merging) {
        return vec![];
    }
    let left = of_round().flat_map(|task| {
        let gone = match task.state {
            DiskState::Removing { gone, .. } => gone,
            _ => task.removed.len(),
        };
        (gone..task.removed.len()).map(|gone| task.leaving(gone))
    });
    left.take(REMOVED_AT_ONCE).collect()
}

impl Delete<'_> {
    /// A removal may wait for as long as somebody uses the volume. Whoever does not want to wait
    /// cancels: what is merged stays merged, and a later delete removes it. What the record itself needs is
    /// not even asked for.
    pub(super) fn removing(&self, tasks: &[DiskTask]) -> Step {
        if let Some(Answer::Removals(came)) = self.draft.seen.answer
            && let Some(moved) = self.removed(tasks, came)
        {
            return moved;
        }
        if self.draft.operation.removal_is_given_up() {
            return self.cancelled(Some(tasks.to_vec()));
        }
        let needed = self.draft.seen.needed;
        let left = next_removals(self.draft.operation);
        let free = left.iter().filter(|it| !needed.contains_key(&it.removal));
        let free: Vec<_> = free.collect();
        let error = self.draft.seen.answer.and_then(Answer::error);
        match (self.draft.seen.answer, needed.values().next()) {
            (Some(Answer::Removals(_)), _) if error.is_none() => Step::Wait(Wait::for_a_sign()),
            (_, Some(needed)) if error.is_some() || free.is_empty() => {
                self.draft.remove_again(needed)
            }
            _ => match error {
                Some(HostError::Refused(problem)) => self.draft.remove_again(problem),
                Some(HostError::Unknown(problem)) => self.draft.again(problem),
                None => {
                    let order = |leaving: &&&Leaving| RemovalOrder {
                        id: leaving.removal,
                        volume: leaving.volume.clone(),
                    };
                    Step::Ask(Ask::Removals(free.iter().map(order).collect()))
                }
            },
        }
    }

    /// Volumes are gone from storage, or kept where nothing finds them; with its last one a disk is done.
    /// `None` when none has gone.
    fn removed(&self, tasks: &[DiskTask], came: &Removals) -> Option<Step> {
        let mut tasks = tasks.to_vec();
        let (mut events, mut done) = (Vec::new(), Vec::new());
        for task in &mut tasks {
            let gone = self.gone(task, came);
            if !gone.is_empty() && task.is_removed() {
                done.push(task.clone());
            }
            events.extend(gone);
        }
        if events.is_empty() {
            return None;
        }
        if done.is_empty() {
            return Some(self.go_on(tasks, Changed::default(), events));
        }
        if tasks.iter().all(DiskTask::is_removed) {
            return Some(self.done(tasks, events));
        }
        let mut changed = Changed::default();
        for snapshot in self.draft.seen.snapshots {
            let disks = snapshot.disks.iter();
            let goes = |disk: &_| done.iter().any(|task| goes_with(task, snapshot.id, disk));
            let left: Vec<_> = disks.filter(|disk| !goes(disk)).cloned().collect();
            if left != snapshot.disks {
                changed.put(snapshot, SnapshotState::Deleting, left);
            }
        }
        events.extend(self.begin_next(&mut tasks));
        Some(self.go_on(tasks, changed, events))
    }

    /// Those of a disk that have gone, the youngest first: one whose younger neighbour is still there is
    /// asked for again, and found to be gone then.
    fn gone(&self, task: &mut DiskTask, came: &Removals) -> Vec<NewEvent> {
        let mut events = Vec::new();
        while let DiskState::Removing {
            copied_bytes,
            longest_pause,
            gone,
            freed_bytes,
            copy_time,
        } = task.state
        {
            let leaving = task.leaving(gone);
            let Some(Ok(removed)) = came.get(&leaving.removal) else {
                break;
            };
            if !removed.over() {
                break;
            }
            events.push(self.gone_event(task, leaving, removed));
            let (gone, freed_bytes) = (gone + 1, freed_bytes + removed.freed_bytes);
            task.state = if gone == task.removed.len() {
                DiskState::Removed {
                    copied_bytes,
                    longest_pause,
                    freed_bytes,
                    copy_time,
                }
            } else {
                DiskState::Removing {
                    copied_bytes,
                    longest_pause,
                    gone,
                    freed_bytes,
                    copy_time,
                }
            };
        }
        events
    }

    fn gone_event(&self, task: &DiskTask, leaving: &Leaving, removed: &Removed) -> NewEvent {
        let volume = &leaving.volume.volume;
        let text = match removed.kept_until {
            None => format!("{volume} was removed from storage"),
            Some(until) => format!("{volume} was removed, and can be brought back until {until}"),
        };
        let mut event = self.disk_event(EventKind::VolumeRemoved, task, text);
        if let Some(until) = removed.kept_until {
            details::add(&mut event, "kept_until", until);
        }
        if let Some(by) = &removed.by {
            details::add(&mut event, "removed_by", by);
        }
        details::add(&mut event, "volume", volume);
        details::add(&mut event, "freed_bytes", removed.freed_bytes);
        event
    }
}
