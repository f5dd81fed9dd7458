//! One image file of a domain: opened without following links, read from its header.
//!
//! What a name says of the layout, its content must bear out or cannot change:
//!
//! ```text
//!   NAME.qcow2   must begin with qcow2's magic: without it the file is corrupt, not a raw base
//!   NAME.raw     raw, whatever a guest has written to its first sector; but what that names counts
//!                as needed
//!   any other    as its first bytes say
//! ```

use crate::error::io_error;
use crate::image::backing::{self, Place, Target};
use crate::image::bitmaps;
use crate::image::qcow2::{self, HEAD_BYTES, Header};
use crate::{
    Format, Identity, Locator, Parent, StorageError, USUAL_CLUSTER_BYTES, VolumeInfo, VolumeName,
    VolumeRef,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, makedev, openat, statx};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// An open image.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) identity: Identity,
    allocated_bytes: u64,
    size: u64,
    place: Place,
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
        let stat = look(&file, OsStr::new(""), AtFlags::EMPTY_PATH, what)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(no_regular_file(what));
        }
        Ok(Self {
            header: header(&file, suffix, what)?,
            file,
            identity: identity_of(&stat, what)?,
            allocated_bytes: stat.stx_blocks * 512,
            size: stat.stx_size,
            place: Place::File(
                makedev(stat.stx_dev_major, stat.stx_dev_minor),
                stat.stx_ino,
            ),
        })
    }

    /// As somebody may need it, under this path.
    pub(super) fn target(&self, path: PathBuf) -> Target {
        Target {
            path,
            place: Some(self.place),
        }
    }

    /// Whether it is the target itself.
    pub(super) fn is(&self, target: &Target) -> bool {
        target.place == Some(self.place)
    }

    /// The files that it may not be readable without. An image within a raw one counts: perhaps
    /// somebody opens it as what it says that it is.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn needs(&self, root: &Path, what: &str) -> Result<Vec<PathBuf>, StorageError> {
        let within = match &self.header {
            Some(_) => None,
            None => read_header(&self.file, what)?,
        };
        let mut needed = Vec::new();
        for name in self.header.iter().chain(&within).flat_map(Header::needs) {
            needed.extend(backing::paths(root, name)?);
        }
        Ok(needed)
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
            cluster_bytes: self
                .header
                .as_ref()
                .map_or(USUAL_CLUSTER_BYTES, |header| header.cluster_bytes),
            encrypted: self.header.as_ref().is_some_and(|header| header.encrypted),
            bitmaps: self.bitmaps(),
        }
    }

    fn bitmaps(&self) -> Vec<String> {
        let listed = self.header.as_ref().and_then(|header| header.bitmaps);
        let read_at = |into: &mut [u8], at| self.file.read_exact_at(into, at);
        listed.map_or_else(Vec::new, |listed| bitmaps::names(read_at, listed))
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

/// The mark of what lies under a name, whatever it holds.
///
/// # Errors
/// `NotFound`; `Invalid` when the file system reports no mark.
pub(super) fn identity_under(
    dir: impl AsFd,
    name: &OsStr,
    what: &str,
) -> Result<Identity, StorageError> {
    identity_of(&look(dir, name, AtFlags::SYMLINK_NOFOLLOW, what)?, what)
}

fn identity_of(stat: &Statx, what: &str) -> Result<Identity, StorageError> {
    if !StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
        let why = "reports no birth times, without which a volume cannot be told from another that has its name";
        return Err(StorageError::Invalid(format!(
            "the file system of {what} {why}"
        )));
    }
    let birth = stat.stx_btime;
    let identity = format!("{}-{}.{:09}", stat.stx_ino, birth.tv_sec, birth.tv_nsec);
    Ok(identity.parse().expect("digits and signs are an identity"))
}

fn look(dir: impl AsFd, name: &OsStr, flags: AtFlags, what: &str) -> Result<Statx, StorageError> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    statx(dir, name, flags, wanted).map_err(|errno| io_error(what)(errno.into()))
}

fn header(file: &File, suffix: Option<&OsStr>, what: &str) -> Result<Option<Header>, StorageError> {
    if suffix == Some(OsStr::new("raw")) {
        return Ok(None);
    }
    let header = read_header(file, what)?;
    if header.is_none() && suffix == Some(OsStr::new("qcow2")) {
        let why = "it has no qcow2 header".to_owned();
        return Err(StorageError::Corrupt {
            what: what.to_owned(),
            why,
        });
    }
    Ok(header)
}

fn read_header(mut file: &File, what: &str) -> Result<Option<Header>, StorageError> {
    let mut head = Vec::new();
    file.rewind()
        .and_then(|()| file.take(HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(io_error(what))?;
    qcow2::parse(&head, what)
}

fn no_regular_file(what: &str) -> StorageError {
    StorageError::Invalid(format!("{what} is no regular file"))
}

/// Where a volume of that name lies.
pub(super) fn path_of(root: &Path, name: &VolumeName) -> PathBuf {
    root.join(name.as_str())
}
