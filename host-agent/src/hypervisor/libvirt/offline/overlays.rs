//! Overlays for a machine that is shut off: one new definition for all of its disks.

use livemerge_storage::{ImageHead, Locator};
use virt::domain::Domain;

use super::Answer;
use super::plan::{lock, shut_off};
use super::relink::{define, next_start, no_start_begun, unchangeable};
use crate::hypervisor::libvirt::calls::{disk_of, position, refused, supported};
use crate::hypervisor::libvirt::connection::Connection;
use crate::hypervisor::libvirt::identity::Identity;
use crate::hypervisor::xml::with_overlays;
use crate::hypervisor::{HypervisorError, Overlay};

/// Puts existing volumes on top of the disks' active layers, all or none. The layers below are
/// locked until it is done: a machine that is started meanwhile is refused.
pub(in crate::hypervisor::libvirt) fn add(
    libvirt: &Connection,
    domain: &Domain,
    overlays: &[Overlay],
) -> Answer<()> {
    shut_off(domain)?;
    let (xml, next) = next_start(domain)?;
    let (mut missing, mut locks) = (Vec::new(), Vec::new());
    for overlay in overlays {
        let disk = supported(disk_of(&next, &overlay.disk)?)?;
        match position(disk, &overlay.locator) {
            // It was put there before, and the reply was lost.
            Some(place) if place + 1 == disk.chain.len() => continue,
            Some(_) => return Err(refused(&overlay.disk, "has the overlay below its top")),
            None => missing.push(overlay),
        }
        let below = disk.chain.last().and_then(|layer| layer.source.locator());
        let below = below.ok_or_else(|| refused(&overlay.disk, "has no volume to build on"))?;
        built_on(overlay, below)?;
        let path = match below {
            Locator::File(path) | Locator::Block(path) => Some(path.as_path()),
            Locator::Nbd(_) => None,
        };
        locks.push(lock(&overlay.disk, path)?);
    }
    if missing.is_empty() {
        return libvirt.written_out();
    }
    let changed = with_overlays(&xml, &missing).map_err(|error| unchangeable(&error))?;
    define(libvirt, &changed)?;
    no_start_begun(domain, |now| {
        let lacks = |overlay: &&Overlay| {
            let disk = now.disks.iter().find(|disk| disk.target == overlay.disk);
            disk.is_some_and(|disk| position(disk, &overlay.locator).is_none())
        };
        missing.iter().any(lacks)
    })
}

/// Without a guest nobody else would see that the overlay lies on something else.
fn built_on(overlay: &Overlay, below: &Locator) -> Answer<()> {
    let unknown = |error: &dyn std::error::Error| HypervisorError::Unknown(error.to_string());
    let head = match &overlay.locator {
        Locator::File(path) | Locator::Block(path) => ImageHead::read(path, None),
        Locator::Nbd(_) => return Err(refused(&overlay.disk, "cannot have an overlay over NBD")),
    };
    let parent = head.map_err(|error| unknown(&error))?.parent;
    let parent = parent
        .map(|parent| Identity::of(&parent.locator))
        .transpose();
    let (parent, below) = (
        parent.map_err(|error| unknown(&error))?,
        Identity::of(below).map_err(|error| unknown(&error))?,
    );
    if parent == Some(below) {
        return Ok(());
    }
    Err(refused(
        &overlay.disk,
        "writes to another volume than the overlay is built on",
    ))
}
