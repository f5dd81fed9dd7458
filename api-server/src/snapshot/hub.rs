//! Operations as they are shown: the durable record, and what only the memory knows (progress,
//! what is being waited for).
//!
//! Open operations have a place here; a watcher reads the latest state when it has time. Ended
//! ones are read from the store.

use super::traced;
use super::types::{Operation, OperationState};
use crate::hosts::MergeSeen;
use crate::metrics::OperationMeter;
use jiff::Timestamp;
use livemerge_proto::ids::{MergeId, OperationId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Rates are taken over so long.
const RATE_SPAN: Duration = Duration::from_secs(3);

/// An operation as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationView {
    /// The durable record.
    pub operation: Operation,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// The merges under way.
    pub merges: BTreeMap<MergeId, MergeProgress>,
}

impl OperationView {
    /// Only what is durable: what was in the way when it was last written down, too. Whoever takes
    /// it up tries it `now`.
    pub fn durable(operation: Operation, now: Timestamp) -> Self {
        let waiting = operation.obstacle.as_ref().map(|obstacle| Waiting {
            cause: obstacle.cause.clone().into(),
            next_try_at: Some(now),
            attempts: 0,
            queue_position: 0,
        });
        Self {
            operation,
            waiting,
            merges: BTreeMap::new(),
        }
    }
}

/// What an operation waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// What is in the way.
    pub cause: Problem,
    /// When it is tried again at the latest; `None` in a queue.
    pub next_try_at: Option<Timestamp>,
    /// How often it was tried.
    pub attempts: u32,
    /// Its place in the queue, from 1; 0 when it waits for something else.
    pub queue_position: u32,
}

impl Waiting {
    /// In a queue.
    pub(super) fn in_queue(cause: Problem, queue_position: u32) -> Self {
        Self {
            cause,
            next_try_at: None,
            attempts: 0,
            queue_position,
        }
    }
}

/// How far a merge under way is.
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

type Open = HashMap<OperationId, watch::Sender<OperationView>>;

/// The open operations.
#[derive(Debug)]
pub struct Hub {
    open: Mutex<Open>,
    asked: broadcast::Sender<OperationId>,
    meter: OnceLock<OperationMeter>,
}

impl Default for Hub {
    fn default() -> Self {
        let (asked, _) = broadcast::channel(64);
        Self {
            open: Mutex::default(),
            asked,
            meter: OnceLock::new(),
        }
    }
}

impl Hub {
    /// Counts what becomes of operations from now on.
    pub(crate) fn observe(&self, meter: OperationMeter) {
        // The first one stays.
        let _ = self.meter.set(meter);
    }

    /// All open operations as they are shown.
    pub(crate) fn all(&self) -> Vec<OperationView> {
        let open = self.lock();
        open.values()
            .map(|sender| sender.borrow().clone())
            .collect()
    }

    /// The open operations of which this holds, in the order of their ids. Asks for each while no other
    /// can be shown.
    pub(super) fn open_that(&self, holds: impl Fn(&Operation) -> bool) -> Vec<Operation> {
        let open = self.lock();
        let mut found: Vec<Operation> = open
            .values()
            .map(watch::Sender::borrow)
            .filter(|shown| holds(&shown.operation))
            .map(|shown| shown.operation.clone())
            .collect();
        drop(open);
        found.sort_unstable_by_key(|operation| operation.id);
        found
    }

    /// Shows a state. An ended operation is shown once more to its watchers and then leaves.
    pub fn show(&self, view: OperationView) {
        let id = view.operation.id;
        let mut open = self.lock();
        let vm = view.operation.vm;
        let Some(sender) = open.get(&id) else {
            if !view.operation.state.ended() {
                open.insert(id, watch::Sender::new(view));
                line_up(&open, vm);
            }
            return;
        };
        if self.replace(sender, |shown| *shown = view) {
            open.remove(&id);
            line_up(&open, vm);
        }
    }

    /// Changes what is shown of an open operation.
    pub(super) fn update(&self, id: OperationId, change: impl FnOnce(&mut OperationView)) {
        let mut open = self.lock();
        let Some(sender) = open.get(&id) else { return };
        let vm = sender.borrow().operation.vm;
        if self.replace(sender, change) {
            open.remove(&id);
            line_up(&open, vm);
        }
    }

    /// As [`replace`], and counts what it comes to.
    fn replace(
        &self,
        sender: &watch::Sender<OperationView>,
        change: impl FnOnce(&mut OperationView),
    ) -> bool {
        let Some(meter) = self.meter.get() else {
            return replace(sender, change);
        };
        let before = sender.borrow().clone();
        let ended = replace(sender, change);
        meter.seen(&before, &sender.borrow());
        ended
    }

    /// An open operation as it is shown.
    pub fn get(&self, id: OperationId) -> Option<OperationView> {
        self.lock().get(&id).map(|sender| sender.borrow().clone())
    }

    /// An open operation now and after each change. The sender is dropped after the end was shown.
    pub fn watch(&self, id: OperationId) -> Option<watch::Receiver<OperationView>> {
        self.lock().get(&id).map(watch::Sender::subscribe)
    }

    /// Somebody has asked something of an operation, and it stands in the record.
    pub(super) fn ask(&self, id: OperationId) {
        // Nobody listens when no operation waits.
        let _ = self.asked.send(id);
    }

