//! Whether a backing name that libvirt writes into a header can stay relative.
//!
//! libvirt joins the names that are written in the headers between the layer above and the base:
//!
//! ```text
//!   above ──"../y/top"──▶ top ──"mid"──▶ mid ──"base"──▶ base       "../y/base"
//!   above ──"../y/top"──▶ top ──"../y/base"──▶ base                 "../y/../y/base"
//! ```
//!
//! It never shortens them, so a chain that is merged again and again would get longer names each
//! time. Such a name is written as an absolute path instead, which stays as long as it is.

use std::path::{Component, Path};

use livemerge_storage::{Format, ImageHead, Locator};

use crate::hypervisor::xml::{Disk, DiskLayer};

/// Whether the header of the layer at `above` shall name the one at `base` by a relative name, as it
/// names the one below it now.
pub(super) fn stays_relative(disk: &Disk, above: usize, base: usize) -> bool {
    let layers = disk.chain.get(base + 1..=above).unwrap_or_default();
    let written: Option<Vec<_>> = layers.iter().rev().map(written).collect();
    let joined = written.as_deref().and_then(joined);
    if joined.is_none() {
        let target = &disk.target;
        tracing::debug!(%target, ?written, "a backing name is written as an absolute path");
    }
    joined.is_some()
}

/// The backing name in a layer's header.
fn written(layer: &DiskLayer) -> Option<String> {
    let (Locator::File(path) | Locator::Block(path)) = layer.source.locator()? else {
        return None;
    };
    let head = ImageHead::read(path, Some(Format::Qcow2));
    head.ok()?.backing
}

/// What libvirt would write, from the names of the layer above down to the base. `None` when that
/// would be no relative name, or a longer one than need be.
fn joined(names: &[String]) -> Option<String> {
    let mut joined = String::new();
    for name in names {
        if name.is_empty() || name.starts_with('/') || name.contains(':') {
            return None;
        }
        let dir = joined.rfind('/').map_or(0, |slash| slash + 1);
        joined.truncate(dir);
        joined.push_str(name);
    }
    let mut down = false;
    let shortest = Path::new(&joined).components().all(|part| match part {
        Component::ParentDir => !down,
        Component::Normal(_) => {
            down = true;
            true
        }
        _ => false,
    });
    (shortest && !joined.is_empty()).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_as_libvirt_joins_them_while_they_stay_short() {
        let all: [(&[&str], Option<&str>); 10] = [
            (&["b", "a"], Some("a")),
            (&["c", "b", "a"], Some("a")),
            (&["../y/b", "a"], Some("../y/a")),
            (&["y/b", "z/a"], Some("y/z/a")),
            (&["../y/b", "../y/a"], None),
            (&["./b", "a"], None),
            (&["b", "/i/a"], None),
            (&["/i/b", "a"], None),
            (&["b", "json:{}"], None),
            (&[], None),
        ];
        for (names, expected) in all {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            assert_eq!(joined(&names).as_deref(), expected, "{names:?}");
        }
    }
}
