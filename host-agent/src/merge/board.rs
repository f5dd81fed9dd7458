//! Where the merges' latest states are shown, for answers and watches.
//!
//! A watcher reads the whole board when it has time and sends what is newer than what it sent:
//! changes in between are coalesced, and a slow reader costs no memory.

use super::types::{MergeRecord, Phase};
use livemerge_proto::ids::MergeId;
use std::{collections::BTreeMap, sync::Arc};
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
    /// Grows with each change that is shown.
    pub shown: u64,
}

impl MergeView {
    pub(super) fn new(record: MergeRecord) -> Self {
        Self {
            record,
            done_bytes: 0,
            total_bytes: 0,
            shown: 0,
        }
    }
}

/// All merges of the journal.
pub type Views = Arc<BTreeMap<MergeId, MergeView>>;

/// The board. Clones show the same.
#[derive(Debug, Clone)]
pub(super) struct Board {
    views: watch::Sender<Views>,
}

impl Board {
    pub(super) fn new(records: &[MergeRecord]) -> Self {
        let views = records
            .iter()
            .map(|r| (r.order.id, MergeView::new(r.clone())))
            .collect();
        Self {
            views: watch::Sender::new(Arc::new(views)),
        }
    }

    pub(super) fn get(&self, id: MergeId) -> Option<MergeView> {
        self.views.borrow().get(&id).cloned()
    }

    /// Shows a view; no change wakes nobody.
    pub(super) fn show(&self, mut view: MergeView) {
        if matches!(view.record.phase, Phase::Merged { .. }) {
            view.done_bytes = view.total_bytes;
        }
        self.views.send_if_modified(|views| {
            let before = views.get(&view.record.order.id);
            view.shown = before.map_or(0, |before| before.shown);
            if before == Some(&view) {
                return false;
            }
            view.shown += 1;
            Arc::make_mut(views).insert(view.record.order.id, view);
            true
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Views> {
        self.views.subscribe()
    }
}
