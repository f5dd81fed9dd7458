//! Operations as they are shown: the durable record, and what only the memory knows (progress,
//! what is being waited for).
//!
//! Open operations have a place here; a watcher reads the latest state when it has time. Ended
//! ones are read from the store.

use super::types::Operation;
use crate::hosts::MergeSeen;
use jiff::Timestamp;
use livemerge_proto::ids::OperationId;
use livemerge_proto::problem::Problem;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Rates are taken over so long.
const RATE_SPAN: Duration = Duration::from_secs(3);

/// An operation as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationView {
    /// The durable record.
    pub operation: Operation,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// The merge under way.
    pub merge: Option<MergeProgress>,
}

impl OperationView {
    /// Only what is durable: what was in the way when it was last written down, too.
    pub fn durable(operation: Operation) -> Self {
        let waiting = operation.obstacle.as_ref().map(|obstacle| Waiting {
            cause: obstacle.cause.clone().into(),
            next_try_at: None,
            attempts: 0,
        });
        Self {
            operation,
            waiting,
            merge: None,
        }
    }
}

/// What an operation waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// What is in the way.
    pub cause: Problem,
    /// When it is tried again; `None` when an event is awaited.
    pub next_try_at: Option<Timestamp>,
    /// How often it was tried.
    pub attempts: u32,
}

/// How far the merge under way is.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeProgress {
    /// As the host reports it.
    pub seen: MergeSeen,
    /// Bytes a second over the last seconds; 0 while unknown.
    pub bytes_per_second: u64,
}

/// Measures a rate from counts as they come in.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Takes a count at a (monotonic) time, and gives bytes a second.
    pub(super) fn at(&mut self, time: Duration, bytes: u64) -> u64 {
        if self.samples.back().is_some_and(|(_, last)| *last > bytes) {
            self.samples.clear();
        }
        self.samples.push_back((time, bytes));
        while self.samples.len() > 2
            && self
                .samples
                .front()
                .is_some_and(|(t, _)| time.saturating_sub(*t) > RATE_SPAN)
        {
            self.samples.pop_front();
        }
        let Some((first_time, first)) = self.samples.front().copied() else {
            return 0;
        };
        let millis = time.saturating_sub(first_time).as_millis();
        if millis == 0 {
            return 0;
        }
        u64::try_from(u128::from(bytes - first) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

/// The open operations.
#[derive(Debug, Default)]
pub struct Hub {
    open: Mutex<HashMap<OperationId, watch::Sender<OperationView>>>,
}

impl Hub {
    /// Shows a state. An ended operation is shown once more to its watchers and then leaves.
    pub fn show(&self, view: OperationView) {
        let mut open = self.lock();
        let id = view.operation.id;
        let ended = view.operation.state.ended();
        match open.get(&id) {
            Some(sender) => {
                sender.send_if_modified(|shown| {
                    let changed = *shown != view;
                    if changed {
                        *shown = view;
                    }
                    changed
                });
            }
            None if ended => return,
            None => drop(open.insert(id, watch::Sender::new(view))),
        }
        if ended {
            open.remove(&id);
        }
    }

    /// Changes what is shown of an open operation.
    pub(super) fn update(&self, id: OperationId, change: impl FnOnce(&mut OperationView)) {
        let Some(mut view) = self.get(id) else { return };
        change(&mut view);
        self.show(view);
    }

    /// An open operation as it is shown.
    pub fn get(&self, id: OperationId) -> Option<OperationView> {
        self.lock().get(&id).map(|sender| sender.borrow().clone())
    }

    /// An open operation now and after each change. The sender is dropped after the end was shown.
    pub fn watch(&self, id: OperationId) -> Option<watch::Receiver<OperationView>> {
        self.lock().get(&id).map(watch::Sender::subscribe)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, watch::Sender<OperationView>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.at(Duration::ZERO, 0), 0);
        assert_eq!(rate.at(Duration::from_secs(1), 1000), 1000);
        for second in 2..20 {
            rate.at(Duration::from_secs(second), 1000);
        }
        assert_eq!(rate.at(Duration::from_secs(20), 1000), 0);
        assert_eq!(
            rate.at(Duration::from_secs(21), 0),
            0,
            "a new count starts again"
        );
    }
}
