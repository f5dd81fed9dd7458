//! What lies in a logical volume: its first bytes, read without activating it.
//!
//! ```text
//!   active        through its device, which knows what was written last
//!   not active    where its pieces lie on the physical volumes
//! ```
//!
//! Both around the page cache: a physical volume's would still have what lay there before.

use super::device;
use super::name::GroupName;
use super::needed;
use super::report::{Group, Logical, Piece};
use super::tag;
use crate::image::backing::Target;
use crate::image::qcow2::{self, HEAD_BYTES, Header};
use crate::image::{backing, bitmaps};
use crate::{Format, Locator, Parent, StorageError, USUAL_CLUSTER_BYTES, VolumeInfo, VolumeRef};
use nix::libc;
use rustix::fs::makedev;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Reads around the page cache begin and end at multiples of it, on every disk.
const BLOCK: u64 = 4096;

/// A logical volume that can be read.
#[derive(Debug)]
pub(super) struct Content<'a> {
    group: &'a GroupName,
    volume: &'a Logical,
    header: Option<Header>,
}

impl<'a> Content<'a> {
    /// Reads the header of whatever it holds; of a raw volume too, as somebody may open it as what
    /// it says that it is. There it is what a guest has written: broken, it is none.
    ///
    /// # Errors
    /// `Corrupt` when that of an image is broken; `Unreachable` when it cannot be read.
    pub(super) fn read(
        group: &'a GroupName,
        volume: &'a Logical,
        what: &str,
    ) -> Result<Self, StorageError> {
        let read = |bytes: u64| read_at(group, volume, 0, bytes.min(volume.bytes));
        // Most of what is no image can be told by a block: of a large group it is read for each removal.
        let head = match read(BLOCK) {
            Ok(first) if qcow2::begins(&first) => read(HEAD_BYTES as u64),
            first => first,
        };
        // Whatever keeps it from being read, the volume is there.
        let head = head.map_err(|source| StorageError::Unreachable {
            what: what.to_owned(),
            source,
        })?;
        let header = match qcow2::parse(&head, what) {
            Err(_) if is_raw(volume) => None,
            header => header?,
        };
        Ok(Self {
            group,
            volume,
            header,
        })
    }

    /// Whether it is not the image that its tags say, or what was read is not the volume.
    pub(super) fn lacks_header(&self) -> bool {
        self.header.is_none() && tag::format(&self.volume.tags) == Some(Format::Qcow2)
    }

    /// What storage says of it.
    ///
    /// # Errors
    /// `Corrupt` when it is not what its tags say.
    pub(super) fn info(&self, volume: VolumeRef) -> Result<VolumeInfo, StorageError> {
        let header = match (tag::format(&self.volume.tags), &self.header) {
            (Some(Format::Raw), _) | (None, None) => None,
            (_, Some(header)) => Some(header),
            (Some(Format::Qcow2), None) => {
                let why = "it has no qcow2 header".to_owned();
                return Err(StorageError::Corrupt {
                    what: format!("volume {volume}"),
                    why,
                });
            }
        };
        Ok(VolumeInfo {
            identity: self.volume.identity.clone(),
            format: if header.is_some() {
                Format::Qcow2
            } else {
                Format::Raw
            },
            virtual_bytes: header.map_or(self.volume.bytes, |header| header.virtual_bytes),
            allocated_bytes: device::usable_bytes(self.volume),
            locator: Locator::Block(self.group.path(&self.volume.name)),
            parent: header.and_then(|header| self.parent(header)),
            cluster_bytes: header.map_or(USUAL_CLUSTER_BYTES, |header| header.cluster_bytes),
            encrypted: header.is_some_and(|header| header.encrypted),
            bitmaps: header.map_or_else(Vec::new, |header| self.bitmaps(header)),
            volume,
        })
    }

    /// What it may not be readable without.
    ///
    /// # Errors
    /// When that cannot be told. What a guest has written into a raw volume names what it names, and
    /// nothing that cannot be told.
    pub(super) fn needs(&self) -> Result<Vec<Target>, StorageError> {
        let mut needed = Vec::new();
        for name in self.header.iter().flat_map(Header::needs) {
            let targets = self.targets(name);
            match targets {
                Err(_) if is_raw(self.volume) => {}
                targets => needed.extend(targets?),
            }
        }
        Ok(needed)
    }

    fn targets(&self, name: &str) -> Result<Vec<Target>, StorageError> {
        let paths = backing::paths(&self.group.dir(), name)?;
        let target = |path: &PathBuf| needed::target(self.group, path);
        paths.iter().map(target).collect()
    }

