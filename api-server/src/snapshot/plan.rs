//! Decides what a snapshot's deletion or creation does to each disk: pure, from the record and the
//! chains as they were just read.

use super::types::{
    DiskState, DiskTask, Mark, NewOverlay, Snapshot, SnapshotDisk, SnapshotState, Told,
};
use crate::hosts::{Chain, Layer, VmChains, VmState};
use livemerge_proto::ids::{DiskTarget, MergeId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{RemovalId, VolumeName, VolumeRef};
use std::time::Duration;
use uuid::Uuid;

/// Where new ids come from.
pub type Mint<'a> = &'a mut dyn FnMut() -> Uuid;

/// What the deletion of a snapshot does, disk by disk. `others` are the machine's other snapshots. A
/// disk that has nothing to merge is left out: it goes with the snapshot's row.
///
/// # Errors
/// Says what refuses it. Nothing has been touched then.
pub fn plan_delete(
    snapshot: &Snapshot,
    others: &[Snapshot],
    vm: &VmChains,
    mint: Mint<'_>,
) -> Result<Vec<DiskTask>, Problem> {
    if vm.state == Some(VmState::ShutOff) {
        let text = format!(
            "the virtual machine of snapshot {} does not run",
            snapshot.name
        );
        return Err(Problem::new(Reason::VmNotRunning, text).with("vm", snapshot.vm));
    }
    let planned = snapshot
        .disks
        .iter()
        .filter_map(|disk| plan_disk(snapshot, others, disk, &vm.chains, mint).transpose());
    planned.collect()
}

fn plan_disk(
    snapshot: &Snapshot,
    others: &[Snapshot],
    disk: &SnapshotDisk,
    chains: &[Chain],
    mint: Mint<'_>,
) -> Result<Option<DiskTask>, Problem> {
    let refuse = |reason, text: String| {
        let problem = Problem::new(reason, text).with("snapshot", snapshot.id);
        Err(problem
            .with("disk", &disk.disk)
            .with("volume", &disk.volume))
    };
    let Some(chain) = chains.iter().find(|chain| chain.disk == disk.disk) else {
        return refuse(
            Reason::DiskNotFound,
            format!("the virtual machine has no disk {}", disk.disk),
        );
    };
    let Some(base) = position(chain, &disk.volume) else {
        let text = format!("{} is not in the chain of disk {}", disk.volume, disk.disk);
        return refuse(Reason::ChainDiverged, text);
    };
    if let Some(top) = merged_already(disk, chain) {
        let base = mark(&chain.layers[base])?;
        let state = DiskState::Removing {
            copied_bytes: 0,
            longest_pause: Duration::ZERO,
        };
        return Ok(Some(task(disk, base, top, false, state, mint)));
    }
    if chain.job_running {
        return refuse(
            Reason::ConcurrentChange,
            format!("a block job runs on disk {}", disk.disk),
        );
    }
    let top = chain.layers.get(base + 1);
    if may_be_unfrozen(snapshot, disk) && (top.is_none() || is_anothers(disk, others)) {
        return Ok(None);
    }
    let Some(top) = top else {
        let text = format!(
            "{} is the layer that the guest writes to disk {}",
            disk.volume, disk.disk
        );
        return refuse(Reason::SnapshotIsActiveLayer, text);
    };
    for layer in [&chain.layers[base], top] {
        if !layer.shared_with.is_empty() {
            let by = layer.shared_with.join(", ");
            return refuse(
                Reason::SnapshotSharedBase,
                format!("{} is also needed by {by}", layer.locator),
            );
        }
    }
    let active = base + 2 == chain.layers.len();
    let (base, top) = (mark(&chain.layers[base])?, mark(top)?);
    let state = DiskState::Pending;
    Ok(Some(task(disk, base, top, active, state, mint)))
}

/// Whether the overlay that was to freeze the disk's volume may never have come on: the snapshot is
/// INCOMPLETE though no merge of the disk has begun. A READY one has lost its overlay to somebody
/// else, who should know of it.
fn may_be_unfrozen(snapshot: &Snapshot, disk: &SnapshotDisk) -> bool {
    let incomplete = snapshot.was_incomplete || snapshot.state == SnapshotState::Incomplete;
    incomplete && disk.merging.is_none()
}

/// Whether another snapshot has frozen the very volume: what lies above it is that one's overlay.
fn is_anothers(disk: &SnapshotDisk, others: &[Snapshot]) -> bool {
    let same = |other: &SnapshotDisk| other.disk == disk.disk && other.volume == disk.volume;
    others.iter().any(|other| other.disks.iter().any(same))
}

/// The overlay that an earlier delete has merged, if it only has to be removed.
fn merged_already(disk: &SnapshotDisk, chain: &Chain) -> Option<Mark> {
    let top = disk.merging.as_ref()?;
    position(chain, &top.volume).is_none().then(|| top.clone())
}

fn task(
    disk: &SnapshotDisk,
    base: Mark,
    top: Mark,
    active: bool,
    state: DiskState,
    mint: Mint<'_>,
) -> DiskTask {
    DiskTask {
        disk: disk.disk.clone(),
        base,
        top,
        earlier: disk.merging.clone(),
        active,
        merge: MergeId::from(mint()),
        removal: RemovalId::from(mint()),
        state,
        told: Told::default(),
    }
}

/// Which overlays a new snapshot needs: one on each disk of the machine.
///
/// # Errors
/// Says what refuses it. Nothing has been touched then.
pub fn plan_create(vm: &VmChains, mint: Mint<'_>) -> Result<Vec<NewOverlay>, Problem> {
    if vm.state == Some(VmState::ShutOff) {
        return Err(Problem::new(
            Reason::VmNotRunning,
            "the virtual machine does not run",
        ));
    }
    if vm.chains.is_empty() {
        return Err(Problem::new(
            Reason::DiskNotFound,
            "the virtual machine has no disk",
        ));
    }
    vm.chains
        .iter()
        .map(|chain| plan_overlay(chain, mint))
        .collect()
}

fn plan_overlay(chain: &Chain, mint: Mint<'_>) -> Result<NewOverlay, Problem> {
    if chain.job_running {
        let text = format!("a block job runs on disk {}", chain.disk);
        return Err(Problem::new(Reason::ConcurrentChange, text).with("disk", &chain.disk));
    }
    let below = chain
        .layers
        .last()
        .ok_or_else(|| no_layers(&chain.disk))
        .and_then(mark)?
        .volume;
    let name: VolumeName = format!("{}.qcow2", mint())
        .parse()
        .expect("a UUID and a suffix are a volume's name");
    let overlay = VolumeRef {
        storage: below.storage.clone(),
        name,
    };
    Ok(NewOverlay {
        disk: chain.disk.clone(),
        below,
        overlay,
    })
}

fn no_layers(disk: &DiskTarget) -> Problem {
    Problem::new(
        Reason::ChainCorrupt,
        format!("the chain of disk {disk} is empty"),
    )
    .with("disk", disk)
}

fn position(chain: &Chain, volume: &VolumeRef) -> Option<usize> {
    chain
        .layers
        .iter()
        .position(|layer| layer.mark.as_ref().is_some_and(|m| m.volume == *volume))
}

fn mark(layer: &Layer) -> Result<Mark, Problem> {
    layer.mark.clone().ok_or_else(|| {
        let text = format!("{} lies in no storage domain of the host", layer.locator);
        Problem::new(Reason::StrategyUnsupported, text).with("locator", &layer.locator)
    })
}
