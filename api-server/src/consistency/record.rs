//! What the store says, as far as it can be compared.

use crate::snapshot::{
    CreatePhase, DeletePhase, DiskState, DiskTask, Mark, Merging, NewOverlay, Operation,
    OperationState, Snapshot, Work,
};
use livemerge_proto::ids::{SnapshotId, VmId};
use livemerge_storage::{RemovalId, VolumeRef};

/// The record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// All snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Operations that may have worked while the hosts were looked at.
    pub at_work: Vec<Operation>,
    /// Operations that have ended and name a volume to which nothing refers.
    pub ended: Vec<Operation>,
}

impl Record {
    /// The operation that may have changed the machine while it was looked at.
    pub(super) fn works_on(&self, vm: VmId) -> Option<&Operation> {
        self.at_work.iter().find(|operation| operation.vm == vm)
    }

    pub(super) fn works_on_snapshot(&self, snapshot: SnapshotId) -> bool {
        let mut at_work = self.at_work.iter();
        at_work.any(|operation| operation.snapshots().any(|own| own == snapshot))
    }

    /// All volumes that a snapshot or an operation at work names.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &VolumeRef> {
        let disks = self.snapshots.iter().flat_map(|snapshot| &snapshot.disks);
        let of_snapshots = disks.flat_map(|disk| {
            let merging = disk.merging.iter().flat_map(Merging::marks);
            std::iter::once(&disk.volume).chain(merging.map(|mark| &mark.volume))
        });
        of_snapshots.chain(self.at_work.iter().flat_map(volumes_of))
    }

    /// Whether an operation at work removes the volume.
    pub(super) fn drives(&self, removal: RemovalId, volume: &VolumeRef) -> bool {
        self.at_work.iter().any(|operation| {
            tasks(operation)
                .iter()
                .flat_map(|task| &task.removed)
                .any(|leaving| leaving.removal == removal)
                || overlays(operation).iter().any(|o| o.overlay == *volume)
        })
    }

    /// The ended operation that says that the very volume holds nothing: it was made for a snapshot
    /// that was not taken, or has been merged into another.
    pub(super) fn says_empty(&self, mark: &Mark) -> Option<&Operation> {
        self.ended
            .iter()
            .find(|operation| made_for_nothing(operation, mark) || has_merged(operation, mark))
    }
}

fn made_for_nothing(operation: &Operation, mark: &Mark) -> bool {
    matches!(operation.state, OperationState::Failed(_))
        && overlays(operation)
            .iter()
            .any(|overlay| overlay.overlay == mark.volume)
}

fn has_merged(operation: &Operation, mark: &Mark) -> bool {
    let merged = |task: &DiskTask| {
        matches!(
            task.state,
            DiskState::Removing { .. } | DiskState::Removed { .. }
        )
    };
    operation.state.ended()
        && tasks(operation)
            .iter()
            .any(|task| task.removed.iter().any(|leaving| leaving.volume == *mark) && merged(task))
}

/// All volumes that an operation names.
pub(super) fn volumes_of(operation: &Operation) -> impl Iterator<Item = &VolumeRef> {
    let made = overlays(operation)
        .iter()
        .flat_map(|overlay| [&overlay.below, &overlay.overlay]);
    let merged = tasks(operation).iter().flat_map(|task| {
        let removed = task.removed.iter().map(|leaving| &leaving.volume.volume);
        removed.chain([&task.kept.volume])
    });
    made.chain(merged)
}

fn overlays(operation: &Operation) -> &[NewOverlay] {
    match &operation.work {
        Work::Create(CreatePhase::Overlaying(overlays) | CreatePhase::Refused(overlays, _)) => {
            overlays
        }
        Work::Create(CreatePhase::Planning) | Work::Delete(_) => &[],
    }
}

fn tasks(operation: &Operation) -> &[DiskTask] {
    match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks,
        Work::Delete(DeletePhase::Planning) | Work::Create(_) => &[],
    }
}
