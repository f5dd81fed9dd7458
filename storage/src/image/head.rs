//! Any image of this host by its path, for who works on chains of images rather than on volumes:
//! what its header says, and its lock.
//!
//! Unlike a volume's name, a path may lead through links, and to a block device.

use super::backing;
use super::lock;
use super::qcow2::{self, HEAD_BYTES, Header};
use crate::error::io_error;
use crate::object::nbd::read_head;
use crate::{Format, InvalidNbdUri, Locator, NbdAddress, Parent, StorageError};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHead {
    /// Its format.
    pub format: Format,
    /// Size that a guest sees, in bytes.
    pub virtual_bytes: u64,
    /// The backing name as it is written.
    pub backing: Option<String>,
    /// What that means: a relative name is joined to the image's directory as it is, as libvirt
    /// spells it.
    pub parent: Option<Parent>,
    /// The file that its data lie in, if not the image itself.
    pub data_file: Option<PathBuf>,
    /// Whether nobody reads its data without a key.
    pub encrypted: bool,
}

/// Whether a process of QEMU's has the image open for writing, whatever anybody else says of it.
/// Blocks.
///
/// # Errors
/// When it cannot be told.
pub fn is_written(path: &Path) -> io::Result<bool> {
    lock::is_written(&File::open(path)?)
}

impl ImageHead {
    /// Reads the head of an image that is opened as of this format; without one as of what its
    /// first bytes say. Takes no lock. Blocks.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when it is not what it must be; `Invalid` for neither file nor block
    /// device; whatever else keeps it from being read.
    pub fn read(path: &Path, format: Option<Format>) -> Result<Self, StorageError> {
        let what = path.display().to_string();
        let mut file = open(path, false).map_err(io_error(&what))?;
        let kind = file.metadata().map_err(io_error(&what))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let text = format!("{what} is neither a file nor a block device");
            return Err(StorageError::Invalid(text));
        }
        let header = match format {
            Some(Format::Raw) => None,
            _ => header(&file, path)?,
        };
        match (header, format) {
            (Some(header), _) => Ok(Self::of(path, header)),
            (None, Some(Format::Qcow2)) => Err(no_header(&what)),
            (None, _) => Ok(Self::raw(
                file.seek(SeekFrom::End(0)).map_err(io_error(&what))?,
            )),
        }
    }

    /// The same of what an NBD server exports. Blocks, for a limited time.
    ///
    /// # Errors
    /// As [`ImageHead::read`]; `NotFound` only when the server says so; `Invalid` for an address that
    /// is none.
    pub fn read_export(uri: &str, format: Option<Format>) -> Result<Self, StorageError> {
        let address: NbdAddress = uri
            .parse()
            .map_err(|error: InvalidNbdUri| StorageError::Invalid(error.to_string()))?;
        let (head, bytes) = read_head(&address, HEAD_BYTES as u32).map_err(io_error(uri))?;
        let header = match format {
            Some(Format::Raw) => None,
            _ => qcow2::parse(&head, uri)?,
        };
        match (header, format) {
            (Some(header), _) => Ok(Self::of(Path::new("/"), header)),
            (None, Some(Format::Qcow2)) => Err(no_header(uri)),
            (None, _) => Ok(Self::raw(bytes)),
        }
    }

    fn raw(virtual_bytes: u64) -> Self {
        Self {
            format: Format::Raw,
            virtual_bytes,
            backing: None,
            parent: None,
            data_file: None,
            encrypted: false,
        }
    }

    /// The same out of a header that was read.
    pub(crate) fn of(path: &Path, header: Header) -> Self {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let parent = header.backing.as_deref().map(|backing| {
            let (locator, format) = backing::locate(dir, backing);
            let plain = matches!(locator, Locator::File(_)) && !backing.contains(':');
            let joined = || Locator::File(dir.join(backing));
            Parent {
                locator: if plain { joined() } else { locator },
                format: header.backing_format.or(format),
            }
        });
        Self {
            format: Format::Qcow2,
            virtual_bytes: header.virtual_bytes,
            backing: header.backing,
            parent,
            data_file: header.data_file.map(|name| dir.join(name)),
            encrypted: header.encrypted,
        }
    }
}

