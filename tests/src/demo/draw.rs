//! Draws a chain for people.

use livemerge_proto::v1;

/// One line a layer, base first.
pub(super) fn chain(chain: &v1::VolumeChain, snapshots: &[v1::Snapshot]) -> Vec<String> {
    let last = chain.layers.len().saturating_sub(1);
    let line = |(index, layer): (usize, &v1::ChainLayer)| {
        let corner = if index == 0 { "base  " } else { "  └─▶ " };
        let name = layer
            .volume
            .as_ref()
            .map_or(layer.locator.as_str(), |volume| volume.name.as_str());
        let frozen = snapshots.iter().find(|snapshot| {
            snapshot
                .disks
                .iter()
                .any(|disk| disk.disk == chain.disk && disk.volume == layer.volume)
        });
        let note = match frozen {
            Some(snapshot) => format!("snapshot {}", snapshot.name),
            None if index == last => "active: the guest writes here".to_owned(),
            None => String::new(),
        };
        format!(
            "{}{corner}{name:<44} {:>9}   {note}",
            "  ".repeat(index),
            size(layer.allocated_bytes)
        )
    };
    chain.layers.iter().enumerate().map(line).collect()
}

/// Bytes for people.
pub(super) fn size(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
