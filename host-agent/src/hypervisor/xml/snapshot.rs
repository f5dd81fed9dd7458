//! Reads what libvirt keeps of its own snapshots.

use super::Unreadable;
use super::tree::Element;
use crate::hypervisor::KeptSnapshot;

/// Reads a `<domainsnapshot>`.
pub(in crate::hypervisor) fn kept_snapshot(xml: &str) -> Result<KeptSnapshot, Unreadable> {
    let snapshot = Element::parse(xml)?;
    let name = snapshot.child("name").map(|name| name.text.trim());
    let name = name.filter(|_| snapshot.name == "domainsnapshot");
    let of_disk = |disk: &&Element| disk.name == "disk" && disk.attribute("snapshot") != Some("no");
    // Without the list, it is of all disks.
    let disks = snapshot.child("disks").map(|disks| {
        let disks = disks.children.iter().filter(of_disk);
        disks
            .filter_map(|disk| disk.attribute("name"))
            .map(str::to_owned)
            .collect()
    });
    Ok(KeptSnapshot {
        name: name
            .ok_or_else(|| Unreadable::lacks("a snapshot's name"))?
            .to_owned(),
        disks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_of_the_disks_that_it_does_not_leave_out() {
        let xml = "<domainsnapshot><name>before</name><state>disk-snapshot</state><disks>\
            <disk name='vda' snapshot='external' type='file'><source file='/i/vda.before'/></disk>\
            <disk name='vdb' snapshot='no'/><disk name='vdc' snapshot='internal'/></disks>\
            <domain type='kvm'><name>vm</name></domain></domainsnapshot>";
        let kept = kept_snapshot(xml).unwrap();
        assert_eq!(kept.name, "before");
        let of = |disk: &str| kept.is_of(&disk.parse().unwrap());
        assert!(of("vda") && !of("vdb") && of("vdc") && !of("vdd"));
    }

    #[test]
    fn one_without_a_list_is_of_all_disks() {
        let xml = "<domainsnapshot><name>whole</name></domainsnapshot>";
        assert!(kept_snapshot(xml).unwrap().is_of(&"vda".parse().unwrap()));
        for nonsense in ["<domainsnapshot/>", "<domain><name>vm</name></domain>", "<"] {
            assert!(kept_snapshot(nonsense).is_err());
        }
    }
}
