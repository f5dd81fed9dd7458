//! Puts fresh overlays on a machine's disks: all of them in one step, or none.
//!
//! The names of the overlays come with the order, so a repetition is told by what the chain shows:
//! overlays that are active already are the answer, not an error.

use crate::chains::{self, Chain};
use crate::hypervisor::{Hypervisor, HypervisorError, Overlay, VmState, VmView};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{NewVolume, Parent, RemovalId, RemovalOrder, VolumeInfo, VolumeRef};
use std::time::Duration;

/// Asks for overlays.
#[derive(Debug, Clone)]
pub struct OverlayOrder {
    /// The request, from which the removals get their ids if it must be undone.
    pub request: uuid::Uuid,
    /// The machine.
    pub vm: VmId,
    /// One a disk.
    pub overlays: Vec<NewOverlay>,
}

/// One disk's overlay.
#[derive(Debug, Clone)]
pub struct NewOverlay {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The active volume, which becomes the backing.
    pub below: VolumeRef,
    /// The volume to create.
    pub overlay: VolumeRef,
}

/// Puts the overlays on and returns the disks' chains.
///
/// # Errors
/// A problem; unless it says that the hypervisor did not answer, nothing of the order is left.
pub async fn create(
    order: &OverlayOrder,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Vec<Chain>, Problem> {
    let vm = hypervisor
        .vm(order.vm)
        .await
        .map_err(|error| chains::vm_error(order.vm, &error))?;
    if !done(order, &vm, volumes)? {
        put_on(order, &vm, hypervisor, volumes).await?;
    }
    let mut all = chains::read(order.vm, None, hypervisor, volumes).await?;
    all.retain(|chain| {
        order
            .overlays
            .iter()
            .any(|overlay| overlay.disk == chain.disk)
    });
    Ok(all)
}

/// Whether all overlays are active. Anything between none and all is no state that this can make.
fn done(order: &OverlayOrder, vm: &VmView, volumes: &Volumes) -> Result<bool, Problem> {
    let mut on = 0;
    for wanted in &order.overlays {
        let Some(disk) = vm.disk(&wanted.disk) else {
            let text = format!("virtual machine {} has no disk {}", vm.name, wanted.disk);
            return Err(Problem::new(Reason::DiskNotFound, text).with("disk", &wanted.disk));
        };
        let active = disk
            .active()
            .and_then(|layer| volumes.volume_of(&layer.locator));
        if active.as_ref() == Some(&wanted.overlay) {
            on += 1;
        } else if active.as_ref() != Some(&wanted.below) || disk.mirror.is_some() {
            let text = format!(
                "disk {} is not writing to {} alone",
                wanted.disk, wanted.below
            );
            return Err(Problem::new(Reason::ChainDiverged, text).with("disk", &wanted.disk));
        }
    }
    match on {
        0 => Ok(false),
        all if all == order.overlays.len() => Ok(true),
        _ => Err(Problem::new(
            Reason::ChainDiverged,
            "some of the overlays are on, some are not",
        )),
    }
}

async fn put_on(
    order: &OverlayOrder,
    vm: &VmView,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<(), Problem> {
    if vm.state == VmState::ShutOff {
        let text = format!("virtual machine {} does not run", vm.name);
        return Err(Problem::new(Reason::VmNotRunning, text).with("vm", order.vm));
    }
    let mut created = Vec::new();
    for wanted in &order.overlays {
        match create_volume(wanted, volumes).await {
            Ok(info) => created.push((wanted.disk.clone(), info)),
            Err(problem) => {
                undo(order, &created, volumes).await;
                return Err(problem);
            }
        }
    }
    let overlays: Vec<Overlay> = created
        .iter()
        .map(|(disk, info)| Overlay {
            disk: disk.clone(),
            locator: info.locator.clone(),
        })
        .collect();
    match hypervisor.add_overlays(order.vm, &overlays).await {
        Ok(()) => Ok(()),
        Err(error @ HypervisorError::Unknown(_)) => Err(unanswered(&error)),
        Err(error) => {
            undo(order, &created, volumes).await;
            Err(unanswered(&error))
        }
    }
}

async fn create_volume(wanted: &NewOverlay, volumes: &Volumes) -> Result<VolumeInfo, Problem> {
    let below = volumes.stat(&wanted.below).await?;
    let overlay = NewVolume {
        name: wanted.overlay.name.clone(),
        virtual_bytes: below.virtual_bytes,
        parent: Some(Parent {
            locator: below.locator,
            format: Some(below.format),
        }),
    };
    volumes.create(&wanted.overlay.storage, &overlay).await
}

/// Takes away volumes that never came into use. What cannot be taken away is reported: it holds
/// nothing, and its name belongs to this order alone.
async fn undo(order: &OverlayOrder, created: &[(DiskTarget, VolumeInfo)], volumes: &Volumes) {
    for (_, info) in created {
        let removal = RemovalOrder {
            id: removal_of(order, &info.volume),
            volume: info.volume.name.clone(),
            identity: info.identity.clone(),
            keep_for: Duration::ZERO,
        };
        if let Err(problem) = volumes.remove(&info.volume.storage, &removal).await {
            tracing::warn!(volume = %info.volume, %problem, "an unused overlay could not be removed");
        }
    }
}

/// A removal has one volume; the same order undone again repeats the same removals.
fn removal_of(order: &OverlayOrder, volume: &VolumeRef) -> RemovalId {
    let id = uuid::Uuid::new_v5(&order.request, volume.to_string().as_bytes());
    RemovalId::from(id)
}
