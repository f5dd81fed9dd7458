//! Names of logical volumes: those that a volume may have, those that this program gives, and how
//! paths spell them.

use crate::image::backing::normal;
use crate::{RemovalId, StorageError, VolumeName};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use uuid::Uuid;

/// Everything that is no volume (any more) but this program's begins like this.
const OWN: &str = "livemerge.";
const NEW: &str = "livemerge.new.";
const REMOVED: &str = "livemerge.removed.";
/// LVM has them for itself (lvm(8)).
const RESERVED_STARTS: [&str; 2] = ["snapshot", "pvmove"];
const RESERVED_PARTS: [&str; 18] = [
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_iorig", "_imeta", "_mimage", "_mlog",
    "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_tpool", "_vdata", "_vorigin", "_wcorig",
];
/// The longest name of a device-mapper's device.
const MAX_DEVICE_NAME: usize = 127;

/// A volume group's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupName(String);

impl FromStr for GroupName {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Self, StorageError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
        let is_name = (1..=63).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-')
            && ![".", ".."].contains(&text);
        if is_name {
            return Ok(Self(text.to_owned()));
        }
        let text = format!("{text:?} is no name of a volume group");
        Err(StorageError::Invalid(text))
    }
}

/// What a logical volume of this program's is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// A volume.
    Volume(VolumeName),
    /// A volume that is being made, or was when its maker died.
    New,
    /// A condemned volume.
    Removed(RemovalId),
    /// None of them.
    Unknown,
}

impl Role {
    pub(super) fn of(name: &str) -> Self {
        if let Some(id) = name.strip_prefix(REMOVED) {
            return id.parse().map_or(Self::Unknown, Self::Removed);
        }
        if name.starts_with(OWN) {
            return if name.starts_with(NEW) {
                Self::New
            } else {
                Self::Unknown
            };
        }
        name.parse().map_or(Self::Unknown, Self::Volume)
    }
}

/// The name of a volume that is being made.
pub(super) fn new(id: Uuid) -> String {
    format!("{NEW}{id}")
}

/// The name of a condemned volume.
pub(super) fn removed(id: RemovalId) -> String {
    format!("{REMOVED}{id}")
}

