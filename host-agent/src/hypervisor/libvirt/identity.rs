//! Whether two locators name the same thing, whatever way they are spelled.
//!
//! A logical volume has three names, a file may be reached through a link, and a definition that
//! is not ours uses any of them. What decides is what the file system has behind the name; of a
//! logical volume that is not active that is nothing, and its names decide.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};

use livemerge_storage::{Locator, NbdAddress};

/// What is behind a locator.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Device and inode of a file.
    File(u64, u64),
    /// Number of a block device.
    Device(u64),
    Nbd(String),
    /// There is nothing of that name.
    Nothing,
}

impl Identity {
    /// Looks behind a locator. Blocks.
    ///
    /// # Errors
    /// When it cannot be told what is there.
    pub(super) fn of(locator: &Locator) -> io::Result<Self> {
        match locator {
            Locator::File(path) | Locator::Block(path) => Self::of_path(path),
            Locator::Nbd(uri) => Ok(Self::Nbd(
                uri.parse::<NbdAddress>()
                    .map_or_else(|_| uri.clone(), |address| address.to_string()),
            )),
        }
    }

    fn of_path(path: &Path) -> io::Result<Self> {
        match path.metadata() {
            Ok(found) if found.file_type().is_block_device() => Ok(Self::Device(found.rdev())),
            Ok(found) => Ok(Self::File(found.dev(), found.ino())),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(Self::Nothing)
            }
            Err(error) => Err(error),
        }
    }
}

/// The name that the device-mapper gives the logical volume which a locator spells, active or not:
/// `/dev/VG/NAME`, `/dev/mapper/VG-NAME` and `/dev/disk/by-id/dm-name-VG-NAME` are one.
pub(super) fn mapped(locator: &Locator) -> Option<String> {
    let (Locator::File(path) | Locator::Block(path)) = locator else {
        return None;
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let doubled = |name: &str| name.replace('-', "--");
    match parts.as_slice() {
        ["dev", "mapper", name] => Some((*name).to_owned()),
        ["dev", "disk", "by-id", link] => link.strip_prefix("dm-name-").map(Into::into),
        ["dev", group, name] if path.is_absolute() => {
            Some(format!("{}-{}", doubled(group), doubled(name)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_a_logical_volume_are_one() {
        let of = |path: &str| mapped(&Locator::Block(path.into()));
        for path in [
            "/dev/vg-0/a-b",
            "/dev//vg-0/../vg-0/a-b",
            "/dev/mapper/vg--0-a--b",
            "/dev/disk/by-id/dm-name-vg--0-a--b",
        ] {
            assert_eq!(of(path).as_deref(), Some("vg--0-a--b"), "{path}");
        }
        for path in [
            "/dev/vda",
            "/images/vg-0/a-b",
            "dev/vg/a",
            "/dev/disk/by-id/x",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_ne!(of("/dev/vg/0-a"), of("/dev/vg-0/a"));
    }

    #[test]
    fn a_link_and_its_file_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let [a, b] = [&file, &link].map(|path| Identity::of(&Locator::File(path.clone())).unwrap());
        assert!(matches!(a, Identity::File(..)));
        assert_eq!(a, b);
        let missing = Identity::of(&Locator::Block(dir.path().join("c"))).unwrap();
        assert_eq!(missing, Identity::Nothing);
        let too_long = Locator::File("/a".repeat(5000).into());
        assert!(Identity::of(&too_long).is_err());
    }
}
