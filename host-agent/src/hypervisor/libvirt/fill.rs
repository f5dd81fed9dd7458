//! How far the layers of a running machine are written, out of libvirt's statistics.
//!
//! ```text
//!   block.0.name = vda   block.0.path = /dev/vg/top    block.0.allocation = 4128768
//!   block.1.name = vda   block.1.path = /dev/vg/base   block.1.allocation = 0   block.1.threshold = …
//! ```
//!
//! `allocation` of an image on a block device is where QEMU has written last, since it opened it:
//! nothing of what it never wrote.

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use std::collections::BTreeMap;
use virt::domain::Domain;

use super::calls::{Answer, disk_of, indexed, position, refused, told};
use super::connection::Connection;
use super::reading::{running, stopped_by_error};
use crate::hypervisor::ffi::{self, Stat};
use crate::hypervisor::{Fill, LayerFill};

impl Connection {
    pub(super) fn fill(&self, vm: VmId) -> Answer<Fill> {
        let domain = self.domain(vm)?;
        let stats = told(ffi::block_stats(&domain))?;
        let lacking = match stopped_by_error(&domain)? {
            true => told(ffi::disks_without_room(&domain))?,
            false => Vec::new(),
        };
        // A disk that has no such name is none that is known here.
        let lacking = lacking.iter().filter_map(|disk| disk.parse().ok());
        Ok(Fill {
            layers: layers(&stats),
            lacks_room: lacking.collect(),
        })
    }

    pub(super) fn resume_if_lacks_room(&self, vm: VmId) -> Answer<()> {
        let domain = self.domain(vm)?;
        match stopped_by_error(&domain)? && lacks_room(&domain)? {
            true => told(domain.resume()).map(drop),
            false => Ok(()),
        }
    }

    pub(super) fn watch_fill(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        layer: &Locator,
        bytes: u64,
    ) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = running(&domain)?;
        let found = disk_of(&now, disk)?;
        let place = position(found, layer).ok_or_else(|| refused(disk, "has no such layer"))?;
        told(domain.set_block_threshold(&indexed(found, place)?, bytes, 0))
    }
}

/// Of a machine that stands still because of an error: whether that was want of room.
pub(super) fn lacks_room(domain: &Domain) -> Answer<bool> {
    Ok(!told(ffi::disks_without_room(domain))?.is_empty())
}

fn layers(stats: &BTreeMap<String, Stat>) -> Vec<LayerFill> {
    let Some(Stat::Number(count)) = stats.get("block.count") else {
        return Vec::new();
    };
    (0..*count)
        .filter_map(|number| layer(stats, number))
        .collect()
}

/// One that cannot be told is left out: it has no path of this host.
fn layer(stats: &BTreeMap<String, Stat>, number: u64) -> Option<LayerFill> {
    let field = |name: &str| stats.get(&format!("block.{number}.{name}"));
    let text = |name| match field(name)? {
        Stat::Text(text) => Some(text),
        Stat::Number(_) => None,
    };
    let bytes = |name| match field(name) {
        Some(Stat::Number(bytes)) => *bytes,
        _ => 0,
    };
    Some(LayerFill {
        disk: text("name")?.parse().ok()?,
        locator: Locator::Block(text("path")?.into()),
        written_to: bytes("allocation"),
        watched_at: bytes("threshold"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_says_how_far_it_is_written() {
        let text = |text: &str| Stat::Text(text.to_owned());
        let stats = [
            ("block.count", Stat::Number(3)),
            ("block.0.name", text("vda")),
            ("block.0.path", text("/dev/vg/top")),
            ("block.0.allocation", Stat::Number(4096)),
            ("block.0.threshold", Stat::Number(8192)),
            ("block.1.name", text("vda")),
            ("block.1.path", text("/dev/vg/base")),
            ("block.2.name", text("sda")),
        ];
        let stats = stats.map(|(name, stat)| (name.to_owned(), stat)).into();
        let layer = |path: &str, written_to, watched_at| LayerFill {
            disk: "vda".parse().unwrap(),
            locator: Locator::Block(path.into()),
            written_to,
            watched_at,
        };
        let expected = [
            layer("/dev/vg/top", 4096, 8192),
            layer("/dev/vg/base", 0, 0),
        ];
        assert_eq!(layers(&stats), expected);
        assert_eq!(layers(&BTreeMap::new()), []);
    }
}
