//! Room in the storage domains, and of volumes that have only what they are given.

use super::{Volumes, problem};
use futures::stream::{BoxStream, StreamExt as _};
use livemerge_proto::problem::Problem;
use livemerge_storage::{
    LiveVolumes, Locator, Space, StorageError, StorageId, VolumeInfo, VolumeRef,
};
use std::sync::Arc;

impl Volumes {
    /// Whether a domain of this host gives volumes their room.
    pub fn any_provided(&self) -> bool {
        self.stores().any(|store| store.capabilities().provided)
    }

    /// The room that a full volume has, where it has only what it is given.
    pub fn most_room(&self, volume: &VolumeInfo) -> Option<u64> {
        let store = self.store(&volume.volume.storage).ok()?;
        store.most_room(volume.virtual_bytes)
    }

    /// The volume under this locator, when it has only the room that it is given.
    pub fn provided(&self, locator: &Locator) -> Option<VolumeRef> {
        let volume = self.volume_of(locator)?;
        self.gives(&volume.storage).then_some(volume)
    }

    /// The same, without waiting for storage that hangs: a path that no domain spells so is looked at by
    /// the domains that give room, one of this host's devices at once, and any other, which may lead to
    /// one, apart and without waiting for long.
    pub async fn provided_in_time(&self, locator: &Locator) -> Option<VolumeRef> {
        let (Locator::File(path) | Locator::Block(path)) = locator else {
            return None;
        };
        let giving = || self.stores().filter(|store| store.capabilities().provided);
        let volume = |store: &Arc<dyn LiveVolumes>, name| VolumeRef {
            storage: store.id().clone(),
            name,
        };
        let spelled = |store| Some(volume(store, store.spells(locator)?));
        let resolved = |store| Some(volume(store, store.resolve(locator)?));
        if let Some(volume) = giving().find_map(spelled) {
            return Some(volume);
        }
        if path.starts_with("/dev") {
            return giving().find_map(resolved);
        }
        self.links
            .resolve(locator, giving().cloned().collect())
            .await
    }

    /// Whether volumes of a domain have only the room that they are given.
    pub fn gives(&self, storage: &StorageId) -> bool {
        let store = self.store(storage);
        store.is_ok_and(|store| store.capabilities().provided)
    }

    /// What a domain gives its volumes at once, at least.
    pub fn chunk(&self, storage: &StorageId) -> Option<u64> {
        self.store(storage).ok()?.chunk()
    }

    /// Gives a volume room for so many bytes, and tells what it has.
    pub async fn provide(&self, volume: &VolumeRef, bytes: u64) -> Result<u64, Problem> {
        self.provide_for(volume, bytes, 0).await
    }

    /// The same of a volume that is to be so large before it needs it.
    pub async fn provide_for(
        &self,
        volume: &VolumeRef,
        bytes: u64,
        virtual_bytes: u64,
    ) -> Result<u64, Problem> {
        let given = self
            .store(&volume.storage)?
            .provide_for(&volume.name, bytes, virtual_bytes)
            .await;
        let given = given.map_err(|error| problem(&error).with("volume", volume));
        if let Some(meter) = self.meter.get() {
            meter.provided(&given);
        }
        Ok(given?.allocated_bytes)
    }

    /// Takes back the room that a volume which nobody has open does not need, and tells what it has.
    pub async fn reduce(&self, volume: &VolumeRef) -> Result<u64, Problem> {
        let reduced = self.store(&volume.storage)?.reduce(&volume.name).await;
        let reduced = reduced.map_err(|error| problem(&error).with("volume", volume))?;
        Ok(reduced.allocated_bytes)
    }

    /// Room in a domain, within its quota. Volumes that were removed and are kept do not count.
    pub async fn space(&self, storage: &StorageId) -> Result<Space, Problem> {
        let domain = self.domain(storage)?;
        let space = domain.store.space().await;
        let space = space.map_err(|error| problem(&error).with("storage", storage))?;
        let Some(quota_bytes) = domain.quota_bytes else {
            return Ok(space);
        };
        let taken = taken(domain.store.list()).await;
        let taken = taken.map_err(|error| problem(&error).with("storage", storage))?;
        let left_bytes = quota_bytes.saturating_sub(taken);
        Ok(Space {
            free_bytes: space.free_bytes.min(left_bytes),
            total_bytes: space.total_bytes.min(quota_bytes),
        })
    }
}

/// What the volumes of a domain take together. One whose image is damaged has no say in whether others
/// get room: nobody writes it.
async fn taken(
    mut volumes: BoxStream<'_, Result<VolumeInfo, StorageError>>,
) -> Result<u64, StorageError> {
    let mut taken: u64 = 0;
    while let Some(volume) = volumes.next().await {
        match volume {
            Ok(volume) => taken = taken.saturating_add(volume.allocated_bytes),
            Err(damaged @ StorageError::Corrupt { .. }) => {
                tracing::warn!(%damaged, "what it takes of the domain's quota is not counted");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::Domain;
    use crate::growth::Room as _;
    use crate::rig::Rig;
    use livemerge_storage::VolumeStore as _;
    use livemerge_storage::faulty::{Call, Moment};

    #[tokio::test]
    async fn one_damaged_volume_of_a_domain_with_a_quota_stops_no_other() {
        const QUOTA: u64 = 64 << 20;
        let rig = Rig::new().await;
        let whole = rig.volume("whole.qcow2", None).await;
        rig.volume("damaged.qcow2", None).await;
        std::fs::write(rig.path("damaged.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
        let listed: Vec<_> = rig.store.list().collect().await;
        assert!(listed.iter().any(Result::is_err));
        let domain = Domain {
            quota_bytes: Some(QUOTA),
            ..Domain::plain(Arc::clone(&rig.store) as _)
        };
        let volumes = Volumes::new(vec![domain], rig.hypervisor());
        let storage = &whole.volume.storage;
        let space = volumes.space(storage).await.unwrap();
        assert_eq!(space.free_bytes, QUOTA - whole.allocated_bytes);
        // A domain that does not answer has no room that anybody knows of.
        rig.store.lose(Call::List, Moment::Before);
        volumes.space(storage).await.unwrap_err();
    }

    /// To look at it may mean to wait for a removal.
    #[tokio::test]
    async fn whoever_keeps_guests_in_room_asks_as_for_more() {
        let rig = Rig::new().await;
        let volume = rig.volume("top.qcow2", None).await;
        rig.store.lose(Call::Stat, Moment::Before);
        let room = rig.volumes.room(&volume.volume).await.unwrap();
        assert_eq!(room, volume.allocated_bytes);
        assert_eq!(rig.store.pending(), 1);
    }
}
