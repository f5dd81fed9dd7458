//! [`FileStore`]: the volumes of one directory.

use super::image::{Image, normal, path_of};
use super::removal::Removals;
use super::{blocking, io_error, lock};
use crate::{
    Capabilities, LiveVolumes, Locator, NewVolume, Parent, Removal, RemovalId, RemovalOrder, Space,
    StorageError, StorageId, VolumeInfo, VolumeName, VolumeRef, VolumeStore,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use rustix::fs::{RenameFlags, renameat_with, statvfs};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use uuid::Uuid;

/// Suffixes of files that are volumes; everything else in the directory is foreign.
const SUFFIXES: [&str; 3] = ["qcow2", "raw", "img"];
/// The domain's own directory.
const OWN: &str = ".livemerge";

/// A storage domain that is a directory.
#[derive(Debug, Clone)]
pub struct FileStore {
    domain: Arc<Domain>,
}

#[derive(Debug)]
pub(super) struct Domain {
    id: StorageId,
    /// Canonical, so that it has no link.
    pub(super) root: PathBuf,
    pub(super) dir: File,
    new: PathBuf,
    pub(super) removals: Removals,
}

impl FileStore {
    /// Opens a domain: a directory that exists. Its own subdirectory is made if it is missing.
    ///
    /// # Errors
    /// When the directory is not there or cannot be written.
    pub async fn open(id: StorageId, root: &Path) -> Result<Self, StorageError> {
        let root = root.to_owned();
        let domain = blocking(move || Domain::open(id, &root)).await?;
        Ok(Self { domain: Arc::new(domain) })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Domain) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let domain = Arc::clone(&self.domain);
        blocking(move || work(&domain)).await
    }
}

impl Domain {
    fn open(id: StorageId, root: &Path) -> Result<Self, StorageError> {
        let failed = || io_error(root.display());
        let root = root.canonicalize().map_err(failed())?;
        let new = root.join(OWN).join("new");
        fs::create_dir_all(&new).map_err(failed())?;
        let removals = Removals::open(root.join(OWN).join("removals"))?;
        let dir = File::open(&root).map_err(failed())?;
        Ok(Self { id, root, dir, new, removals })
    }

    pub(super) fn volume(&self, name: &VolumeName) -> VolumeRef {
        VolumeRef { storage: self.id.clone(), name: name.clone() }
    }

    pub(super) fn image(&self, name: &VolumeName) -> Result<Image, StorageError> {
        Image::open(&self.dir, name.as_str(), &format!("volume {}", self.volume(name)))
    }

    fn stat(&self, name: &VolumeName) -> Result<VolumeInfo, StorageError> {
        Ok(self.image(name)?.info(&self.root, self.volume(name)))
    }

    /// The names of the volumes. A file that is no regular one is foreign.
    pub(super) fn names(&self) -> Result<Vec<VolumeName>, StorageError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(io_error(self.root.display()))? {
            let entry = entry.map_err(io_error(self.root.display()))?;
            let name = entry.file_name().to_str().and_then(|name| name.parse::<VolumeName>().ok());
            let name = name.filter(is_volume);
            let is_file = entry.file_type().map_err(io_error(self.root.display()))?.is_file();
            names.extend(name.filter(|_| is_file));
        }
        Ok(names)
    }

    fn list(&self) -> Result<Vec<Result<VolumeInfo, StorageError>>, StorageError> {
        let stats = self.names()?.into_iter().map(|name| self.stat(&name));
        // Removed between the listing and the look: not there.
        let there = stats.filter(|info| !matches!(info, Err(StorageError::NotFound { .. })));
        Ok(there.collect())
    }

    fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        if !is_volume(&volume.name) {
            let text = format!("a volume's name ends in one of {SUFFIXES:?}, not {}", volume.name);
            return Err(StorageError::Invalid(text));
        }
        match self.stat(&volume.name) {
            Ok(there) => return same(there, volume),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let temporary = self.new.join(format!("{}.qcow2", Uuid::new_v4()));
        let made = make(&temporary, volume).and_then(|()| self.publish(&temporary, &volume.name));
        if made.is_err() {
            // What was half made under a name of its own is nobody's.
            let _ = fs::remove_file(&temporary);
        }
        made?;
        self.stat(&volume.name).and_then(|there| same(there, volume))
    }

    /// Gives a new image its name, durably. A name that was taken meanwhile is looked at again.
    fn publish(&self, temporary: &Path, name: &VolumeName) -> Result<(), StorageError> {
        let what = format!("volume {}", self.volume(name));
        File::open(temporary).and_then(|file| file.sync_all()).map_err(io_error(&what))?;
        let renamed = renameat_with(rustix::fs::CWD, temporary, &self.dir, name.as_str(), RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => self.dir.sync_all().map_err(io_error(&what)),
            Err(rustix::io::Errno::EXIST) => fs::remove_file(temporary).map_err(io_error(&what)),
            Err(errno) => Err(io_error(&what)(errno.into())),
        }
    }

    fn grow(&self, name: &VolumeName, virtual_bytes: u64) -> Result<VolumeInfo, StorageError> {
        let info = self.stat(name)?;
        if info.virtual_bytes >= virtual_bytes {
            return Ok(info);
        }
        let mut command = Command::new("qemu-img");
        command.args(["resize", "-q", "-f", format_name(info.format)]);
        command.arg(path_of(&self.root, name)).arg(virtual_bytes.to_string());
        run(&mut command)?;
        self.stat(name)
    }

    pub(super) fn in_use(&self, name: &VolumeName) -> Result<bool, StorageError> {
        let what = format!("volume {}", self.volume(name));
        lock::is_held(&self.image(name)?.file).map_err(io_error(what))
    }

    fn space(&self) -> Result<Space, StorageError> {
        let stat = statvfs(&self.root).map_err(|e| io_error(self.root.display())(e.into()))?;
        Ok(Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        })
    }
}

