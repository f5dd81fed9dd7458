//! What every lane works with, and what lanes ask of it alike.

use super::hub::Hub;
use super::turns::Turns;
use super::types::Snapshot;
use crate::hosts::Hosts;
use crate::store::{Page, Store, StoreError};
use livemerge_proto::ids::{SnapshotId, VmId};
use livemerge_runtime::{Clock, Shutdown};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What every lane works with.
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn Store>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) turns: Turns,
    /// Lanes end between two steps once it is cancelled.
    pub(super) shutdown: Shutdown,
}

impl Surroundings {
    /// Those of a machine's snapshots that are named, and the others, oldest first.
    pub(super) async fn snapshots(
        &self,
        vm: VmId,
        named: &BTreeSet<SnapshotId>,
    ) -> Result<(Vec<Snapshot>, Vec<Snapshot>), StoreError> {
        let mut all = Vec::new();
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        loop {
            let some = self.store.snapshots(Some(vm), &page).await?;
            page.after = some.last().map(|snapshot| snapshot.id);
            let last = some.len() < page.limit;
            all.extend(some);
            if last {
                break;
            }
        }
        Ok(all
            .into_iter()
            .partition(|snapshot| named.contains(&snapshot.id)))
    }
}
