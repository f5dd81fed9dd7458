//! From libvirt's definitions to the port's view of a machine.

use crate::hypervisor::xml::{Definition, Device, Disk, Source};
use crate::hypervisor::{BlockJob, DiskView, Layer, UnsupportedDisk, VmState, VmView};
use livemerge_storage::{Locator, is_written};

/// The view of a machine by its present definition and the one that it starts with next time.
pub(super) fn view(now: &Definition, next: Option<&Definition>, state: VmState) -> VmView {
    let (mut disks, mut unsupported) = (Vec::new(), Vec::new());
    let wanted = |disk: &&Disk| disk.device != Device::Removable;
    for disk in now.disks.iter().filter(wanted) {
        match disk_view(now, disk, next) {
            Ok(disk) => disks.push(disk),
            Err(why) => unsupported.push(UnsupportedDisk {
                target: disk.target.clone(),
                why,
                layers: disk
                    .sources()
                    .filter_map(Source::locator)
                    .cloned()
                    .collect(),
            }),
        }
    }
    VmView {
        id: now.id,
        name: now.name.clone(),
        state,
        lacks_room: false,
        disks,
        unsupported,
    }
}

/// # Errors
/// Says why no merge can be about the disk.
fn disk_view(now: &Definition, disk: &Disk, next: Option<&Definition>) -> Result<DiskView, String> {
    if let Some(why) = disk.unsupported() {
        return Err(why);
    }
    let layers = disk.chain.iter().map(|layer| {
        let locator = layer.source.locator().ok_or("has a layer without a name")?;
        Ok(Layer {
            locator: locator.clone(),
            format: layer.format,
        })
    });
    let chain = layers.collect::<Result<_, String>>()?;
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
    Ok(DiskView {
        target: disk.target.clone(),
        chain,
        next_start,
        mirror,
        unflushed: match now.works_for(&disk.target) {
            Some(_) => written_below(disk),
            None => Vec::new(),
        },
        works_for: now.works_for(&disk.target),
        astray: disk.astray.clone(),
        discards: disk.discards,
    })
}

fn written_below(disk: &Disk) -> Vec<Locator> {
    let below = disk.chain.iter().rev().skip(1);
    let locators = below.filter_map(|layer| layer.source.locator());
    let written = |locator: &&Locator| match locator {
        // Where it cannot be told, it may be.
        Locator::File(path) | Locator::Block(path) => is_written(path).unwrap_or(true),
        Locator::Nbd(_) => true,
    };
    locators.filter(written).cloned().collect()
}

/// Which of the two QEMU has open for writing: its locks tell, and a mark may be stale. It has both
/// open while a copy runs, and afterwards, until libvirt closes the one that it has left.
fn switched(disk: &Disk) -> Option<bool> {
    let written = |locator: Option<&Locator>| match locator? {
        Locator::File(path) | Locator::Block(path) => is_written(path).ok(),
        _ => None,
    };
    let from = written(disk.chain.last()?.source.locator())?;
    let to = written(disk.mirror.as_ref()?.target.locator())?;
    match (from, to) {
        (false, true) => Some(true),
        (true, false) => Some(false),
        (true, true) | (false, false) => None,
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

    /// Of the machine with a chain of four, which this changes, what is said of `vda`.
    fn said_of_vda(from: &str, to: &str) -> String {
        let xml = include_str!("../xml/recorded/chain_of_four.xml");
        assert!(xml.contains(from), "{from}");
        let changed = machine(&xml.replacen(from, to, 1));
        let seen = view(&changed, None, VmState::Running);
        assert_eq!(targets(&seen), ["vdb", "vdc"]);
        let [vda] = seen.unsupported.as_slice() else {
            panic!("{:?}", seen.unsupported);
        };
        assert_eq!(vda.target.as_str(), "vda");
        assert!(vda.layers.len() >= 3, "{vda:?}");
        vda.why.clone()
    }

    #[test]
    fn a_disk_that_cannot_be_merged_is_told_with_the_reason_and_not_shortened() {
        let base = "<backingStore type='file' index='8'>";
        let pool = said_of_vda(base, "<backingStore type='volume' index='8'>");
        assert!(pool.contains("of the kind volume"), "{pool}");
        let layer = said_of_vda(base, "<backingStore type='dir' index='8'>");
        assert!(layer.contains("of the kind dir"), "{layer}");
        let end = "<backingStore/>";
        let encryption = "<encryption format='luks'/><backingStore/>";
        let encrypted = said_of_vda(end, encryption);
        assert!(encrypted.contains("which is encrypted"), "{encrypted}");
        let store = "<dataStore type='file'><source file='/d.raw'/></dataStore><backingStore/>";
        let store = said_of_vda(end, store);
        assert!(store.contains("in a second file"), "{store}");
    }
}
