//! What the kernel has of an active volume: its device may be smaller than LVM says, when a change was
//! cut short between the group's metadata and the device.

use super::report::{Group, Logical};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

/// Where the kernel shows its devices, by their numbers.
pub(super) const SYS: &str = "/sys/dev/block";
/// Before the identities of a group and of a volume, 32 letters each.
const LVM: &str = "LVM-";
/// The kernel counts in them, whatever the device's own are.
const SECTOR: u64 = 512;

/// The bytes of a volume that can be written.
pub(super) fn usable_bytes(volume: &Logical) -> u64 {
    usable_within(Path::new(SYS), volume)
}

/// The group with what is active by now, as it is shown there. Whether that is open cannot be told, so it is.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn as_active(sys: &Path, mut group: Group) -> io::Result<Group> {
    let devices = devices(sys)?;
    for volume in &mut group.volumes {
        let plain = volume.identity.as_str().replace('-', "");
        volume.device = devices.get(&plain).copied();
        volume.open = volume.device.is_some();
    }
    Ok(group)
}

/// The numbers of the devices that are logical volumes, by their identity without its dashes.
fn devices(sys: &Path) -> io::Result<HashMap<String, (u32, u32)>> {
    let mut devices = HashMap::new();
    for entry in fs::read_dir(sys)? {
        let entry = entry?;
        let uuid = match fs::read_to_string(entry.path().join("dm/uuid")) {
            Ok(uuid) => uuid,
            // Not of the device mapper, or gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let identity = uuid
            .trim()
            .strip_prefix(LVM)
            .and_then(|both| both.get(32..));
        let number = entry.file_name();
        let number = number.to_str().and_then(|number| number.split_once(':'));
        if let (Some(identity), Some((major, minor))) = (identity, number)
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices.insert(identity.to_owned(), (major, minor));
        }
    }
    Ok(devices)
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

    #[test]
    fn what_is_active_by_now_is_known_by_its_identity() {
        let sys = tempfile::tempdir().unwrap();
        let group = "8Z6ddVC9vF0oC8FurFDl2YtbGeI2ME9Y";
        for (number, uuid) in [
            ("8:0", None),
            ("253:0", Some(format!("CRYPT-LUKS2-{group}"))),
            (
                "253:1",
                Some(format!("LVM-{group}prAPotq5QCuMIocKZzOHeY57DuM5sxTL")),
            ),
            (
                "253:2",
                Some(format!("LVM-{group}NUeP99RdY1DMXBojmr9kRJc9ypFY0sz1-real")),
            ),
        ] {
            let dm = sys.path().join(number).join("dm");
            fs::create_dir_all(&dm).unwrap();
            if let Some(uuid) = uuid {
                fs::write(dm.join("uuid"), format!("{uuid}\n")).unwrap();
            }
        }
        let volume = |identity: &str, device| Logical {
            name: identity.to_owned(),
            identity: identity.parse().unwrap(),
            tags: vec![],
            bytes: 1,
            origin: None,
            device,
            open: false,
            autoactivates: true,
            pieces: None,
        };
        let seen = Group {
            change: 1,
            seen_before: true,
            free_bytes: 0,
            total_bytes: 0,
            extent_bytes: 1,
            missing: 0,
            volumes: vec![
                volume("prAPot-q5QC-uMIo-cKZz-OHeY-57Du-M5sxTL", None),
                volume("NUeP99-RdY1-DMXB-ojmr-9kRJ-c9yp-FY0sz1", None),
                volume("Xsx7fZ-oKab-1X8i-73bi-ImfD-f3DK-JsV6ZJ", Some((253, 1))),
            ],
        };
        let now = as_active(sys.path(), seen.clone()).unwrap();
        let active: Vec<_> = now.volumes.iter().map(|it| (it.device, it.open)).collect();
        assert_eq!(
            active,
            [(Some((253, 1)), true), (None, false), (None, false)]
        );
        as_active(&sys.path().join("none"), seen).unwrap_err();
    }
}
