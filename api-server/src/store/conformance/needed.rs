//! Who needs a volume, over all machines.

use super::records::{full_change, id, operation, snapshot};
use crate::snapshot::{Mark, Merging, Snapshot, SnapshotDisk};
use crate::store::Store;
use livemerge_proto::ids::SnapshotId;
use livemerge_storage::VolumeRef;
use std::sync::Arc;

fn volume(storage: &str, name: &str) -> VolumeRef {
    VolumeRef {
        storage: storage.parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

fn mark(volume: VolumeRef) -> Mark {
    let identity = format!("of-{}", volume.name).parse().unwrap();
    Mark { volume, identity }
}

/// A snapshot of a machine of its own, with a disk in a volume, and what is merged there.
fn named(number: u64, own: VolumeRef, merging: Option<(VolumeRef, VolumeRef)>) -> Snapshot {
    let merging = merging.map(|(kept, removed)| Merging {
        kept: mark(kept),
        removed: vec![mark(removed)],
        chain_tells: true,
    });
    let disk = SnapshotDisk {
        disk: "vda".parse().unwrap(),
        volume: own,
        merging,
    };
    Snapshot {
        disks: vec![disk],
        ..snapshot(number, number, "a")
    }
}

/// By name and domain, where the data are or go; not where they leave, and not by a part of a name.
pub(super) async fn found(store: Arc<dyn Store>) {
    let (v, x) = (
        || volume("default", "v.qcow2"),
        || volume("default", "x.qcow2"),
    );
    let all = [
        named(1, v(), None),
        named(2, volume("other", "v.qcow2"), None),
        named(3, volume("default", "v.qcow2-1"), None),
        named(4, volume("default", "_v.qcow2"), None),
        named(5, x(), Some((v(), volume("default", "y.qcow2")))),
        named(6, x(), Some((x(), v()))),
        snapshot(7, 7, "v.qcow2"),
    ];
    for (number, snapshot) in (1..).zip(&all) {
        let operation = operation(number, number);
        let change = full_change(&operation, snapshot, "taken");
        store.apply(&change).await.unwrap();
    }
    let need = async |volume: VolumeRef| {
        let found = store.snapshots_that_need(&volume).await.unwrap();
        let ids = found.iter().map(|snapshot| snapshot.id);
        ids.collect::<Vec<SnapshotId>>()
    };
    assert_eq!(need(v()).await, [id(1), id(5)]);
    assert_eq!(need(x()).await, [id(5), id(6)]);
    assert_eq!(need(volume("other", "v.qcow2")).await, [id(2)]);
    assert_eq!(need(volume("default", "qcow2")).await, []);
}
