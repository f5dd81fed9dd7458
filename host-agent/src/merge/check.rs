//! Everything that would refuse a merge, looked at before anything is touched.

use super::types::{MergeOrder, VolumeMark};
use crate::chains;
use crate::hypervisor::{DiskView, Hypervisor, HypervisorError, VmState, VmView};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Locator, VolumeInfo};

/// What the checks found out beside that the order fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fit {
    /// What QEMU opens for the base.
    pub(super) base: Locator,
    /// What QEMU opens for the top.
    pub(super) top: Locator,
    /// Whether `top` is the layer that the guest writes.
    pub(super) active: bool,
    /// Bytes that `top` has allocated: about what is to be copied.
    pub(super) top_bytes: u64,
}

/// Looks whether the order can be carried out as things are.
///
/// # Errors
/// Says what refuses it, or what did not answer.
pub(super) async fn check(
    order: &MergeOrder,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Fit, Problem> {
    let vm = hypervisor
        .vm(order.vm)
        .await
        .map_err(|error| chains::vm_error(order.vm, &error))?;
    let base = same_volume(&order.base, volumes).await?;
    let top = same_volume(&order.top, volumes).await?;
    let disk = running_disk(order, &vm)?;
    idle(order, disk, hypervisor).await?;
    let active = neighbours(order, disk, &base.locator, &top.locator)?;
    not_shared(order, disk, &[&base, &top], hypervisor, volumes).await?;
    let top_bytes = top.allocated_bytes;
    Ok(Fit {
        base: base.locator,
        top: top.locator,
        active,
        top_bytes,
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
    disk: &DiskView,
    hypervisor: &dyn Hypervisor,
) -> Result<(), Problem> {
    let job = hypervisor.job(order.vm, &order.disk).await;
    let job = job.map_err(|error: HypervisorError| unanswered(&error))?;
    if job.is_none() && disk.mirror.is_none() {
        return Ok(());
    }
    let text = format!("another block job runs on disk {}", order.disk);
    Err(Problem::new(Reason::ConcurrentChange, text).with("disk", &order.disk))
}

/// `top` lies directly on `base`. Tells whether it is the active layer.
fn neighbours(
    order: &MergeOrder,
    disk: &DiskView,
    base: &Locator,
    top: &Locator,
) -> Result<bool, Problem> {
    match (disk.position(base), disk.position(top)) {
        (Some(base), Some(top)) if base + 1 == top => Ok(top + 1 == disk.chain.len()),
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
    layers: &[&VolumeInfo],
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<(), Problem> {
    let children = volumes.children().await?;
    for layer in layers {
        let mut sharers = children.sharers(&layer.locator, &disk.chain);
        let machines = hypervisor.references(&layer.locator).await;
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
                format!("{} is also needed by {by}", layer.volume),
            );
            return Err(problem
                .with("volume", &layer.volume)
                .with("shared_with", by));
        }
    }
    Ok(())
}
