//! One image file of a domain: opened without following links, read from its header.

use super::io_error;
use super::qcow2::{self, HEAD_BYTES, Header};
use crate::{Format, Identity, Locator, Parent, StorageError, VolumeInfo, VolumeName, VolumeRef};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// An open image.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) identity: Identity,
    pub(super) allocated_bytes: u64,
    size: u64,
    header: Option<Header>,
}

impl Image {
    /// Opens a name in a directory for reading.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what is no regular file, a symlink included.
    pub(super) fn open(dir: impl AsFd, name: &str, what: &str) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file: File = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(rustix::io::Errno::LOOP) => {
                return Err(StorageError::Invalid(format!("{what} is a symbolic link")));
            }
            Err(errno) => return Err(io_error(what)(errno.into())),
        };
        Self::read(file, what)
    }

    fn read(mut file: File, what: &str) -> Result<Self, StorageError> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = statx(&file, "", AtFlags::EMPTY_PATH, wanted).map_err(|e| io_error(what)(e.into()))?;
        if u32::from(stat.stx_mode) & 0o170_000 != 0o100_000 {
            return Err(StorageError::Invalid(format!("{what} is no regular file")));
        }
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(io_error(what))?;
        let birth = stat.stx_btime;
        let identity = format!("{}-{}.{:09}", stat.stx_ino, birth.tv_sec, birth.tv_nsec);
        Ok(Self {
            header: qcow2::parse(&head, what)?,
            file,
            identity: identity.parse().expect("digits and signs are an identity"),
            allocated_bytes: stat.stx_blocks * 512,
            size: stat.stx_size,
        })
    }

    /// What storage says of it.
    pub(super) fn info(&self, root: &Path, volume: VolumeRef) -> VolumeInfo {
        let (format, virtual_bytes) = match &self.header {
            Some(header) => (Format::Qcow2, header.virtual_bytes),
            None => (Format::Raw, self.size),
        };
        VolumeInfo {
            locator: Locator::File(path_of(root, &volume.name)),
            volume,
            identity: self.identity.clone(),
            format,
            virtual_bytes,
            allocated_bytes: self.allocated_bytes,
            parent: self.parent(root),
        }
    }

    /// What its header names as backing.
    pub(super) fn parent(&self, root: &Path) -> Option<Parent> {
        let header = self.header.as_ref()?;
        let backing = header.backing.as_deref()?;
        Some(Parent { locator: locate(root, backing), format: header.backing_format })
    }
}

/// Where a volume of that name lies.
pub(super) fn path_of(root: &Path, name: &VolumeName) -> PathBuf {
    root.join(name.as_str())
}

/// What a backing string means, seen from the domain's root.
fn locate(root: &Path, backing: &str) -> Locator {
    if backing.starts_with("nbd:") || backing.starts_with("nbd+unix:") || backing.starts_with("json:") {
        return Locator::Nbd(backing.to_owned());
    }
    let path = backing.strip_prefix("file:").unwrap_or(backing);
    Locator::File(normal(&root.join(path)))
}

/// Without `.` and `..`, so that two spellings of one path are equal. Looks at no link.
pub(super) fn normal(path: &Path) -> PathBuf {
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
