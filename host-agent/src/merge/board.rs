//! Where the merges' latest states are shown, for answers and watches.
//!
//! A watcher reads the whole board when it has time and sends what is newer than what it sent:
//! changes in between are coalesced, and a slow reader costs no memory. How many ended merges are
//! shown is bounded, so that the whole board is one message.

use super::traced::Traced;
use super::types::{MergeRecord, Phase};
use crate::metrics::MergeMeter;
use jiff::Timestamp;
use livemerge_proto::failure::Failure;
use livemerge_proto::ids::MergeId;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// A merge as it is shown: the durable record and how far the copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeView {
    /// The durable record.
    pub record: MergeRecord,
    /// Bytes copied so far.
    pub done_bytes: u64,
    /// Bytes to copy as far as known; 0 while unknown.
    pub total_bytes: u64,
    /// What it waits for, if something is in its way.
    pub waiting: Option<Waiting>,
    /// Grows with each change that is shown.
    pub shown: u64,
}

impl MergeView {
    pub(crate) fn new(record: MergeRecord) -> Self {
        Self {
            done_bytes: record.copied.bytes,
            total_bytes: record.copied.bytes,
            record,
            waiting: None,
            shown: 0,
        }
    }
}

/// What a merge waits for; it goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is in the way.
    pub cause: Failure,
    /// When it is tried again at the latest.
    pub next_try_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// All merges of the journal.
pub type Views = Arc<BTreeMap<MergeId, MergeView>>;

/// The board. Clones show the same.
#[derive(Debug, Clone)]
pub(super) struct Board {
    views: watch::Sender<Views>,
    meter: Arc<OnceLock<MergeMeter>>,
    traced: Arc<Traced>,
}

impl Board {
    pub(super) fn new(records: &[MergeRecord]) -> Self {
        let views = records
            .iter()
            .map(|r| (r.order.id, MergeView::new(r.clone())))
            .collect();
        Self {
            views: watch::Sender::new(Arc::new(views)),
            meter: Arc::default(),
            traced: Arc::default(),
        }
    }

    /// Counts what happens from now on.
    pub(super) fn observe(&self, meter: MergeMeter) {
        // The first one stays.
        let _ = self.meter.set(meter);
    }

    pub(super) fn get(&self, id: MergeId) -> Option<MergeView> {
        self.views.borrow().get(&id).cloned()
    }

    /// Shows a view; no change wakes nobody.
    pub(super) fn show(&self, mut view: MergeView) {
        if matches!(view.record.phase, Phase::Merged { .. }) {
            view.total_bytes = view.record.copied.bytes;
            view.done_bytes = view.total_bytes;
        }
        self.views.send_if_modified(|views| {
            let before = views.get(&view.record.order.id);
            view.shown = before.map_or(0, |before| before.shown);
            if before == Some(&view) {
                return false;
            }
            view.shown += 1;
            self.traced.seen(before, &view);
            if let Some(meter) = self.meter.get() {
                meter.seen(before, &view);
            }
            Arc::make_mut(views).insert(view.record.order.id, view);
            true
        });
    }

    /// The ended merges beyond the latest `most`, and those that had ended before.
    pub(super) fn outlived(&self, most: usize, before: Timestamp) -> Vec<MergeId> {
        let views = self.views.borrow();
        let ended = views
            .iter()
            .filter_map(|(id, view)| Some((view.record.phase.ended_at()?, *id)));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let old = ended.iter().enumerate();
        old.filter(|(place, (at, _))| *place >= most || *at < before)
            .map(|(_, (_, id))| *id)
            .collect()
    }

    /// Shows a merge no longer. It wakes nobody: a watcher learns only of what happens.
    pub(super) fn forget(&self, id: MergeId) {
        self.views.send_if_modified(|views| {
            Arc::make_mut(views).remove(&id);
            false
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Views> {
        self.views.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{now, record};
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn what_has_not_ended_is_never_outlived() {
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        let ended = |seconds| MergeRecord {
            phase: Phase::Merged { at: at(seconds) },
            ..record(true)
        };
        let records = [record(true), ended(1), ended(5), ended(3), ended(4)];
        let [open, first, latest, third, fourth] =
            [0, 1, 2, 3, 4].map(|n: usize| records[n].order.id);
        let board = Board::new(&records);
        assert_eq!(board.outlived(4, at(0)), []);
        assert_eq!(board.outlived(4, at(2)), [first]);
        assert_eq!(board.outlived(1, at(0)), [fourth, third, first]);
        for id in board.outlived(0, at(0)) {
            board.forget(id);
        }
        assert_eq!(board.get(latest), None);
        assert_eq!(board.watch().borrow().keys().collect::<Vec<_>>(), [&open]);
    }
}