impl GroupName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a logical volume's node is while it is active.
    pub(super) fn path(&self, volume: &str) -> PathBuf {
        self.dir().join(volume)
    }

    /// The directory that relative names in a header start from.
    pub(super) fn dir(&self) -> PathBuf {
        Path::new("/dev").join(&self.0)
    }

    /// # Errors
    /// `Invalid` for what LVM, or this program, does not let a volume be called.
    pub(super) fn check(&self, name: &VolumeName) -> Result<(), StorageError> {
        let text = name.as_str();
        let reserved = RESERVED_STARTS.iter().any(|start| text.starts_with(start))
            || RESERVED_PARTS.iter().any(|part| text.contains(part));
        let why = if text.starts_with(OWN) {
            "begins as the names of volumes that are being made or removed"
        } else if reserved {
            "is reserved by LVM"
        } else if self.device_name(text).len() > MAX_DEVICE_NAME {
            "is too long for a logical volume"
        } else {
            return Ok(());
        };
        Err(StorageError::Invalid(format!("the name {name} {why}")))
    }

    /// The name of the device, in which hyphens of the two names are doubled.
    pub(super) fn device_name(&self, volume: &str) -> String {
        let doubled = |name: &str| name.replace('-', "--");
        format!("{}-{}", doubled(&self.0), doubled(volume))
    }

    /// The volume whose device has this name.
    pub(super) fn volume_of_device(&self, device: &str) -> Option<String> {
        let prefix = self.device_name("");
        let volume = device.strip_prefix(&prefix)?.replace("--", "-");
        // Only a name that is spelled as the device-mapper does: `a-b` is a layer of another volume.
        (self.device_name(&volume) == device && !volume.is_empty()).then_some(volume)
    }

    /// The name within this group that a path spells, as `/dev/VG/NAME`, `/dev/mapper/VG-NAME` or
    /// `/dev/disk/by-id/dm-name-VG-NAME`.
    pub(super) fn spelled(&self, path: &Path) -> Option<String> {
        let path = normal(path);
        let by_id = path.strip_prefix("/dev/disk/by-id").ok();
        if let Some(device) = by_id.and_then(|name| name.to_str()?.strip_prefix("dm-name-")) {
            return self.volume_of_device(device);
        }
        let mut parts = path.strip_prefix("/dev").ok()?.components();
        let (dir, name) = (parts.next()?, parts.next()?);
        let (Component::Normal(dir), Component::Normal(name)) = (dir, name) else {
            return None;
        };
        let name = parts.next().is_none().then(|| name.to_str()).flatten()?;
        if dir == self.0.as_str() {
            return Some(name.to_owned());
        }
        (dir == "mapper")
            .then(|| self.volume_of_device(name))
            .flatten()
    }

    /// The path as this group spells it, where it spells it at all.
    pub(super) fn canonical(&self, path: &Path) -> PathBuf {
        self.spelled(path)
            .map_or_else(|| normal(path), |name| self.path(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group() -> GroupName {
        "vg-0".parse().unwrap()
    }

    #[test]
    fn a_group_is_called_as_lvm_allows() {
        for bad in ["", ".", "..", "-vg", "a/b", "a b", "--help", "vg\n"] {
            let refused = bad.parse::<GroupName>();
            assert!(matches!(refused, Err(StorageError::Invalid(_))), "{bad}");
        }
        assert_eq!("vg-0".parse::<GroupName>().unwrap().as_str(), "vg-0");
    }

    #[test]
    fn names_that_lvm_or_this_program_has_for_itself_are_refused() {
        let long = "x".repeat(122);
        for bad in [
            "livemerge.new.x",
            "livemerge.",
            "snapshot1",
            "pvmove0",
            "a_tdata",
            "x_mimage_0",
            &long,
            &"-x".repeat(50).replacen('-', "x", 1),
        ] {
            let name: VolumeName = bad.parse().unwrap();
            assert!(
                matches!(group().check(&name), Err(StorageError::Invalid(_))),
                "{bad}"
            );
        }
        for good in ["a.qcow2", "livemerge", "my-snapshot", &long[..121]] {
            group().check(&good.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_name_says_what_a_logical_volume_is() {
        let id: RemovalId = "6f6f4b66-7a0f-4a8c-9d0e-1d7c7c5b4a01".parse().unwrap();
        assert_eq!(Role::of(&removed(id)), Role::Removed(id));
        assert_eq!(Role::of(&new(Uuid::from_u128(7))), Role::New);
        assert_eq!(Role::of("a"), Role::Volume("a".parse().unwrap()));
        for strange in ["livemerge.removed.x", "livemerge.other", "a b", ""] {
            assert_eq!(Role::of(strange), Role::Unknown, "{strange}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_is_one_name() {
        for spelled in [
            "/dev/vg-0/a-b",
            "/dev/vg-0/../vg-0/./a-b",
            "/dev/mapper/vg--0-a--b",
            "/dev/disk/by-id/dm-name-vg--0-a--b",
        ] {
            let found = group().spelled(Path::new(spelled));
            assert_eq!(found.as_deref(), Some("a-b"), "{spelled}");
        }
        for other in [
            "/dev/vg-0",
            "/dev/vg-0/a/b",
            "/dev/vg/0-a",
            "/dev/mapper/vg--0-a-real",
            "/dev/mapper/vg-0-a",
            "/dev/disk/by-id/dm-name-vg-0-a",
            "dev/vg-0/a",
            "/",
            "",
        ] {
            assert_eq!(group().spelled(Path::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_device_leads_back_to_its_volume(name in "[a-z+_.-]{1,40}") {
            let device = group().device_name(&name);
            prop_assert_eq!(group().volume_of_device(&device), Some(name));
        }

        #[test]
        fn no_path_makes_it_panic(path in ".{0,60}") {
            let _ = group().spelled(Path::new(&path));
            let _ = Role::of(&path);
        }
    }
}
