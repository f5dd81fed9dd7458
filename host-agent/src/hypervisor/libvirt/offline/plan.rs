//! What an offline job works on, looked at before anything is touched, and taken.

use std::io;
use std::path::Path;
use std::sync::Arc;

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::{ImageHead, ImageLock, Locator};
use virt::domain::Domain;

use super::Answer;
use super::commit::Image;
use crate::hypervisor::libvirt::calls::{disk_of, position, refused, supported, told};
use crate::hypervisor::libvirt::connection::Connection;
use crate::hypervisor::libvirt::headers::{self, Missing};
use crate::hypervisor::libvirt::reading::present;
use crate::hypervisor::xml::{Definition, Disk, DiskLayer, Source};
use crate::hypervisor::{HypervisorError, JobOrder};

/// What an offline job works on.
pub(super) struct Plan {
    pub(super) vm: VmId,
    pub(super) disk: DiskTarget,
    /// The image that is kept, and those that are removed, oldest first.
    pub(super) images: Vec<Image>,
    /// On all of them, in the same order.
    pub(super) locks: Arc<[ImageLock]>,
    /// Size of the youngest image as a guest sees it.
    pub(super) virtual_bytes: u64,
}

impl Plan {
    /// Looks, and takes the images' locks.
    pub(super) fn make(libvirt: &Connection, vm: VmId, order: &JobOrder) -> Answer<Self> {
        let domain = libvirt.domain(vm)?;
        let mut now = shut_off(&domain)?;
        headers::complete_all(&mut now, Missing::Unknown)?;
        let disk = supported(disk_of(&now, &order.disk)?)?;
        let images = images(disk, order)?;
        let locks = images.iter().map(|image| lock(&order.disk, image.path()));
        let locks = locks.collect::<Answer<_>>()?;
        // Only now nobody changes it any more.
        let head = images
            .last()
            .and_then(|image| Some((image.path()?, image.format)));
        let head = head.map(|(path, format)| ImageHead::read(path, Some(format)));
        let head = head.ok_or_else(|| refused(&order.disk, "has no image to merge"))?;
        let head = head.map_err(|error| HypervisorError::Unknown(error.to_string()))?;
        Ok(Self {
            vm,
            disk: order.disk.clone(),
            images,
            locks,
            virtual_bytes: head.virtual_bytes,
        })
    }

    pub(super) fn kept(&self) -> &Image {
        &self.images[0]
    }

    /// Oldest first.
    pub(super) fn removed(&self) -> Vec<Locator> {
        let removed = self.images[1..].iter();
        removed.map(|image| image.locator.clone()).collect()
    }
}

/// The definition of a machine that is shut off, and whose next start it is that counts.
pub(super) fn shut_off(domain: &Domain) -> Answer<Definition> {
    let now = present(domain)?;
    let refused = |why: &str| Err(HypervisorError::Refused(format!("{} {why}", now.name)));
    if now.live {
        return refused("runs");
    }
    // The saved guest goes on from the images that it had open, whatever the definition says.
    if told(domain.has_managed_save(0))? {
        return refused("has a saved state: start it, or remove that");
    }
    Ok(now)
}

/// The images from the base to the top, base first.
fn images(disk: &Disk, order: &JobOrder) -> Answer<Vec<Image>> {
    let gone = || refused(&order.disk, "no longer has the layers of the merge");
    let base = order.base.as_ref().and_then(|base| position(disk, base));
    let (base, top) = (
        base.ok_or_else(gone)?,
        position(disk, &order.top).ok_or_else(gone)?,
    );
    if base >= top {
        let why = "has the layers of the merge in another order";
        return Err(refused(&order.disk, why));
    }
    let layers = disk.chain[base..=top].iter();
    layers.map(|layer| image(&order.disk, layer)).collect()
}

fn image(disk: &DiskTarget, layer: &DiskLayer) -> Answer<Image> {
    match (&layer.source, layer.format, &layer.data_store) {
        (Source::Volume(locator @ (Locator::File(_) | Locator::Block(_))), Some(format), None) => {
            Ok(Image {
                locator: locator.clone(),
                format,
            })
        }
        (_, None, _) => Err(refused(
            disk,
            "has a layer whose format is not written down",
        )),
        _ => Err(refused(disk, "has a layer that only QEMU can merge")),
    }
}

/// Takes an image, so that no process of QEMU's opens it.
pub(super) fn lock(disk: &DiskTarget, image: Option<&Path>) -> Answer<ImageLock> {
    let path = image.ok_or_else(|| refused(disk, "has a layer that has no lock"))?;
    let why = |why: &str| format!("{}: {why}", path.display());
    match ImageLock::take(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(HypervisorError::Refused(why("a process has it open"))),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                HypervisorError::Refused(why(&error.to_string()))
            }
            _ => HypervisorError::Unknown(why(&error.to_string())),
        }),
    }
}
