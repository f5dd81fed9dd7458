//! What the kernel has of an active volume: its device may be smaller than LVM says, when a change was
//! cut short between the group's metadata and the device.

use super::report::Logical;
use std::fs;
use std::path::Path;

const SYS: &str = "/sys/dev/block";
/// The kernel counts in them, whatever the device's own are.
const SECTOR: u64 = 512;

/// The bytes of a volume that can be written.
pub(super) fn usable_bytes(volume: &Logical) -> u64 {
    usable_within(Path::new(SYS), volume)
}

fn usable_within(sys: &Path, volume: &Logical) -> u64 {
    let device = volume.device.and_then(|(major, minor)| {
        let size = fs::read_to_string(sys.join(format!("{major}:{minor}/size"))).ok()?;
        size.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
    });
    // Whatever else the kernel says, it has no more than LVM gives.
    device.map_or(volume.bytes, |bytes| bytes.min(volume.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_lags_behind_counts_as_it_is() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir(sys.path().join("253:7")).unwrap();
        let size = sys.path().join("253:7/size");
        let mut volume = Logical {
            name: "a".to_owned(),
            identity: "x".parse().unwrap(),
            tags: vec![],
            bytes: 8 << 20,
            origin: None,
            device: Some((253, 7)),
            open: true,
            autoactivates: true,
            pieces: None,
        };
        for (sectors, usable) in [("8192\n", 4 << 20), ("16384", 8 << 20), ("99999", 8 << 20)] {
            fs::write(&size, sectors).unwrap();
            assert_eq!(usable_within(sys.path(), &volume), usable);
        }
        volume.device = Some((253, 8));
        assert_eq!(usable_within(sys.path(), &volume), 8 << 20);
        volume.device = None;
        assert_eq!(usable_within(sys.path(), &volume), 8 << 20);
    }
}
