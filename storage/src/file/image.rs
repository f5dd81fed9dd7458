//! One image file of a domain: opened without following links, read from its header.
//!
//! What a name says of the layout, its content must bear out or cannot change:
//!
//! ```text
//!   NAME.qcow2   must begin with qcow2's magic: without it the file is corrupt, not a raw base
//!   NAME.raw     raw, whatever a guest has written to its first sector
//!   any other    as its first bytes say
//! ```

use super::backing::{self, Target};
use super::io_error;
use super::qcow2::{self, HEAD_BYTES, Header};
use crate::{Format, Identity, Locator, Parent, StorageError, VolumeInfo, VolumeName, VolumeRef};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, makedev, openat, statx};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// An open image.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) identity: Identity,
    allocated_bytes: u64,
    size: u64,
    device: u64,
    inode: u64,
    header: Option<Header>,
}

impl Image {
    /// Opens a name in a directory for reading.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what is no regular file, a symlink included; `Corrupt`.
    pub(super) fn open(dir: impl AsFd, name: &OsStr, what: &str) -> Result<Self, StorageError> {
        Self::open_for(OFlags::RDONLY, dir, name, what)
    }

    /// The same, for a caller who takes its lock.
    pub(super) fn open_to_lock(
        dir: impl AsFd,
        name: &OsStr,
        what: &str,
    ) -> Result<Self, StorageError> {
        Self::open_for(OFlags::RDWR, dir, name, what)
    }

    fn open_for(
        access: OFlags,
        dir: impl AsFd,
        name: &OsStr,
        what: &str,
    ) -> Result<Self, StorageError> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file: File = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::LOOP) => {
                return Err(StorageError::Invalid(format!("{what} is a symbolic link")));
            }
            Err(Errno::ISDIR | Errno::NXIO) => return Err(no_regular_file(what)),
            Err(errno) => return Err(io_error(what)(errno.into())),
        };
        Self::read(file, Path::new(name).extension(), what)
    }

    fn read(file: File, suffix: Option<&OsStr>, what: &str) -> Result<Self, StorageError> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat =
            statx(&file, "", AtFlags::EMPTY_PATH, wanted).map_err(|e| io_error(what)(e.into()))?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(no_regular_file(what));
        }
        let birth = stat.stx_btime;
        let identity = format!("{}-{}.{:09}", stat.stx_ino, birth.tv_sec, birth.tv_nsec);
        Ok(Self {
            header: header(&file, suffix, what)?,
            file,
            identity: identity.parse().expect("digits and signs are an identity"),
            allocated_bytes: stat.stx_blocks * 512,
            size: stat.stx_size,
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        })
    }

    /// As somebody may need it, under this path.
    pub(super) fn target<'a>(&self, path: &'a Path) -> Target<'a> {
        Target {
            path,
            device: self.device,
            inode: self.inode,
        }
    }

    /// Whether it cannot be read without the target.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn needs(&self, root: &Path, target: &Target<'_>) -> Result<bool, StorageError> {
        for name in self.header.iter().flat_map(Header::needs) {
            if backing::names(root, name, target)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn format(&self) -> Format {
        if self.header.is_some() {
            Format::Qcow2
        } else {
            Format::Raw
        }
    }

    /// What storage says of it.
    pub(super) fn info(&self, root: &Path, volume: VolumeRef) -> VolumeInfo {
        VolumeInfo {
            locator: Locator::File(path_of(root, &volume.name)),
            volume,
            identity: self.identity.clone(),
            format: self.format(),
            virtual_bytes: self
                .header
                .as_ref()
                .map_or(self.size, |header| header.virtual_bytes),
            allocated_bytes: self.allocated_bytes,
            parent: self.parent(root),
        }
    }

    /// What its header names as backing.
    pub(super) fn parent(&self, root: &Path) -> Option<Parent> {
        let header = self.header.as_ref()?;
        let backing = header.backing.as_deref()?;
        let (locator, format) = backing::locate(root, backing);
        Some(Parent {
            locator,
            format: header.backing_format.or(format),
        })
    }
}

fn header(
    mut file: &File,
    suffix: Option<&OsStr>,
    what: &str,
) -> Result<Option<Header>, StorageError> {
    if suffix == Some(OsStr::new("raw")) {
        return Ok(None);
    }
    let mut head = Vec::new();
    file.by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(io_error(what))?;
    let header = qcow2::parse(&head, what)?;
    if header.is_none() && suffix == Some(OsStr::new("qcow2")) {
        let why = "it has no qcow2 header".to_owned();
        return Err(StorageError::Corrupt {
            what: what.to_owned(),
            why,
        });
    }
    Ok(header)
}

fn no_regular_file(what: &str) -> StorageError {
    StorageError::Invalid(format!("{what} is no regular file"))
}

/// Where a volume of that name lies.
pub(super) fn path_of(root: &Path, name: &VolumeName) -> PathBuf {
    root.join(name.as_str())
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
