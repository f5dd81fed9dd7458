//! The order for overlays, in libvirt's words: an external snapshot of some disks, into volumes
//! that exist already, of which libvirt keeps no record.

use std::fmt::Write as _;

use livemerge_storage::Locator;
use quick_xml::escape::escape;

use crate::hypervisor::nbd::{NbdAddress, Server};
use crate::hypervisor::xml::Definition;
use crate::hypervisor::{HypervisorError, Overlay};

/// All or none; the volumes are there; no metadata; the guest's memory is not saved.
pub(super) const FLAGS: u32 = virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | virt_sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;

/// The `<domainsnapshot>` for these overlays. Every other disk is named as left alone: libvirt
/// would make a file for each that is not named.
pub(super) fn order(machine: &Definition, overlays: &[&Overlay]) -> Result<String, HypervisorError> {
    let mut xml = "<domainsnapshot><disks>".to_owned();
    for disk in &machine.disks {
        let name = disk.target.as_str();
        // Writing to a string cannot fail.
        let _ = match overlays.iter().find(|overlay| overlay.disk == disk.target) {
            None => write!(xml, "<disk name='{name}' snapshot='no'/>"),
            Some(overlay) => {
                let (kind, source) = source(&overlay.locator)?;
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

fn source(locator: &Locator) -> Result<(&'static str, String), HypervisorError> {
    let refused = || HypervisorError::Refused(format!("{locator:?} cannot be told to libvirt"));
    match locator {
        Locator::File(path) => {
            let path = path.to_str().ok_or_else(refused)?;
            Ok(("file", format!("<source file=\"{}\"/>", escape(path))))
        }
        Locator::Block(path) => {
            let path = path.to_str().ok_or_else(refused)?;
            Ok(("block", format!("<source dev=\"{}\"/>", escape(path))))
        }
        Locator::Nbd(uri) => {
            let address: NbdAddress = uri.parse().map_err(|_| refused())?;
            Ok(("network", nbd_source(&address)))
        }
    }
}

fn nbd_source(address: &NbdAddress) -> String {
    let host = match &address.server {
        Server::Unix(socket) => format!("transport=\"unix\" socket=\"{}\"", escape(socket.as_str())),
        Server::Tcp { host, port } => {
            let port = port.as_ref().map(|port| format!(" port=\"{port}\"")).unwrap_or_default();
            format!("name=\"{}\"{port}", escape(host.as_str()))
        }
    };
    let tls = if address.tls { " tls=\"yes\"" } else { "" };
    let export = escape(address.export.as_str());
    format!("<source protocol=\"nbd\" name=\"{export}\"{tls}><host {host}/></source>")
}
