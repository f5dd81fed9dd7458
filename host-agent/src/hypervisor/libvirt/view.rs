//! From libvirt's definitions to the port's view of a machine.

use crate::hypervisor::xml::{Definition, Disk};
use crate::hypervisor::{BlockJob, DiskView, Layer, VmState, VmView};
use livemerge_storage::{Locator, is_written};

/// The view of a machine by its present definition and the one that it starts with next time.
pub(super) fn view(now: &Definition, next: Option<&Definition>, state: VmState) -> VmView {
    let disks = now
        .disks
        .iter()
        .filter_map(|disk| disk_view(now, disk, next))
        .collect();
    VmView {
        id: now.id,
        name: now.name.clone(),
        state,
        disks,
    }
}

/// `None` for a disk that no merge can be about: a CD-ROM, or one with a layer that is neither
/// file nor block device nor NBD export, or that keeps its data in a second image.
fn disk_view(now: &Definition, disk: &Disk, next: Option<&Definition>) -> Option<DiskView> {
    if disk.other_device {
        return None;
    }
    let chain = disk
        .chain
        .iter()
        .map(|layer| match &layer.data_store {
            Some(_) => None,
            None => Some(Layer {
                locator: layer.source.locator()?.clone(),
                format: layer.format,
            }),
        })
        .collect::<Option<_>>()?;
    let next_start = next
        .and_then(|next| next.disks.iter().find(|other| other.target == disk.target))
        .and_then(|disk| disk.chain.last())
        .and_then(|layer| layer.source.locator().cloned());
    let mirror = disk.mirror.as_ref().map(|mirror| BlockJob {
        kind: mirror.kind,
        target: mirror.target.locator().cloned(),
        state: mirror.state,
        switched: switched(disk),
    });
    Some(DiskView {
        target: disk.target.clone(),
        chain,
        next_start,
        mirror,
        pulls_for: now.pulls_for(&disk.target),
    })
}

/// Which of the two QEMU has open for writing: its locks tell, and a mark may be stale.
fn switched(disk: &Disk) -> Option<bool> {
    let written = |locator: Option<&Locator>| match locator? {
        Locator::File(path) | Locator::Block(path) => is_written(path).ok(),
        _ => None,
    };
    let from = written(disk.chain.last()?.source.locator())?;
    let to = written(disk.mirror.as_ref()?.target.locator())?;
    match (from, to) {
        (false, true) => Some(true),
        (true, _) => Some(false),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(xml: &str) -> Definition {
        Definition::parse(xml).unwrap()
    }

    fn targets(view: &VmView) -> Vec<&str> {
        view.disks.iter().map(|disk| disk.target.as_str()).collect()
    }

    #[test]
    fn the_next_start_is_that_of_the_definition() {
        let now = machine(include_str!("../xml/recorded/active_commit_ready.xml"));
        let next = machine(include_str!("../xml/recorded/after_pivot_inactive.xml"));
        let seen = view(&now, Some(&next), VmState::Running);
        assert_eq!(targets(&seen), ["vda", "vdb", "vdc"]);
        let disk = &seen.disks[0];
        assert_eq!(disk.chain.len(), 4);
        assert_eq!(disk.next_start.as_ref(), Some(&disk.chain[0].locator));
        let mirror = disk.mirror.as_ref().unwrap();
        assert_eq!(mirror.state, crate::hypervisor::MirrorState::Ready);
        assert_eq!(mirror.target.as_ref(), Some(&disk.chain[0].locator));
        assert_eq!(view(&now, None, VmState::Running).disks[0].next_start, None);
    }

    #[test]
    fn a_disk_with_a_layer_elsewhere_is_left_out_and_not_shortened() {
        let xml = include_str!("../xml/recorded/chain_of_four.xml");
        let base = "<backingStore type='file' index='8'>";
        assert!(xml.contains(base));
        let volume = "<backingStore type='volume' index='8'>";
        let seen = view(&machine(&xml.replace(base, volume)), None, VmState::Running);
        assert_eq!(targets(&seen), ["vdb", "vdc"]);
    }
}
