//! What a merge leaves that never caught up with its guest. Pure.
//!
//! ```text
//!   before   base ◀─ top*              S named base; deleted
//!   overlaid base ◀─ top ◀─ spare*     L names top: it was frozen when the guest got the spare
//!   merged   base ◀─ spare*            L names base: the record follows the data (`follow`)
//! ```
//!
//! L is a snapshot like any other, so that all that looks at chains knows the layer, and whoever wants
//! the thin overlay gone deletes it. It is written down with the news that the overlay is on, and stays
//! whatever becomes of the merge.

use super::delete::Delete;
use super::step::Step;
use super::types::{
    Consistency, DiskTask, MergeKind, Origin, Snapshot, SnapshotDisk, SnapshotState,
};
use crate::store::SnapshotChange;
use livemerge_proto::ids::SnapshotId;
use livemerge_storage::{VolumeName, VolumeRef};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The name of the overlay that a merge may put on: the merge's own, which nobody else can have.
pub(super) fn spare(task: &DiskTask) -> Option<VolumeRef> {
    let top = task.removed.last().map(|leaving| &leaving.volume.volume);
    let top = top.filter(|_| task.kind == MergeKind::ActiveCommit)?;
    let name: VolumeName = format!("{}.qcow2", task.merge)
        .parse()
        .expect("a UUID and a suffix are a volume's name");
    Some(VolumeRef {
        storage: top.storage.clone(),
        name,
    })
}

impl Delete<'_> {
    /// The snapshot for what the overlay of this merge has frozen.
    pub(super) fn left_by(&self, task: &DiskTask) -> SnapshotChange {
        let operation = &self.draft.operation;
        let frozen = task.removed.last().expect("a merge removes a volume");
        let name = format!("left-{}-{}", task.disk, task.merge);
        SnapshotChange::Put(Snapshot {
            id: SnapshotId::from(Uuid::from(task.merge)),
            vm: operation.vm,
            name: name
                .parse()
                .expect("a target and a UUID are a snapshot's name"),
            description: format!(
                "Left by the deletion of snapshot {}: the guest wrote faster than disk {} could be \
                 merged, and was given an overlay. Delete this when it writes less.",
                operation.snapshot_name, task.disk
            ),
            origin: Origin::LeftByMerge,
            labels: BTreeMap::new(),
            deletion_protected: false,
            consistency: Consistency::Unknown,
            state: SnapshotState::Ready,
            was_incomplete: false,
            disks: vec![SnapshotDisk {
                disk: task.disk.clone(),
                volume: frozen.volume.volume.clone(),
                merging: None,
            }],
            created_at: self.draft.now,
            revision: 0,
        })
    }
}

/// The same note, with these snapshots.
pub(super) fn with_snapshots(step: Step, snapshots: Vec<SnapshotChange>) -> Step {
    match step {
        Step::Note(mut note) => {
            note.snapshots.extend(snapshots);
            Step::Note(note)
        }
        other => other,
    }
}
