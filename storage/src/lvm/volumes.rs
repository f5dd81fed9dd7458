//! [`LvmStore`]: the volumes of one volume group.

use super::domain::{Domain, LvmConfig};
use super::room::{self, Wanted};
use crate::calls::in_own_task;
use crate::image::map;
use crate::{
    Capabilities, Dependent, Extent, LiveVolumes, Locator, NewVolume, Parent, Removal, RemovalId,
    RemovalOrder, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeStore,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;

/// A storage domain that is a volume group.
#[derive(Debug, Clone)]
pub struct LvmStore {
    domain: Arc<Domain>,
}

impl LvmStore {
    /// Opens a domain: a group that exists, with all of its devices. What a crash left half made is
    /// swept; removals that condemned a volume stay listed.
    ///
    /// # Errors
    /// `Invalid` for a configuration that makes no sense; `Unreachable` when the group is not there.
    pub async fn open(id: StorageId, config: LvmConfig) -> Result<Self, StorageError> {
        let domain = in_own_task(Domain::open(id, config)).await?;
        Ok(Self { domain })
    }

    fn own(&self) -> Arc<Domain> {
        Arc::clone(&self.domain)
    }
}

#[async_trait]
impl VolumeStore for LvmStore {
    fn id(&self) -> &StorageId {
        self.domain.id()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            thin: true,
            shared: self.domain.config().shared,
            provided: true,
            wipe: true,
            discard: true,
        }
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let turn = self.domain.making.of(&volume.name).await;
        let (domain, volume) = (self.own(), volume.clone());
        in_own_task(async move {
            let _until_the_end = turn;
            domain.create(volume).await
        })
        .await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.domain.stat(volume).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        stream::once(self.domain.list())
            .flat_map(|listed| stream::iter(listed.unwrap_or_else(|error| vec![Err(error)])))
            .boxed()
    }

    async fn grow(
        &self,
        volume: &VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        in_own_task(self.own().grow(volume.clone(), virtual_bytes)).await
    }

    async fn provide(&self, volume: &VolumeName, bytes: u64) -> Result<VolumeInfo, StorageError> {
        self.provide_for(volume, bytes, 0).await
    }

    async fn provide_for(
        &self,
        volume: &VolumeName,
        bytes: u64,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let wanted = Wanted {
            bytes,
            virtual_bytes,
        };
        in_own_task(self.own().provide(volume.clone(), wanted)).await
    }

    fn chunk(&self) -> Option<u64> {
        Some(self.domain.chunk())
    }

    fn most_room(&self, virtual_bytes: u64) -> Option<u64> {
        Some(room::most(virtual_bytes, self.domain.chunk()))
    }

    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        in_own_task(self.own().reduce(volume.clone())).await
    }

    async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        self.domain.foreign().await
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let removed = self.remove_all(std::slice::from_ref(order)).await;
        removed.into_iter().next().unwrap_or_else(|| {
            let what = format!("removal {}", order.id);
            Err(StorageError::Busy { what })
        })
    }

    /// One change of the group.
    async fn remove_all(&self, orders: &[RemovalOrder]) -> Vec<Result<Removal, StorageError>> {
        let (domain, own) = (self.own(), orders.to_vec());
        let removed = in_own_task(async move { Ok(domain.remove(own).await) }).await;
        removed.unwrap_or_else(|error| orders.iter().map(|_| Err(error.again())).collect())
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        self.domain.list_removals().await
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        in_own_task(self.own().restore(removal)).await
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        Ok(self.domain.stat(volume).await?.parent)
    }

    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        self.domain.dependents(on).await
    }

    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>> {
        let name = volume.clone();
        let extents = async_stream::try_stream! {
            let (info, readable) = self.domain.readable_chain(&name).await?;
            let path = self.domain.name.path(name.as_str());
            {
                let told = map::extents(&self.domain.qemu_img, path.as_os_str(), info.format);
                for await extent in told {
                    yield extent?;
                }
            }
            readable.end().await;
        };
        extents.boxed()
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        self.domain.in_use(volume).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.domain.space().await
    }

    fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        self.domain.spells(locator)
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        self.domain.resolve(locator)
    }
}

#[async_trait]
impl LiveVolumes for LvmStore {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        in_own_task(self.own().activate(volume.clone())).await
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        in_own_task(self.own().deactivate(volume.clone())).await
    }
}
