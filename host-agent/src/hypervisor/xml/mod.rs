//! Reads libvirt's definitions of machines, and changes their disks: pure functions over text.
//!
//! ```text
//!   <disk>                            base ◀─────────────────────────── active
//!     <source index='5'/>             chain[0]        ...         chain[n - 1]
//!     <backingStore index='6'>        vda[8]  ◀─ vda[7]  ◀─ vda[6]  ◀─  vda[5]
//!       <backingStore index='7'> ...
//! ```
//!
//! What is not understood is never left out of a chain: it stands there as [`Source::Elsewhere`]
//! or [`Source::Unresolved`], or the disk is [`Unreadable`].
//!
//! libvirt reads the headers of files and block devices, and says of each chain where it ends. It
//! reads none over NBD: such a chain is only known if the one who defined the machine wrote it
//! down to its end, `<backingStore/>`. Otherwise QEMU may have opened more than is written there.

mod disk;
mod mark;
mod redefine;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod tree;

pub(super) use disk::{Device, Disk, DiskLayer, Source};
pub(super) use mark::JobMark;
pub(super) use redefine::{Unchangeable, with_layers_below, with_overlays, without_layers};
pub(super) use snapshot::kept_snapshot;
pub(super) use source::{Unwritable, format_name, source_element};

use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use tree::Element;

/// A definition that cannot be read, or not completely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a machine's definition {0}")]
pub(super) struct Unreadable(String);

impl Unreadable {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn lacks(what: &str) -> Self {
        Self(format!("lacks {what}"))
    }
}

impl From<quick_xml::Error> for Unreadable {
    fn from(error: quick_xml::Error) -> Self {
        Self(format!("is not XML: {error}"))
    }
}

/// A machine as libvirt defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) id: VmId,
    pub(super) name: String,
    /// Whether this is the definition of a running QEMU, and not what the next one starts with.
    pub(super) live: bool,
    /// Every disk, CD-ROM and floppy that has a source.
    pub(super) disks: Vec<Disk>,
    /// Those of them that could not be read, or not completely.
    pub(super) unreadable: Vec<Unreadable>,
    /// What a running QEMU was asked to work for.
    jobs: Vec<JobMark>,
}

impl Definition {
    /// The merge that this very QEMU was last asked to work for, of a disk.
    pub(super) fn works_for(&self, disk: &DiskTarget) -> Option<MergeId> {
        let mark = self.jobs.iter().find(|mark| mark.disk == *disk)?;
        Some(mark.merge)
    }

    /// Reads a `<domain>`.
    pub(super) fn parse(xml: &str) -> Result<Self, Unreadable> {
        Self::read(xml, true)
    }

    /// Reads the `<domain>` of a machine that may be about to start: its chains are known as far as
    /// they are written down.
    pub(super) fn parse_starting(xml: &str) -> Result<Self, Unreadable> {
        Self::read(xml, false)
    }

    fn read(xml: &str, whole: bool) -> Result<Self, Unreadable> {
        let domain = Element::parse(xml)?;
        if domain.name != "domain" {
            return Err(Unreadable::lacks("<domain>"));
        }
        // Only a running machine has a number.
        let live = domain.attribute("id").is_some();
        let text = |name| domain.child(name).map(|child| child.text.trim());
        let id = text("uuid").and_then(|text| text.parse().ok());
        let devices = domain
            .children
            .iter()
            .filter(|child| child.name == "devices");
        let (mut disks, mut unreadable) = (Vec::new(), Vec::new());
        for disk in devices.flat_map(|devices| &devices.children) {
            if disk.name == "disk" {
                match Disk::parse(disk, live && whole) {
                    Ok(disk) => disks.extend(disk),
                    Err(error) => unreadable.push(error),
                }
            }
        }
        Ok(Self {
            id: id.ok_or_else(|| Unreadable::lacks("a UUID"))?,
            name: text("name")
                .ok_or_else(|| Unreadable::lacks("a name"))?
                .to_owned(),
            live,
            // Somebody may have copied a running machine's definition.
            jobs: if live {
                JobMark::all(&domain)
            } else {
                Vec::new()
            },
            disks,
            unreadable,
        })
    }
}
