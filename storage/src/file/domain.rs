//! The directory of a domain: what lies in it, and which of it are volumes.

use super::image::{self, Image, path_of};
use super::removals::Removals;
use super::rename::Renames;
use crate::calls::Calls;
use crate::error::io_error;
use crate::image::lock;
use crate::making::Making;
use crate::program::Program;
use crate::qemu_img;
use crate::turn::Turns;
use crate::{Locator, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeRef};
use rustix::fs::{Dir, FileType, statvfs};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Suffixes of files that are volumes; everything else in the directory is foreign.
const SUFFIXES: [&str; 3] = ["qcow2", "raw", "img"];
/// The domain's own directory.
const OWN: &str = ".livemerge";

/// A storage domain that is a directory.
#[derive(Debug)]
pub(super) struct Domain {
    id: StorageId,
    /// Canonical, so that it has no link.
    pub(super) root: PathBuf,
    /// What is looked at and renamed is so in this directory, whatever is mounted over the path.
    pub(super) dir: File,
    pub(super) new: PathBuf,
    pub(super) turns: Turns,
    pub(super) removals: Removals,
    pub(super) qemu_img: Program,
    pub(super) renames: Renames,
    pub(super) making: Making,
    /// Whoever overwrites a volume has it.
    pub(super) wiping: tokio::sync::Mutex<()>,
    calls: Calls,
}

impl Domain {
    pub(super) fn open(id: StorageId, root: &Path) -> Result<Self, StorageError> {
        let failed = || io_error(root.display());
        let root = root.canonicalize().map_err(failed())?;
        let dir = File::open(&root).map_err(failed())?;
        image::identity_under(&dir, OsStr::new("."), &root.display().to_string())?;
        let own = own_dir(root.join(OWN))?;
        let domain = Self {
            id,
            new: own_dir(own.join("new"))?,
            turns: Turns::new(&own),
            removals: Removals::new(own_dir(own.join("removals"))?),
            qemu_img: qemu_img::program(),
            renames: Renames::default(),
            making: Making::default(),
            wiping: tokio::sync::Mutex::default(),
            calls: Calls::default(),
            root,
            dir,
        };
        domain.sweep()?;
        Ok(domain)
    }

    /// Takes away what a crash has left and nobody will ask for: half-made volumes, and removals
    /// that condemned nothing.
    fn sweep(&self) -> Result<(), StorageError> {
        if let Some(_turn) = self.turns.sweep()? {
            for entry in fs::read_dir(&self.new).map_err(io_error(self.new.display()))? {
                let path = entry.map_err(io_error(self.new.display()))?.path();
                fs::remove_file(&path).map_err(io_error(path.display()))?;
            }
        }
        let _turn = self.turns.name()?;
        self.removals.sweep()
    }

