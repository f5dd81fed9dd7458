//! What machines start from next, where it outlives the host's power.
//!
//! libvirt writes a definition to a new file, flushes that, and gives it the old one's name. The name is in
//! the host's memory then, for seconds: a host that loses its power has the definition of before. On the
//! file system of the images a later flush would carry it along; definitions may lie on another one.
//!
//! So it is written out before anything is done that is right only with the new one: a guest writes to
//! the volume that it was switched to, a volume is removed that the old one names.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use livemerge_proto::ids::DiskTarget;
use virt::domain::Domain;
use virt_sys::{VIR_DOMAIN_XML_INACTIVE, VIR_DOMAIN_XML_SECURE};

use super::calls::{Answer, disk_of, position, told};
use super::connection::Connection;
use super::mend::root;
use super::offline::define;
use crate::hypervisor::xml::{Definition, with_overlays};
use crate::hypervisor::{HypervisorError, Overlay};

/// Where libvirt's daemon keeps them.
const SYSTEM: &str = "/etc/libvirt/qemu";

impl Connection {
    /// Writes the names of all definitions out. Where they are out of this process's sight, as in a
    /// container that is not shown them, nothing can be done.
    ///
    /// # Errors
    /// When they are in sight, and it cannot be told whether they are written out.
    pub(super) fn sync_definitions(&self) -> io::Result<()> {
        let uri = self.connect().uri().map_err(io::Error::other)?;
        let Some(dir) = directory(&uri) else {
            return Ok(());
        };
        match File::open(&dir).and_then(|dir| dir.sync_all()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    /// The same, for what is right only once they are: also where nothing had to be changed, as an earlier
    /// try may have changed it and not come further.
    pub(super) fn written_out(&self) -> Answer<()> {
        let synced = self.sync_definitions();
        synced.map_err(|error| HypervisorError::Unknown(error.to_string()))
    }
}

/// Lets a running machine start from overlays that it is about to write: once it does, a definition that
/// came too late would have it start without what it wrote. Until it does, they read as what lies below.
/// Returns the definition of before; `None` when it stays as it is: of a machine that is defined only while
/// it runs, of disks that start from something else than what is written now, or of a kind of source that
/// only libvirt can write.
///
/// # Errors
/// When it cannot be changed or written out. It is as before then.
pub(super) fn name_first(
    libvirt: &Connection,
    domain: &Domain,
    now: &Definition,
    overlays: &[&Overlay],
) -> Answer<Option<String>> {
    if !told(domain.is_persistent())? {
        return Ok(None);
    }
    let before = told(domain.xml_desc(VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE))?;
    let next = Definition::parse(&before);
    let next = next.map_err(|error| HypervisorError::Unknown(error.to_string()))?;
    let overlays = overlays.iter().copied();
    let overlays = overlays.filter(|overlay| starts_from_active(now, &next, &overlay.disk));
    let overlays: Vec<_> = overlays.collect();
    if overlays.is_empty() {
        libvirt.written_out()?;
        return Ok(None);
    }
    let changed = match with_overlays(&before, &overlays) {
        Ok(changed) => changed,
        Err(error) => {
            // libvirt knows more kinds of sources, and writes it when the guest writes the overlays.
            tracing::info!(%error, "a machine's definition cannot be written ahead of its overlays");
            return Ok(None);
        }
    };
    match define(libvirt, &changed) {
        Ok(()) => Ok(Some(before)),
        Err(error) => {
            name_again(libvirt, domain, Some(&before));
            Err(error)
        }
    }
}

/// Not so when an earlier try of the same order has come so far, either.
fn starts_from_active(now: &Definition, next: &Definition, disk: &DiskTarget) -> bool {
    let (Ok(now), Ok(next)) = (disk_of(now, disk), disk_of(next, disk)) else {
        return false;
    };
    let active = now.chain.last().and_then(|layer| layer.source.locator());
    active.is_some_and(|active| position(next, active).map(|at| at + 1) == Some(next.chain.len()))
}

/// The definition of before holds again: the machine does not write the overlays. If this does not come
/// about, the definition is set right before the overlays are taken away.
pub(super) fn name_again(libvirt: &Connection, domain: &Domain, before: Option<&str>) {
    // One that is not defined any more would be again.
    let again = |before| match told(domain.is_persistent()) {
        Ok(true) => define(libvirt, before),
        Ok(false) | Err(HypervisorError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    };
    if let Some(Err(error)) = before.map(again) {
        // It starts from overlays that read as what lies below them.
        tracing::warn!(%error, "a machine's definition goes on naming overlays that it does not write");
    }
}

/// `None` for a libvirt of another host, or one that is somebody's own.
fn directory(uri: &str) -> Option<PathBuf> {
    if let Some(root) = root(uri) {
        return Some(root.join("etc/qemu"));
    }
    let local = uri
        .strip_prefix("qemu:///")
        .or_else(|| uri.strip_prefix("qemu+unix:///"))?;
    let driver = local.split('?').next()?;
    (driver == "system").then(|| Path::new(SYSTEM).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_this_host_are_found() {
        let of = |uri| directory(uri).map(|dir| dir.display().to_string());
        assert_eq!(of("qemu:///embed?root=/a").as_deref(), Some("/a/etc/qemu"));
        assert_eq!(of("qemu:///system").as_deref(), Some(SYSTEM));
        assert_eq!(of("qemu+unix:///system?socket=/s").as_deref(), Some(SYSTEM));
        assert_eq!(of("qemu:///session"), None);
        assert_eq!(of("qemu+ssh://host/system"), None);
    }
}
