//! What the guest was promised: every write that was acknowledged, and every point in time that was
//! frozen.

use std::collections::BTreeMap;

use livemerge_proto::ids::{DiskTarget, SnapshotId};
use livemerge_storage::Locator;

/// Blocks of a disk. Few, so that writes meet.
pub(super) const BLOCKS: u64 = 6;

/// The blocks of a disk that were ever written.
pub(super) type Content = BTreeMap<u64, u64>;

/// The oracle.
#[derive(Debug, Default)]
pub(super) struct Guest {
    written: u64,
    acknowledged: BTreeMap<DiskTarget, Content>,
    /// What a volume held when an overlay was put on it last.
    frozen: BTreeMap<Locator, Content>,
    /// What the disks of a snapshot must read as.
    promised: BTreeMap<SnapshotId, BTreeMap<DiskTarget, Content>>,
}

impl Guest {
    /// A value that was never written before.
    pub(super) fn next_value(&mut self) -> u64 {
        self.written += 1;
        self.written
    }

    pub(super) fn acknowledge(&mut self, disk: &DiskTarget, block: u64, value: u64) {
        self.acknowledged
            .entry(disk.clone())
            .or_default()
            .insert(block, value);
    }

    /// What the disk must read as now.
    pub(super) fn acknowledged(&self, disk: &DiskTarget) -> Content {
        self.acknowledged.get(disk).cloned().unwrap_or_default()
    }

    /// An overlay was put on the volume.
    pub(super) fn freeze(&mut self, disk: &DiskTarget, below: &Locator) {
        let now = self.acknowledged(disk);
        self.frozen.insert(below.clone(), now);
    }

    /// A snapshot was told to be good: from now on it must read as it was frozen.
    pub(super) fn promise<'a>(
        &mut self,
        snapshot: SnapshotId,
        disks: impl Iterator<Item = (&'a DiskTarget, Locator)>,
    ) {
        if self.promised.contains_key(&snapshot) {
            return;
        }
        let promised = disks.map(|(disk, volume)| {
            let content = self.frozen.get(&volume).cloned().unwrap_or_default();
            (disk.clone(), content)
        });
        let promised = promised.collect();
        self.promised.insert(snapshot, promised);
    }

    /// What a snapshot's disk must read as.
    pub(super) fn promised(&self, snapshot: SnapshotId, disk: &DiskTarget) -> Option<&Content> {
        self.promised.get(&snapshot)?.get(disk)
    }
}
