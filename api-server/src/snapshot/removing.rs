//! The removals of a round of a delete: one volume after the other, once its merge is seen as
//! merged. Pure.

use super::delete::Delete;
use super::details;
use super::follow::{Changed, goes_with};
use super::step::{Answer, Ask, Step, Wait};
use super::types::{DeletePhase, DiskState, DiskTask, EventKind, Mark, SnapshotState};
use crate::hosts::{HostError, RemovalOrder, Removed};

/// The volume that is removed next, if the removals of a round have begun.
pub(super) fn next(phase: &DeletePhase) -> Option<&Mark> {
    let DeletePhase::Disks(tasks) = phase else {
        return None;
    };
    let round = tasks.iter().find(|task| !task.is_removed())?.round;
    let of_round = || tasks.iter().filter(|task| task.round == round);
    if of_round().any(|task| task.state == DiskState::Merging) {
        return None;
    }
    of_round().find_map(|task| match task.state {
        DiskState::Removing { gone, .. } => Some(&task.leaving(gone).volume),
        _ => None,
    })
}

impl Delete<'_> {
    /// A removal may wait for as long as somebody uses the volume. Whoever does not want to wait
    /// cancels: what is merged stays merged, and a later delete removes it. What the record itself needs is
    /// not even asked for.
    pub(super) fn removing(&self, tasks: &[DiskTask], current: usize) -> Step {
        match self.draft.seen.answer {
            Some(Answer::Removal(removed)) if removed.over() => {
                self.removed(tasks, current, removed)
            }
            _ if self.draft.operation.removal_is_given_up() => self.cancelled(Some(tasks.to_vec())),
            Some(Answer::Removal(_)) => Step::Wait(Wait::for_a_sign()),
            _ if let Some(needed) = self.draft.seen.needed => self.draft.remove_again(needed),
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

    /// One volume of a disk is gone from storage, or kept where nothing finds it; perhaps the last.
    fn removed(&self, tasks: &[DiskTask], current: usize, removed: &Removed) -> Step {
        let freed = removed.freed_bytes;
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
}
