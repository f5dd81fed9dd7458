//! The merges of a round of a delete: ordered together, called off, limited, and followed until the
//! host shows how they ended. Pure.
//!
//! ```text
//!   tell what is new ─▶ an end is seen? ─▶ unknown: wait ─▶ absent: order ─▶ a wish: pass it on ─▶ wait
//! ```

use super::delete::Delete;
use super::details;
use super::follow::Changed;
use super::left;
use super::step::{Answer, Ask, Step, Wait};
use super::telling::was;
use super::types::{DiskState, DiskTask, EventKind};
use crate::hosts::{HostError, MergeOrder, MergePhase, MergeSeen, MergeSight};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

impl Delete<'_> {
    pub(super) fn merging(&self, tasks: &[DiskTask], merging: impl Fn(&DiskTask) -> bool) -> Step {
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
    pub(super) fn limit_of_one(&self, jobs: usize) -> u64 {
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
}
