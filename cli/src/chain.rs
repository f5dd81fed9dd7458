//! Draws the chain of a disk, base first, and says which snapshot each layer froze.
//!
//! ```text
//!   vda
//!   base     vda-base     qcow2  10.00 GiB  1.20 GiB  snapshot before-upgrade
//!   └─▶      vda-0192f0c1  qcow2  10.00 GiB  3.50 MiB  active: the guest writes here
//! ```

use crate::output::text::{escape, or_dash, size, word};
use crate::output::{columns, snapshot_state};
use livemerge_proto::v1;

/// A layer and what is known of it beside the host's word.
pub(crate) struct Layer<'a> {
    pub(crate) layer: &'a v1::ChainLayer,
    /// The guest writes it.
    pub(crate) active: bool,
    /// Those whose point in time it holds.
    pub(crate) snapshots: Vec<&'a v1::Snapshot>,
}

/// The layers, base first.
pub(crate) fn layers<'a>(
    chain: &'a v1::VolumeChain,
    snapshots: &'a [v1::Snapshot],
) -> impl Iterator<Item = Layer<'a>> {
    let last = chain.layers.len().saturating_sub(1);
    chain.layers.iter().enumerate().map(move |(index, layer)| {
        let froze = |snapshot: &&v1::Snapshot| {
            let mut disks = snapshot.disks.iter();
            // A layer outside the storage domains has no volume, as a disk still to be frozen.
            layer.volume.is_some()
                && disks.any(|disk| disk.disk == chain.disk && disk.volume == layer.volume)
        };
        let snapshots = snapshots.iter().filter(froze).collect();
        Layer {
            layer,
            active: index == last,
            snapshots,
        }
    })
}

/// A disk without a chain that is told, as text.
pub(crate) fn unsupported(disk: &v1::UnsupportedDisk) -> String {
    let (disk, why) = (escape(&disk.disk), escape(&disk.why));
    format!("{disk}  (no snapshot can be taken or deleted: it {why})")
}

/// The chain as text, one line for the disk and one a layer. Nothing in it steers a terminal.
pub fn draw(chain: &v1::VolumeChain, snapshots: &[v1::Snapshot]) -> String {
    let job = if chain.job_running {
        "  (a block job runs)"
    } else {
        ""
    };
    let rows = layers(chain, snapshots)
        .enumerate()
        .map(|(index, layer)| row(index, &layer));
    let kept = match chain.libvirt_snapshots.as_slice() {
        [] => String::new(),
        names => format!("  (libvirt's own snapshots: {})", escape(&names.join(", "))),
    };
    format!("{}{job}{kept}\n{}", escape(&chain.disk), columns(rows))
}

fn row(index: usize, layer: &Layer<'_>) -> Vec<String> {
    let (branch, observed) = (branch(index), layer.layer);
    let name = observed
        .volume
        .as_ref()
        .map_or(&observed.locator, |volume| &volume.name);
    vec![
        branch,
        or_dash(name),
        word(observed.format().as_str_name(), "VOLUME_FORMAT_"),
        size(observed.virtual_bytes),
        size(observed.allocated_bytes),
        note(layer),
    ]
}

/// Deep chains stop moving to the right, so that the columns stay on the screen.
pub(crate) fn branch(index: usize) -> String {
    const DEEPEST: usize = 8;
    match index {
        0 => "base".to_owned(),
        _ => format!("{}└─▶", "  ".repeat(index.min(DEEPEST) - 1)),
    }
}

fn note(
    Layer {
        layer,
        active,
        snapshots,
    }: &Layer<'_>,
) -> String {
    let frozen = snapshots.iter().map(|snapshot| match snapshot.state() {
        v1::SnapshotState::Ready => format!("snapshot {}", escape(&snapshot.name)),
        _ => format!(
            "snapshot {} ({})",
            escape(&snapshot.name),
            snapshot_state(snapshot)
        ),
    });
    let mut notes: Vec<String> = frozen.collect();
    if *active {
        notes.push("active: the guest writes here".to_owned());
    }
    if !layer.shared_with.is_empty() {
        let others: Vec<String> = layer
            .shared_with
            .iter()
            .map(|other| escape(other))
            .collect();
        notes.push(format!("shared with {}", others.join(", ")));
    }
    if layer.encrypted {
        notes.push("encrypted".to_owned());
    }
    if !layer.dirty_bitmaps.is_empty() {
        let bitmaps = escape(&layer.dirty_bitmaps.join(", "));
        notes.push(format!("keeps dirty bitmaps {bitmaps}"));
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_chain_is_drawn() {
        let chain = v1::VolumeChain {
            disk: "vda".to_owned(),
            ..Default::default()
        };
        assert_eq!(draw(&chain, &[]).trim_end(), "vda");
    }

    #[test]
    fn a_disk_without_a_chain_says_why() {
        let disk = v1::UnsupportedDisk {
            disk: "vdb".to_owned(),
            why: "has a layer of the kind rbd\u{1b}[31m".to_owned(),
            locators: vec![],
        };
        let drawn = unsupported(&disk);
        assert!(drawn.starts_with("vdb  (no snapshot"), "{drawn}");
        assert!(drawn.contains("it has a layer of the kind rbd"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "it steers no terminal");
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(branch(8), branch(80));
        assert_ne!(branch(7), branch(8));
    }
}