    /// Works with the domain, off the async threads, to the end.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let domain = Arc::clone(self);
        self.calls.run(&self.id, move || work(&domain)).await
    }

    /// Looks at the domain, off the async threads, and not for longer than is reasonable.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let domain = Arc::clone(self);
        self.calls.look(&self.id, move || work(&domain)).await
    }

    pub(super) fn id(&self) -> &StorageId {
        &self.id
    }

    pub(super) fn volume(&self, name: &VolumeName) -> VolumeRef {
        VolumeRef {
            storage: self.id.clone(),
            name: name.clone(),
        }
    }

    /// A volume's name, for messages.
    pub(super) fn what(&self, name: &VolumeName) -> String {
        format!("volume {}", self.volume(name))
    }

    /// Opens a volume. Whatever else has such a name is not looked at.
    pub(super) fn image(&self, name: &VolumeName) -> Result<Image, StorageError> {
        check_name(name)?;
        Image::open(&self.dir, OsStr::new(name.as_str()), &self.what(name))
    }

    /// The same, for a caller who takes its lock.
    pub(super) fn image_to_lock(&self, name: &VolumeName) -> Result<Image, StorageError> {
        check_name(name)?;
        Image::open_to_lock(&self.dir, OsStr::new(name.as_str()), &self.what(name))
    }

    pub(super) fn stat(&self, name: &VolumeName) -> Result<VolumeInfo, StorageError> {
        Ok(self.image(name)?.info(&self.root, self.volume(name)))
    }

    /// Passes when the chain below a volume has an end, as far as it lies in this domain: QEMU would open one
    /// that has none until it is stopped.
    pub(super) fn chain_ends(&self, name: &VolumeName) -> Result<(), StorageError> {
        let (mut seen, mut top) = (vec![name.clone()], self.image(name)?);
        loop {
            let parent = top.parent(&self.root);
            let Some(below) = parent.and_then(|parent| self.resolve(&parent.locator)) else {
                return Ok(());
            };
            if seen.contains(&below) {
                return Err(StorageError::Corrupt {
                    what: format!("the chain of {}", self.what(name)),
                    why: format!("it comes back to volume {below}"),
                });
            }
            // What is missing, or cannot be read, QEMU names.
            let Ok(image) = self.image(&below) else {
                return Ok(());
            };
            top = image;
            seen.push(below);
        }
    }

    /// The names of all regular files of the directory, foreign ones too.
    pub(super) fn files(&self) -> Result<Vec<OsString>, StorageError> {
        let failed = |errno: rustix::io::Errno| io_error(self.root.display())(errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if self.is_file(entry.file_type(), name)? {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// What is neither a volume nor the domain's own.
    pub(super) fn foreign(&self) -> Result<Vec<String>, StorageError> {
        let failed = |errno: rustix::io::Errno| io_error(self.root.display())(errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let volume = name.to_str().and_then(|name| name.parse().ok());
            let volume = volume.as_ref().is_some_and(is_volume);
            let is_ours = [".", "..", OWN].iter().any(|own| name == *own)
                || volume && self.is_file(entry.file_type(), name)?;
            if !is_ours {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn is_file(&self, kind: FileType, name: &OsStr) -> Result<bool, StorageError> {
        if kind != FileType::Unknown {
            return Ok(kind == FileType::RegularFile);
        }
        let path = self.root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error(path.display())(error)),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Result<VolumeInfo, StorageError>>, StorageError> {
        let files = self.files()?;
        let names = files
            .iter()
            .filter_map(|name| name.to_str()?.parse::<VolumeName>().ok());
        let stats = names.filter(is_volume).map(|name| self.stat(&name));
        // Removed between the listing and the look: not there.
        let there = stats.filter(|info| !matches!(info, Err(StorageError::NotFound { .. })));
        Ok(there.collect())
    }

    pub(super) fn in_use(&self, name: &VolumeName) -> Result<bool, StorageError> {
        lock::is_held(&self.image(name)?.file).map_err(io_error(self.what(name)))
    }

    pub(super) fn in_use_by(&self, name: &VolumeName, by: &str) -> StorageError {
        StorageError::InUse {
            what: self.what(name),
            by: by.to_owned(),
        }
    }

    pub(super) fn space(&self) -> Result<Space, StorageError> {
        let stat = statvfs(&self.root).map_err(|e| io_error(self.root.display())(e.into()))?;
        Ok(Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        })
    }

    /// The volume that a file's path leads to: directly in the root, by any spelling of the root.
    pub(super) fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        let Locator::File(path) = locator else {
            return None;
        };
        let name = path.file_name()?.to_str()?.parse().ok().filter(is_volume)?;
        let dir = path.is_absolute().then(|| path.parent())??;
        // Only when the spelling differs: a path of a volume that is gone has a meaning too.
        let here = dir == self.root || self.is_root(dir);
        here.then_some(name)
    }

    /// Whether the path leads to the root, through links or another mount of it.
    fn is_root(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        match (fs::metadata(path), self.dir.metadata()) {
            (Ok(there), Ok(here)) => place(there) == place(here),
            _ => false,
        }
    }

    /// The volume that lies at a path below the root, as this domain spells it.
    pub(super) fn volume_at(&self, path: &Path) -> Option<VolumeName> {
        let name = path.strip_prefix(&self.root).ok()?;
        name.to_str()?.parse().ok().filter(is_volume)
    }

    /// Where a volume of that name lies.
    pub(super) fn path(&self, name: &VolumeName) -> PathBuf {
        path_of(&self.root, name)
    }
}

/// Makes a directory of the domain's own, durably. One that is a link would lead elsewhere.
fn own_dir(path: PathBuf) -> Result<PathBuf, StorageError> {
    match DirBuilder::new().create(&path) {
        Ok(()) => {
            let parent = path.parent().unwrap_or(&path);
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(io_error(path.display()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(path.display())(error)),
    }
    let found = fs::symlink_metadata(&path).map_err(io_error(path.display()))?;
    if found.is_dir() {
        return Ok(path);
    }
    Err(StorageError::Invalid(format!(
        "{} is no directory",
        path.display()
    )))
}

/// # Errors
/// `Invalid` for the name of what is no volume here, whatever it is.
pub(super) fn check_name(name: &VolumeName) -> Result<(), StorageError> {
    if is_volume(name) {
        return Ok(());
    }
    let text = format!("a volume's name ends in one of {SUFFIXES:?}, not {name}");
    Err(StorageError::Invalid(text))
}

fn is_volume(name: &VolumeName) -> bool {
    let suffix = Path::new(name.as_str()).extension();
    suffix.is_some_and(|suffix| SUFFIXES.iter().any(|volume| suffix == *volume))
}