    /// The operations of which something is asked from now on.
    pub(super) fn asked(&self) -> broadcast::Receiver<OperationId> {
        self.asked.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the operations of a machine in which order they wait for one another: its lane takes one
/// at a time, in the order of their ids.
fn line_up(open: &Open, vm: VmId) {
    let of_vm = |sender: &watch::Sender<OperationView>| sender.borrow().operation.vm == vm;
    let mut ids: Vec<_> = open.iter().filter(|(_, sender)| of_vm(sender)).collect();
    ids.sort_unstable_by_key(|(id, _)| **id);
    for (before, (_, sender)) in (0..).zip(ids) {
        replace(sender, |view| {
            let behind = |waiting: &Waiting| waiting.cause.reason == Reason::VmBusy;
            if before > 0 && view.operation.state == OperationState::Queued {
                let text = "an earlier operation on the same virtual machine goes first";
                let cause = Problem::new(Reason::VmBusy, text).with("vm", vm);
                view.waiting = Some(Waiting::in_queue(cause, before));
            } else if view.waiting.as_ref().is_some_and(behind) {
                view.waiting = None;
            }
        });
    }
}

/// Changes what is shown, but never back: whoever writes an operation's record shows it afterwards,
/// and another one may have written since. Says whether it has ended.
fn replace(sender: &watch::Sender<OperationView>, change: impl FnOnce(&mut OperationView)) -> bool {
    let mut ended = false;
    sender.send_if_modified(|shown| {
        let before = shown.clone();
        change(shown);
        if shown.operation.revision < before.operation.revision {
            shown.operation = before.operation.clone();
        }
        ended = shown.operation.state.ended();
        if ended && !before.operation.state.ended() {
            traced::ended(&shown.operation);
        }
        *shown != before
    });
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(revision: u64, ended: bool) -> OperationView {
        let mut operation = crate::store::conformance::records::operation(1, 1);
        operation.revision = revision;
        if ended {
            operation.state = OperationState::Cancelled;
        }
        OperationView::durable(operation, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_is_shown_never_goes_back() {
        let hub = Hub::default();
        let id = shown(1, false).operation.id;
        hub.show(shown(2, false));
        let mut watch = hub.watch(id).unwrap();
        hub.show(shown(1, false));
        hub.update(id, |view| view.operation = shown(1, false).operation);
        assert!(!watch.has_changed().unwrap());
        assert_eq!(hub.get(id), Some(shown(2, false)));
        hub.update(id, |view| view.operation = shown(3, true).operation);
        assert_eq!(
            *watch.borrow_and_update(),
            shown(3, true),
            "its end is shown"
        );
        assert!(hub.get(id).is_none());
        // Whoever comes late brings nothing back.
        hub.update(id, |view| view.operation = shown(2, false).operation);
        hub.show(shown(3, true));
        assert!(hub.get(id).is_none());
    }

    #[test]
    fn the_open_ones_are_found_by_what_they_do() {
        let hub = Hub::default();
        for number in [3, 1, 2] {
            let operation = crate::store::conformance::records::operation(number, number);
            hub.show(OperationView::durable(operation, Timestamp::UNIX_EPOCH));
        }
        let all = hub.open_that(|_| true);
        assert_eq!(all.len(), 3);
        assert!(all.is_sorted_by_key(|operation| operation.id));
        let second = &all[1];
        let of_second = hub.open_that(|it| it.vm == second.vm);
        assert_eq!(of_second, std::slice::from_ref(second));
        hub.update(second.id, |view| {
            view.operation.revision += 1;
            view.operation.state = OperationState::Succeeded;
        });
        assert_eq!(hub.open_that(|_| true).len(), 2);
        assert_eq!(hub.open_that(|it| it.vm == second.vm), []);
    }

    #[test]
    fn who_waits_for_its_machine_knows_its_place() {
        let hub = Hub::default();
        let queued = |number| {
            let mut operation = crate::store::conformance::records::operation(number, 1);
            operation.revision = 1;
            operation.state = OperationState::Queued;
            operation
        };
        let all = [1, 2, 3].map(queued);
        for operation in &all {
            hub.show(OperationView::durable(
                operation.clone(),
                Timestamp::UNIX_EPOCH,
            ));
        }
        let places = || {
            let shown = all.iter().map(|operation| hub.get(operation.id));
            let place = |view: OperationView| view.waiting.map_or(0, |it| it.queue_position);
            shown.map(|view| view.map(place)).collect::<Vec<_>>()
        };
        assert_eq!(places(), [Some(0), Some(1), Some(2)]);
        let waiting = hub.get(all[2].id).unwrap().waiting.unwrap();
        assert_eq!(waiting.cause.reason, Reason::VmBusy);
        hub.update(all[1].id, |view| {
            view.operation.revision = 2;
            view.operation.state = OperationState::Cancelled;
        });
        assert_eq!(places(), [Some(0), None, Some(1)]);
        let mut done = all[0].clone();
        done.revision = 2;
        done.state = OperationState::Succeeded;
        hub.show(OperationView::durable(done, Timestamp::UNIX_EPOCH));
        assert_eq!(places(), [None, None, Some(0)]);
        assert_eq!(hub.get(all[2].id).unwrap().waiting, None);
    }

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
