//! What a backing string means: the files that it names, seen from the domain's root.
//!
//! ```text
//!   /dir/base.qcow2   base.qcow2   file:base.qcow2   host_device:/dev/x     a path
//!   json:{"driver": "qcow2", "file": {"driver": "file", "filename": "…"}}   paths within
//!   nbd:…   nbd+unix://…   and every other protocol                         no path
//! ```
//!
//! A path that leads nowhere on this host may lead to a volume on another, which sees the domain
//! under another root: such a path counts as the volume whose name it ends in.

use crate::error::io_error;
use crate::{Format, Locator, NbdAddress, StorageError};
use serde_json::Value;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// The file that somebody may need.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// `None` when the path leads nowhere.
    pub(crate) place: Option<Place>,
}

/// What a path leads to, whichever path it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The device and inode of a file.
    File(u64, u64),
    /// The number of a block device: it may have several nodes.
    Device(u64),
}

impl Target {
    /// What a path of QEMU's leads to.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(crate) fn of(path: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            path: normal(path),
            place: place(path)?,
        })
    }

    /// Whether both are certainly the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.place.is_some() && self.place == other.place)
    }

    /// Whether what this path of a backing string leads to may be the other one.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        self.path == other.path
            || match self.place {
                Some(place) => other.place == Some(place),
                None => self.path.file_name() == other.path.file_name(),
            }
    }
}

/// Whether a path of a backing string means the target.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn leads_to(path: &Path, target: &Target) -> Result<bool, StorageError> {
    // What it is need not be asked for.
    Ok(normal(path) == target.path || Target::of(path)?.may_be(target))
}

/// What a path leads to; `None` when it leads nowhere.
fn place(path: &Path) -> Result<Option<Place>, StorageError> {
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => Ok(Some(Place::Device(found.rdev()))),
        Ok(found) => Ok(Some(Place::File(found.dev(), found.ino()))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(io_error(path.display())(error)),
    }
}

/// What QEMU opens for a backing string, and the format if the string itself says it.
pub(crate) fn locate(root: &Path, backing: &str) -> (Locator, Option<Format>) {
    let Some(json) = backing.strip_prefix("json:") else {
        let locator = match file(root, backing) {
            Some(path) => Locator::File(normal(&path)),
            None => Locator::Nbd(backing.to_owned()),
        };
        return (locator, None);
    };
    let node: Value = serde_json::from_str(json).unwrap_or_default();
    let format = match node["driver"].as_str() {
        Some("qcow2") => Some(Format::Qcow2),
        Some("raw") => Some(Format::Raw),
        _ => None,
    };
    if let Some(address) = NbdAddress::described(&node) {
        return (Locator::Nbd(address.to_string()), format);
    }
    let mut names = Vec::new();
    file_names(&node, &mut names);
    match names.as_slice() {
        [one] => (Locator::File(normal(&root.join(one))), format),
        _ => (Locator::Nbd(backing.to_owned()), format),
    }
}

/// All files that a backing string names.
///
/// # Errors
/// When it cannot be understood.
pub(crate) fn paths(root: &Path, backing: &str) -> Result<Vec<PathBuf>, StorageError> {
    let Some(json) = backing.strip_prefix("json:") else {
        return Ok(file(root, backing).into_iter().collect());
    };
    let node: Value = serde_json::from_str(json).map_err(|error| StorageError::Corrupt {
        what: "a backing name".to_owned(),
        why: error.to_string(),
    })?;
    let mut names = Vec::new();
    file_names(&node, &mut names);
    Ok(names.iter().map(|name| root.join(name)).collect())
}

/// The path of a plain backing string; `None` for a protocol that is no file. As QEMU tells them
/// apart: a colon before the first slash ends a protocol's name.
fn file(root: &Path, backing: &str) -> Option<PathBuf> {
    let protocol = backing
        .split('/')
        .next()
        .and_then(|first| first.split_once(':'));
    match protocol {
        None => Some(root.join(backing)),
        Some(_) => local(backing).map(|path| root.join(path)),
    }
}

/// What stands behind the protocols of QEMU that open something of this host by its path.
fn local(name: &str) -> Option<&str> {
    ["file:", "host_device:"]
        .iter()
        .find_map(|protocol| name.strip_prefix(protocol))
}

/// The values of `filename`, wherever they are: nested, or flat as in `file.filename`.
fn file_names<'a>(node: &'a Value, found: &mut Vec<&'a str>) {
    if let Some(nodes) = node.as_array() {
        return nodes.iter().for_each(|node| file_names(node, found));
    }
    let Some(fields) = node.as_object() else {
        return;
    };
    for (key, value) in fields {
        match value.as_str() {
            Some(name) if key == "filename" || key.ends_with(".filename") => {
                found.push(local(name).unwrap_or(name));
            }
            _ => file_names(value, found),
        }
    }
}

/// Without `.` and `..`, so that two spellings of one path are equal. Looks at no link.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_at(path: &str) -> Locator {
        Locator::File(path.into())
    }

    #[test]
    fn every_spelling_of_a_file_is_its_path() {
        let root = Path::new("/domain");
        let flat =
            r#"json:{"driver":"qcow2","file.driver":"file","file.filename":"/domain/a.img"}"#;
        let nested = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a.img"}}"#;
        for (backing, format) in [
            ("a.img", None),
            ("./a.img", None),
            ("../domain/a.img", None),
            ("/domain/a.img", None),
            ("file:a.img", None),
            ("file:///domain/a.img", None),
            (flat, Some(Format::Qcow2)),
            (nested, Some(Format::Qcow2)),
        ] {
            assert_eq!(
                locate(root, backing),
                (file_at("/domain/a.img"), format),
                "{backing}"
            );
        }
    }

    #[test]
    fn all_files_of_a_backing_name_are_found() {
        let root = Path::new("/domain");
        let each = r#"json:{"driver":"quorum","vote-threshold":1,"children":[
            {"driver":"raw","file":{"driver":"host_device","filename":"/dev/vg/a"}},
            {"driver":"qcow2","file.filename":"file:b"}]}"#;
        for (backing, found) in [
            ("host_device:/dev/vg/a", &["/dev/vg/a"][..]),
            (each, &["/dev/vg/a", "/domain/b"]),
            ("nbd:unix:/s", &[]),
        ] {
            let found: Vec<_> = found.iter().map(PathBuf::from).collect();
            assert_eq!(paths(root, backing).unwrap(), found, "{backing}");
        }
    }

    #[test]
    fn what_is_no_file_stays_as_it_is_written() {
        for backing in [
            "nbd:unix:/s:exportname=a.img",
            "nbd+unix:///a.img?socket=/s",
            "json:{",
        ] {
            let (locator, _) = locate(Path::new("/domain"), backing);
            assert_eq!(locator, Locator::Nbd(backing.to_owned()));
        }
    }

    #[test]
    fn a_path_of_another_host_counts_by_its_last_part() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        let path = dir.path().join("a.img");
        let target = Target::of(&path).unwrap();
        let named = |backing: &str| {
            let paths = paths(dir.path(), backing).unwrap();
            paths.iter().any(|path| leads_to(path, &target).unwrap())
        };
        assert!(named("/no/such/mount/a.img"));
        assert!(named(&format!("{}/sub/../a.img", dir.path().display())));
        assert!(!named("/no/such/mount/b.img"));
        assert!(!named(other.to_str().unwrap()));
        assert!(!named("nbd:unix:/s:exportname=a.img"));
    }

    #[test]
    fn a_description_that_cannot_be_read_is_not_a_no() {
        assert!(paths(Path::new("/domain"), "json:{").is_err());
    }
}
