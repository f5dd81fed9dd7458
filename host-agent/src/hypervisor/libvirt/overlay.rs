//! The order for overlays, in libvirt's words: an external snapshot of some disks, into volumes
//! that exist already, of which libvirt keeps no record.

use std::fmt::Write as _;

use crate::hypervisor::xml::{Definition, Unwritable, source_element};
use crate::hypervisor::{HypervisorError, Overlay};

/// All or none; the volumes are there; no metadata; the guest's memory is not saved.
pub(super) const FLAGS: u32 = virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;

/// The `<domainsnapshot>` for these overlays. Every other disk is named as left alone: libvirt
/// would make a file for each that is not named.
pub(super) fn order(
    machine: &Definition,
    overlays: &[&Overlay],
) -> Result<String, HypervisorError> {
    let mut xml = "<domainsnapshot><disks>".to_owned();
    for disk in &machine.disks {
        let name = disk.target.as_str();
        // Writing to a string cannot fail.
        let _ = match overlays.iter().find(|overlay| overlay.disk == disk.target) {
            None => write!(xml, "<disk name='{name}' snapshot='no'/>"),
            Some(overlay) => {
                let (kind, source) =
                    source_element(&overlay.locator).map_err(|error| refused(&error))?;
                write!(
                    xml,
                    "<disk name='{name}' snapshot='external' type='{kind}'>\
                     <driver type='qcow2'/>{source}</disk>"
                )
            }
        };
    }
    xml.push_str("</disks></domainsnapshot>");
    Ok(xml)
}

fn refused(error: &Unwritable) -> HypervisorError {
    HypervisorError::Refused(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemerge_storage::Locator;

    #[test]
    fn every_other_disk_is_left_alone() {
        let machine = Definition::parse(include_str!("../xml/recorded/chain_of_four.xml")).unwrap();
        let overlay = |disk: &str, locator| Overlay {
            disk: disk.parse().unwrap(),
            locator,
        };
        let file = overlay("vda", Locator::File("/images/a&b\".qcow2".into()));
        let block = overlay("vdb", Locator::Block("/dev/vg/new".into()));
        let nbd = overlay(
            "vdc",
            Locator::Nbd("nbd+unix:///new?socket=/run/n.sock".to_owned()),
        );
        assert_eq!(
            order(&machine, &[&file, &block, &nbd]).unwrap(),
            "<domainsnapshot><disks>\
             <disk name='vda' snapshot='external' type='file'><driver type='qcow2'/>\
             <source file=\"/images/a&amp;b&quot;.qcow2\"/></disk>\
             <disk name='vdb' snapshot='external' type='block'><driver type='qcow2'/>\
             <source dev=\"/dev/vg/new\"/></disk>\
             <disk name='vdc' snapshot='external' type='network'><driver type='qcow2'/>\
             <source protocol=\"nbd\" name=\"new\">\
             <host transport=\"unix\" socket=\"/run/n.sock\"/>\
             <reconnect delay=\"300\"/></source></disk>\
             <disk name='sda' snapshot='no'/></disks></domainsnapshot>"
        );
        let odd = overlay("vda", Locator::Nbd("http://a".to_owned()));
        assert!(matches!(
            order(&machine, &[&odd]),
            Err(HypervisorError::Refused(_))
        ));
    }
}
