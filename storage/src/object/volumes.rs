//! [`ObjectVolumes`]: the volumes of one prefix of an object store.

use super::bucket::Bucket;
use super::create::{self, NEW};
use super::domain::Domain;
use super::exporter::CLIENT_LIMIT;
use super::foreign;
use super::image::parent;
use super::keeper::{ExporterPlace, Keeper};
use super::lease::Times;
use super::marks::Mark;
use crate::calls::in_own_task;
use crate::error::io_error;
use crate::image::map;
use crate::{
    Capabilities, Dependent, Extent, Format, LiveVolumes, Locator, NewVolume, Parent, Removal,
    RemovalId, RemovalOrder, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeStore,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Volumes that are looked at at once.
const AT_ONCE: usize = 16;
/// An object store says nothing of its room: as much as anybody can ask for, 1 EiB.
const ROOM: u64 = 1 << 60;

/// A storage domain on an object store.
#[derive(Debug, Clone)]
pub struct ObjectVolumes {
    domain: Arc<Domain>,
    keeper: Arc<Keeper>,
}

impl ObjectVolumes {
    /// Opens a domain: the objects at a URL, with the credentials of this process's environment, and
    /// a directory of this host for its exporter's socket. The directory has the same path on all
    /// hosts that see the domain: headers name it.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none, and for a store that does not keep the conditions of a put;
    /// `Denied`, `Unreachable` when it does not let itself be written.
    pub async fn open(
        id: StorageId,
        url: &str,
        dir: &Path,
        place: ExporterPlace,
    ) -> Result<Self, StorageError> {
        let bucket = Bucket::open(url, CLIENT_LIMIT)?;
        let domain = Domain::new(id, bucket, dir, Times::default())?;
        Self::over(Arc::new(domain), place).await
    }

    /// Over objects that somebody else holds, for tests: without an environment, and with an exporter
    /// in this process. Leases last as long as is said.
    ///
    /// # Errors
    /// As [`ObjectVolumes::open`].
    #[cfg(feature = "conformance")]
    pub async fn over_store(
        id: StorageId,
        store: Arc<dyn object_store::ObjectStore>,
        prefix: &str,
        dir: &Path,
        lease: std::time::Duration,
    ) -> Result<Self, StorageError> {
        let prefix = object_store::path::Path::parse(prefix);
        let prefix = prefix.map_err(|error| StorageError::Invalid(error.to_string()))?;
        let times = Times {
            lease,
            request: lease / 3,
        };
        let domain = Domain::new(id, Bucket::of(store, prefix), dir, times)?;
        Self::over(Arc::new(domain), ExporterPlace::Within).await
    }

    async fn over(domain: Arc<Domain>, place: ExporterPlace) -> Result<Self, StorageError> {
        domain.check().await?;
        sweep(&domain.dir.join(NEW))?;
        let keeper = Keeper::new(Arc::clone(&domain), place);
        Ok(Self { domain, keeper })
    }

    /// Starts the domain's exporter, or adopts the one that runs, and starts it again whenever it
    /// ends: machines that run need it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn keep_exporting(&self) -> Result<(), StorageError> {
        self.keeper.ensure().await?;
        self.keeper.watch();
        Ok(())
    }
}

/// What an earlier process left unfinished.
fn sweep(new: &Path) -> Result<(), StorageError> {
    let failed = || io_error(new.display());
    std::fs::create_dir_all(new).map_err(failed())?;
    for entry in std::fs::read_dir(new).map_err(failed())? {
        std::fs::remove_file(entry.map_err(failed())?.path()).map_err(failed())?;
    }
    Ok(())
}

impl Domain {
    /// Takes a volume alone: nobody on this host has it open, nobody elsewhere writes to it.
    pub(super) async fn alone(&self, name: &VolumeName, uuid: Uuid) -> Result<Mark, StorageError> {
        let mark = self.marks.alone(uuid).await?;
        let mark = mark.ok_or_else(|| self.in_use_by(name, "a process that has it open"))?;
        if self.is_written(uuid).await? {
            return Err(self.in_use_by(name, "a process that writes to it, or did a moment ago"));
        }
        Ok(mark)
    }

    async fn in_use(&self, name: &VolumeName) -> Result<bool, StorageError> {
        let uuid = self.find(name).await?.uuid;
        match self.alone(name, uuid).await {
            Ok(_) => Ok(false),
            Err(StorageError::InUse { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl VolumeStore for ObjectVolumes {
    fn id(&self) -> &StorageId {
        &self.domain.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            thin: true,
            shared: true,
            provided: false,
            wipe: false,
            discard: false,
        }
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        in_own_task(create::create(Arc::clone(&self.domain), volume.clone())).await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.domain.stat(volume).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        let names = async {
            Ok(stream::iter(
                self.domain.names.all().await?.into_iter().map(Ok),
            ))
        };
        let stat = move |(name, uuid)| async move {
            let manifest = match self.domain.manifest(&name, uuid).await {
                Ok(manifest) => manifest,
                Err(StorageError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            match self.domain.info(&name, &manifest).await {
                Ok(info) => Ok(Some(info)),
                // Removed between the listing and the look: not there.
                Err(error) => match self.domain.find(&name).await {
                    Err(StorageError::NotFound { .. }) => Ok(None),
                    _ => Err(error),
                },
            }
        };
        let infos = stream::once(names).try_flatten().map_ok(stat);
        // One that cannot be read does not hide the others.
        infos
            .map(|found| async { found?.await })
            .buffer_unordered(AT_ONCE)
            .filter_map(|info| std::future::ready(info.transpose()))
            .boxed()
    }

    async fn grow(
        &self,
        volume: &VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let domain = Arc::clone(&self.domain);
        in_own_task(create::grow(domain, volume.clone(), virtual_bytes)).await
    }

    async fn provide(&self, volume: &VolumeName, _bytes: u64) -> Result<VolumeInfo, StorageError> {
        self.stat(volume).await
    }

    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.deactivate(volume).await?;
        self.stat(volume).await
    }

    async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        foreign::foreign(&self.domain).await
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let (domain, order) = (Arc::clone(&self.domain), order.clone());
        in_own_task(async move { domain.remove(&order).await }).await
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        self.domain.look_for_orphans();
        self.domain.list_removals().await
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        let domain = Arc::clone(&self.domain);
        in_own_task(async move {
            let name = domain.restore(removal).await?;
            domain.stat(&name).await
        })
        .await
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        let uuid = self.domain.find(volume).await?.uuid;
        let header = self.domain.header(uuid, &self.domain.what(volume)).await?;
        Ok(parent(&header))
    }

    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        self.domain.dependents(on).await
    }

    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>> {
        let name = volume.clone();
        let begun = async move {
            self.domain.chain_ends(&name).await?;
            let locator = self.activate(&name).await?;
            let uri = OsString::from(locator.to_string());
            Ok(map::extents(&self.domain.qemu_img, &uri, Format::Qcow2))
        };
        stream::once(begun).try_flatten().boxed()
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        self.domain.in_use(volume).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        // Answered by a store that answers.
        self.domain.names.all().await?;
        Ok(Space {
            free_bytes: ROOM,
            total_bytes: ROOM,
        })
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        self.domain.resolve(locator)
    }

    fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        self.domain.resolve(locator)
    }
}

#[async_trait]
impl LiveVolumes for ObjectVolumes {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        self.domain.find(volume).await?;
        self.keeper.ensure().await?;
        Ok(self.domain.locator(volume))
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        if self.in_use(volume).await? {
            return Err(self.domain.in_use_by(volume, "a process that has it open"));
        }
        Ok(())
    }
}
