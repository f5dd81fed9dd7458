//! Who in the record needs a volume that is to be removed, on whatever machine. Pure, but for what reads the
//! record.
//!
//! What a machine's own merge takes away nobody of its snapshots names by then: the record has
//! followed the data. If anybody names it nevertheless, one of the two is wrong, and a removal cannot
//! be taken back.

use super::step::next_removals;
use super::types::{CreatePhase, DeletePhase, Merging, Operation, Snapshot, Work};
use crate::store::{Store, StoreError};
use livemerge_proto::ids::{OperationId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, VolumeRef};
use std::collections::BTreeMap;
use std::fmt::Display;

/// What keeps a volume from being removed for `own`, if there is anything: a snapshot that is in it or
/// is being merged into it, or an open operation that builds on it or merges into it.
pub fn needed_by<'a>(
    volume: &VolumeRef,
    own: OperationId,
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> Option<Problem> {
    let mut snapshots = snapshots.into_iter();
    if let Some(snapshot) = snapshots.find(|snapshot| snapshot.needs(volume)) {
        return Some(named(volume, "snapshot", snapshot.id, snapshot.vm));
    }
    let mut others = operations.into_iter().filter(|other| other.id != own);
    let other = others.find(|other| !other.state.ended() && uses(other, volume))?;
    Some(named(volume, "operation", other.id, other.vm))
}

/// The same of all that the operation has removed next, as the record has it now.
pub(super) async fn needed_of(
    operation: &Operation,
    store: &dyn Store,
) -> Result<BTreeMap<RemovalId, Problem>, StoreError> {
    let mut needed = BTreeMap::new();
    let next = next_removals(operation);
    if next.is_empty() {
        return Ok(needed);
    }
    let open = store.open_operations().await?;
    for leaving in next {
        let volume = &leaving.volume.volume;
        let snapshots = store.snapshots_that_need(volume).await?;
        let by = needed_by(volume, operation.id, &snapshots, &open);
        needed.extend(by.map(|by| (leaving.removal, by)));
    }
    Ok(needed)
}

fn uses(operation: &Operation, volume: &VolumeRef) -> bool {
    match &operation.work {
        Work::Create(CreatePhase::Planning) | Work::Delete(DeletePhase::Planning) => false,
        Work::Create(CreatePhase::Overlaying(overlays) | CreatePhase::Refused(overlays, _)) => {
            let mut overlays = overlays.iter();
            overlays.any(|new| new.below == *volume || new.overlay == *volume)
        }
        Work::Delete(DeletePhase::Disks(tasks)) => {
            let mut open = tasks.iter().filter(|task| !task.is_removed());
            open.any(|task| task.kept.volume == *volume)
        }
    }
}

fn named(volume: &VolumeRef, what: &'static str, id: impl Display, vm: VmId) -> Problem {
    let text = format!("{volume} is not removed: {what} {id} of virtual machine {vm} names it");
    let problem = Problem::new(Reason::VolumeInUse, text).with("volume", volume);
    problem.with(what, id).with("vm", vm)
}

impl Snapshot {
    /// Whether its data are in a volume, or a merge writes them there.
    pub fn needs(&self, volume: &VolumeRef) -> bool {
        let into = |merging: &Merging| merging.kept.volume == *volume;
        let mut disks = self.disks.iter();
        disks.any(|disk| disk.volume == *volume || disk.merging.as_ref().is_some_and(into))
    }
}
