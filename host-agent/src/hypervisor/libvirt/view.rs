//! From libvirt's definitions to the port's view of a machine.

use crate::hypervisor::xml::{Definition, Disk};
use crate::hypervisor::{BlockJob, DiskView, Layer, VmState, VmView};

/// The view of a machine by its present definition and the one that it starts with next time.
pub(super) fn view(now: &Definition, next: Option<&Definition>, state: VmState) -> VmView {
    let disks = now.disks.iter().filter_map(|disk| disk_view(disk, next)).collect();
    VmView { id: now.id, name: now.name.clone(), state, disks }
}

/// `None` for a disk that no merge can be about: a CD-ROM, or one with a layer that is neither
/// file nor block device nor NBD export, or that keeps its data in a second image.
fn disk_view(disk: &Disk, next: Option<&Definition>) -> Option<DiskView> {
    if disk.other_device {
        return None;
    }
    let chain = disk
        .chain
        .iter()
        .map(|layer| match &layer.data_store {
            Some(_) => None,
            None => Some(Layer { locator: layer.source.locator()?.clone(), format: layer.format }),
        })
        .collect::<Option<_>>()?;
    let next_start = next
        .and_then(|next| next.disks.iter().find(|other| other.target == disk.target))
        .and_then(|disk| disk.chain.last())
        .and_then(|layer| layer.source.locator().cloned());
    let mirror = disk.mirror.as_ref().map(|mirror| BlockJob {
        kind: mirror.kind,
        target: mirror.target.locator().cloned(),
        ready: mirror.ready,
    });
    Some(DiskView { target: disk.target.clone(), chain, next_start, mirror })
}
