//! Everything that would refuse a merge, looked at before anything is touched.

use super::types::{MergeOrder, VolumeMark};
use crate::chains;
use crate::hypervisor::{DiskView, Hypervisor, VmState, VmView};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Locator, VolumeInfo};

/// What the checks found out beside that the order fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// What QEMU opens for the base.
    pub base: Locator,
    /// What QEMU opens for the top.
    pub top: Locator,
    /// Whether `top` is the layer that the guest writes.
    pub active: bool,
    /// Bytes that `top` has allocated: about what is to be copied.
    pub top_bytes: u64,
}

/// Looks whether the order can be carried out as things are.
///
/// # Errors
/// Says what refuses it, or what did not answer.
pub async fn check(
    order: &MergeOrder,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Fit, Problem> {
    let vm = hypervisor
        .vm(order.vm)
        .await
        .map_err(|error| chains::vm_error(order.vm, &error))?;
    same_volume(&order.base, volumes).await?;
    let overlay = same_volume(&order.top, volumes).await?;
    let disk = running_disk(order, &vm)?;
    idle(order, &vm, disk, hypervisor).await?;
    let (base, top, active) = neighbours(order, disk, volumes)?;
    not_shared(order, disk, [&base, &top], hypervisor, volumes).await?;
    Ok(Fit {
        base,
        top,
        active,
        top_bytes: overlay.allocated_bytes,
    })
}

/// The name still means the volume that the order means.
async fn same_volume(wanted: &VolumeMark, volumes: &Volumes) -> Result<VolumeInfo, Problem> {
    let found = volumes.stat(&wanted.volume).await?;
    if found.identity == wanted.identity {
        return Ok(found);
    }
    let text = format!(
        "{} is no longer the volume that the order means",
        wanted.volume
    );
    Err(Problem::new(Reason::ChainDiverged, text).with("volume", &wanted.volume))
}

fn running_disk<'a>(order: &MergeOrder, vm: &'a VmView) -> Result<&'a DiskView, Problem> {
    if vm.state == VmState::ShutOff {
        let text = format!("virtual machine {} does not run", vm.name);
        return Err(Problem::new(Reason::VmNotRunning, text).with("vm", order.vm));
    }
    vm.disk(&order.disk).ok_or_else(|| {
        let text = format!("virtual machine {} has no disk {}", vm.name, order.disk);
        Problem::new(Reason::DiskNotFound, text).with("disk", &order.disk)
    })
}

/// No block job works on the disk, ours or anybody's.
async fn idle(
    order: &MergeOrder,
    vm: &VmView,
    disk: &DiskView,
    hypervisor: &dyn Hypervisor,
) -> Result<(), Problem> {
    if !chains::job_runs(vm, disk, hypervisor).await? {
        return Ok(());
    }
    let text = format!("another block job runs on disk {}", order.disk);
    Err(Problem::new(Reason::ConcurrentChange, text).with("disk", &order.disk))
}

/// `top` lies directly on `base`. Gives both as QEMU has them open, which may be another spelling
/// than storage's own, and whether `top` is the active layer.
fn neighbours(
    order: &MergeOrder,
    disk: &DiskView,
    volumes: &Volumes,
) -> Result<(Locator, Locator, bool), Problem> {
    let base = volumes.layer_of(&order.base.volume, &disk.chain);
    let top = volumes.layer_of(&order.top.volume, &disk.chain);
    match (base, top) {
        (Some((below, base)), Some((above, top))) if below + 1 == above => {
            let active = above + 1 == disk.chain.len();
            Ok((base.locator.clone(), top.locator.clone(), active))
        }
        _ => {
            let (top, base) = (&order.top.volume, &order.base.volume);
            let text = format!(
                "{top} does not lie directly on {base} in the chain of {}",
                order.disk
            );
            let problem = Problem::new(Reason::ChainDiverged, text).with("disk", &order.disk);
            Err(problem.with("top", top).with("base", base))
        }
    }
}

/// A volume with more than one overlay is never written, and its overlay never taken away.
async fn not_shared(
    order: &MergeOrder,
    disk: &DiskView,
    layers: [&Locator; 2],
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<(), Problem> {
    let built_on = volumes.built_on(&layers.map(Locator::clone)).await?;
    let chain: Vec<_> = disk
        .chain
        .iter()
        .map(|layer| layer.locator.clone())
        .collect();
    let marks = [&order.base.volume, &order.top.volume];
    for (volume, layer) in marks.into_iter().zip(layers) {
        let mut sharers = built_on.sharers(layer, &chain, volumes);
        let machines = hypervisor.references(layer).await;
        let machines = machines.map_err(|error| unanswered(&error))?;
        let others = machines
            .iter()
            .filter(|other| other.vm != order.vm || other.disk != order.disk);
        sharers.extend(
            others.map(|other| format!("{} of virtual machine {}", other.disk, other.name)),
        );
        if !sharers.is_empty() {
            let by = sharers.join(", ");
            let problem = Problem::new(
                Reason::SnapshotSharedBase,
                format!("{volume} is also needed by {by}"),
            );
            return Err(problem.with("volume", volume).with("shared_with", by));
        }
    }
    Ok(())
}