    fn parent(&self, header: &Header) -> Option<Parent> {
        let backing = header.backing.as_deref()?;
        let (locator, format) = backing::locate(&self.group.dir(), backing);
        let locator = match locator {
            Locator::File(path) if path.starts_with("/dev") => {
                Locator::Block(self.group.canonical(&path))
            }
            other => other,
        };
        Some(Parent {
            locator,
            format: header.backing_format.or(format),
        })
    }

    fn bitmaps(&self, header: &Header) -> Vec<String> {
        let read = |into: &mut [u8], at| {
            let read = read_at(self.group, self.volume, at, into.len() as u64)?;
            into.copy_from_slice(&read);
            Ok(())
        };
        header
            .bitmaps
            .map_or_else(Vec::new, |listed| bitmaps::names(read, listed))
    }
}

/// Whether a guest writes it from its first byte on: whoever's it is, its tag says so.
fn is_raw(volume: &Logical) -> bool {
    tag::format(&volume.tags) == Some(Format::Raw)
}

/// Whether a logical volume can be read as it is.
pub(super) fn is_readable(volume: &Logical) -> bool {
    volume.device.is_some() || volume.pieces.is_some()
}

/// The physical volumes of a group, open: while they are, each read's closing is not the last one, for which the
/// kernel writes out and forgets what it has of a device. Who reads finds out which cannot be opened.
pub(super) fn held_open(group: &Group) -> Vec<File> {
    let pieces = group
        .volumes
        .iter()
        .filter_map(|volume| volume.pieces.as_ref());
    let devices: BTreeSet<&Path> = pieces
        .flatten()
        .map(|piece| piece.device.as_path())
        .collect();
    let open = devices.into_iter().map(File::open);
    open.filter_map(Result::ok).collect()
}

/// All bytes of a range.
fn read_at(group: &GroupName, volume: &Logical, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    if volume.device.is_some() {
        return read_direct(&device(group, volume)?, at, bytes);
    }
    let pieces = volume
        .pieces
        .as_ref()
        .ok_or_else(|| io::Error::other("it is not active"))?;
    read_pieces(pieces, at, bytes)
}

fn read_pieces(pieces: &[Piece], at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let end = at.checked_add(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
    for piece in pieces {
        let from = at.max(piece.start);
        let until = end.min(piece.start.saturating_add(piece.bytes));
        if from < until {
            let device = direct(&piece.device, false)?;
            read.extend(read_direct(
                &device,
                piece.at + (from - piece.start),
                until - from,
            )?);
        }
    }
    if read.len() as u64 == bytes {
        Ok(read)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The device of an active volume, for reading.
fn device(group: &GroupName, volume: &Logical) -> io::Result<File> {
    open(group, volume, false)
}

/// Opens the device of an active volume, and no other that has its name.
pub(super) fn open(group: &GroupName, volume: &Logical, write: bool) -> io::Result<File> {
    let file = direct(&group.path(&volume.name), write)?;
    let found = file.metadata()?;
    let number = volume.device.map(|(major, minor)| makedev(major, minor));
    if found.file_type().is_block_device() && Some(found.rdev()) == number {
        return Ok(file);
    }
    Err(io::Error::other("its name leads to another device"))
}

fn direct(path: &Path, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(libc::O_DIRECT);
    options.open(path)
}

fn read_direct(file: &File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let begin = at - at % BLOCK;
    let before = (at - begin) as usize;
    let whole = (before as u64 + bytes).next_multiple_of(BLOCK) as usize;
    let mut room = Room::new(whole);
    let into = room.bytes();
    let mut read = 0;
    while read < whole {
        match file.read_at(&mut into[read..], begin + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    let found = into[..read].get(before..before + bytes as usize);
    found
        .map(Into::into)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Memory that a read or write around the page cache can use.
pub(super) struct Room {
    memory: Vec<u8>,
    bytes: usize,
}

impl Room {
    /// All zeros.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            memory: vec![0; bytes + BLOCK as usize],
            bytes,
        }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(BLOCK as usize);
        &mut self.memory[skip..skip + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_across_pieces_or_not_at_all() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let bytes: Vec<u8> = (0..64 << 10).map(|i: u32| (i / 4096) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let piece = |start, at| Piece {
            start,
            bytes: 8192,
            device: file.path().into(),
            at,
        };
        let pieces = [piece(0, 32768), piece(8192, 0)];
        let read = read_pieces(&pieces, 4000, 8392).unwrap();
        let wanted = [&bytes[36768..40960], &bytes[..4200]].concat();
        assert_eq!(read, wanted);
        for (at, length) in [(16_000, 1000), (u64::MAX, 2), (20_000, 1)] {
            let cut = read_pieces(&pieces, at, length).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