/// An image that no process of QEMU's can open, until this is dropped. A process that inherits the
/// file holds it, too.
#[derive(Debug)]
pub struct ImageLock(File);

impl ImageLock {
    /// Takes an image alone; `None` when a process has it open. Blocks.
    ///
    /// # Errors
    /// When it cannot be opened for writing, or its file system knows no locks.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path, true)?;
        let free = lock::take(&file)?.map(lock::Held::keep).is_some();
        Ok(free.then(|| Self(file)))
    }

    /// Makes what was written to the image durable.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl AsFd for ImageLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for ImageLock {
    fn drop(&mut self) {
        lock::release(&self.0);
    }
}

fn no_header(what: &str) -> StorageError {
    StorageError::Corrupt {
        what: what.to_owned(),
        why: "it has no qcow2 header".to_owned(),
    }
}

fn open(path: &Path, write: bool) -> io::Result<File> {
    // A pipe under that name is not waited for.
    let mut options = OpenOptions::new();
    let options = options.read(true).write(write);
    options.custom_flags(libc::O_NONBLOCK).open(path)
}

fn header(file: &File, path: &Path) -> Result<Option<Header>, StorageError> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(io_error(path.display()))?;
    qcow2::parse(&head, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn image(dir: &Path, name: &str, backing: Option<&str>) -> PathBuf {
        let mut create = Command::new("qemu-img");
        create
            .current_dir(dir)
            .args(["create", "-q", "-u", "-f", "qcow2"]);
        if let Some(backing) = backing {
            create.args(["-F", "raw", "-b", backing]);
        }
        let made = create.args([name, "1M"]).status();
        assert!(made.expect("qemu-img is needed here").success());
        dir.join(name)
    }

    #[test]
    fn a_relative_name_is_spelled_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name, backing: &str| {
            let head = ImageHead::read(&image(dir.path(), name, Some(backing)), None).unwrap();
            assert_eq!(head.backing.as_deref(), Some(backing));
            assert_eq!((head.format, head.virtual_bytes), (Format::Qcow2, 1 << 20));
            head.parent.unwrap()
        };
        for (backing, expected) in [
            ("base", dir.path().join("base")),
            ("../x/base", dir.path().join("../x/base")),
            ("/x/../base", "/x/../base".into()),
            ("file:base", dir.path().join("base")),
        ] {
            let parent = read("a", backing);
            assert_eq!(parent.locator, Locator::File(expected), "{backing}");
            assert_eq!(parent.format, Some(Format::Raw));
        }
        let nbd = "nbd+unix:///x?socket=/s";
        assert_eq!(read("a", nbd).locator, Locator::Nbd(nbd.to_owned()));
    }

    #[test]
    fn what_an_image_must_be_it_is_or_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, qcow2) = (dir.path().join("raw"), image(dir.path(), "q", None));
        std::fs::write(&raw, [0; 4096]).unwrap();
        let head = ImageHead::read(&raw, None).unwrap();
        assert_eq!((head.format, head.virtual_bytes), (Format::Raw, 4096));
        let corrupt = ImageHead::read(&raw, Some(Format::Qcow2));
        assert!(matches!(corrupt, Err(StorageError::Corrupt { .. })));
        // Whatever a guest has written to its first sector.
        let as_raw = ImageHead::read(&qcow2, Some(Format::Raw)).unwrap();
        assert_eq!(as_raw.format, Format::Raw);
        let missing = ImageHead::read(&dir.path().join("x"), None);
        assert!(matches!(missing, Err(StorageError::NotFound { .. })));
        let directory = ImageHead::read(dir.path(), None);
        assert!(matches!(directory, Err(StorageError::Invalid(_))));
    }

    #[test]
    fn a_locked_image_is_locked_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), "a", None);
        let held = ImageLock::take(&path).unwrap().unwrap();
        assert!(ImageLock::take(&path).unwrap().is_none());
        held.sync().unwrap();
        drop(held);
        assert!(ImageLock::take(&path).unwrap().is_some());
    }
}
