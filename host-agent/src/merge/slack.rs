//! What is noted of volumes that were committed into, for who takes back the room they do not need.

use super::Merges;
use super::driver::blocking;
use super::member::Member;
use super::types::MergeKind;
use crate::slack::marks::Mark;
use livemerge_proto::ids::{MergeId, VmId};
use std::sync::Arc;
use tokio::sync::Mutex;

impl Member {
    /// Before the merge is written down as done. A note that cannot be written costs some room: the
    /// merge goes on.
    pub(super) async fn note_slack(&self) {
        let order = &self.record.order;
        // The guest writes the kept volume of the others, and wants room in it.
        let inner = matches!(
            self.record.kind,
            MergeKind::Commit | MergeKind::OfflineCommit
        );
        if !inner || !self.around.volumes.gives(&order.kept.volume.storage) {
            return;
        }
        let mark = Mark {
            vm: order.vm,
            disk: order.disk.clone(),
            kept: order.kept.clone(),
        };
        let (marks, merge) = (Arc::clone(&self.around.slack), order.id);
        if let Err(error) = blocking(move || marks.note(merge, &mark)).await {
            tracing::warn!(%merge, %error, "the room of its volume is not looked at later");
        }
    }
}

impl Merges {
    /// The machine's lane: whoever locks it keeps its merges from going on.
    pub(crate) fn lane(&self, vm: VmId) -> Arc<Mutex<()>> {
        self.lanes.of(vm)
    }

    /// The volumes that may have more room than they need, by the merge that has ended in each.
    pub(crate) async fn slack(&self) -> Vec<(MergeId, Mark)> {
        let marks = Arc::clone(&self.around.slack);
        let noted = blocking(move || marks.all()).await;
        noted.unwrap_or_else(|error| {
            tracing::warn!(%error, "the notes of volumes' room cannot be read");
            Vec::new()
        })
    }

    /// Nothing more is to be done for such a volume.
    pub(crate) async fn settle_slack(&self, merge: MergeId) {
        let marks = Arc::clone(&self.around.slack);
        if let Err(error) = blocking(move || marks.settle(merge)).await {
            tracing::warn!(%merge, %error, "the note of its volume's room cannot be taken away");
        }
    }
}