#[async_trait]
impl VolumeStore for FileStore {
    fn id(&self) -> &StorageId {
        &self.domain.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { thin: true, shared: true }
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let volume = volume.clone();
        self.with(move |domain| domain.create(&volume)).await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        let name = volume.clone();
        self.with(move |domain| domain.stat(&name)).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        let listed = self.with(Domain::list);
        stream::once(listed)
            .flat_map(|listed| stream::iter(listed.unwrap_or_else(|error| vec![Err(error)])))
            .boxed()
    }

    async fn grow(&self, volume: &VolumeName, virtual_bytes: u64) -> Result<VolumeInfo, StorageError> {
        let name = volume.clone();
        self.with(move |domain| domain.grow(&name, virtual_bytes)).await
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let order = order.clone();
        self.with(move |domain| domain.remove(&order)).await
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        self.with(Domain::list_removals).await
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        self.with(move |domain| domain.restore(removal).and_then(|name| domain.stat(&name))).await
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        let name = volume.clone();
        self.with(move |domain| Ok(domain.image(&name)?.parent(&domain.root))).await
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        let name = volume.clone();
        self.with(move |domain| domain.in_use(&name)).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.with(Domain::space).await
    }

    fn resolve(&self, path: &Path) -> Option<VolumeName> {
        let path = normal(path);
        let name: VolumeName = path.strip_prefix(&self.domain.root).ok()?.to_str()?.parse().ok()?;
        Some(name).filter(is_volume)
    }
}

#[async_trait]
impl LiveVolumes for FileStore {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        Ok(self.stat(volume).await?.locator)
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        if self.in_use(volume).await? {
            let what = format!("volume {}", self.domain.volume(volume));
            return Err(StorageError::InUse { what, by: "a process that has it open".to_owned() });
        }
        Ok(())
    }
}

pub(super) fn is_volume(name: &VolumeName) -> bool {
    let suffix = Path::new(name.as_str()).extension();
    suffix.is_some_and(|suffix| SUFFIXES.iter().any(|volume| suffix == *volume))
}

/// What is there, if it is what was to be created.
fn same(there: VolumeInfo, wanted: &NewVolume) -> Result<VolumeInfo, StorageError> {
    let parents = (there.parent.as_ref().map(|p| &p.locator), wanted.parent.as_ref().map(|p| &p.locator));
    if parents.0 == parents.1 && there.virtual_bytes == wanted.virtual_bytes {
        return Ok(there);
    }
    Err(StorageError::Invalid(format!("volume {} exists and is another one", there.volume)))
}

fn make(path: &Path, volume: &NewVolume) -> Result<(), StorageError> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(parent) = &volume.parent {
        // `-u`: the parent may be in use, and its size is given.
        command.args(["-u", "-b"]).arg(parent.locator.to_string());
        if let Some(format) = parent.format {
            command.args(["-F", format_name(format)]);
        }
    }
    run(command.arg(path).arg(volume.virtual_bytes.to_string()))
}

fn format_name(format: crate::Format) -> &'static str {
    match format {
        crate::Format::Qcow2 => "qcow2",
        crate::Format::Raw => "raw",
    }
}

fn run(command: &mut Command) -> Result<(), StorageError> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let Output { status, stderr, .. } = output.map_err(io_error("qemu-img"))?;
    if status.success() {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(&stderr).chars().take(1000).collect();
    if text.contains("No space left on device") {
        return Err(StorageError::NoSpace { needed: 0, free: 0 });
    }
    if text.contains("Failed to get") && text.contains("lock") {
        let by = "a process that has it open".to_owned();
        return Err(StorageError::InUse { what: "the image".to_owned(), by });
    }
    let source = io::Error::other(text.trim().to_owned());
    Err(StorageError::Unreachable { what: "qemu-img".to_owned(), source })
}
