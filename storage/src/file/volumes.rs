//! [`FileStore`]: the volumes of one directory.

use super::create;
use super::domain::Domain;
use crate::calls::{blocking, in_own_task};
use crate::condemned::now;
use crate::image::map;
use crate::{
    Capabilities, Dependent, Extent, LiveVolumes, Locator, NewVolume, Parent, Removal, RemovalId,
    RemovalOrder, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeStore,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use std::path::Path;
use std::sync::Arc;

/// A storage domain that is a directory.
#[derive(Debug, Clone)]
pub struct FileStore {
    domain: Arc<Domain>,
    wiped_per_second: u64,
}

/// The most that a wipe writes in a second, unless something else is said.
const WIPED_PER_SECOND: u64 = 200 << 20;

impl FileStore {
    /// Opens a domain: a directory that exists. Its own subdirectory is made if it is missing, and
    /// swept of what a crash left unfinished; removals that condemned a volume stay listed.
    ///
    /// # Errors
    /// When the directory is not there or cannot be written.
    pub async fn open(id: StorageId, root: &Path) -> Result<Self, StorageError> {
        let root = root.to_owned();
        let domain = blocking(move || Domain::open(id, &root)).await?;
        Ok(Self {
            domain: Arc::new(domain),
            wiped_per_second: WIPED_PER_SECOND,
        })
    }

    /// The same, with so many bytes that a wipe writes in a second at most; 200 MiB without it.
    pub fn wiping_at(self, bytes_per_second: u64) -> Self {
        Self {
            wiped_per_second: bytes_per_second,
            ..self
        }
    }
}

#[async_trait]
impl VolumeStore for FileStore {
    fn id(&self) -> &StorageId {
        self.domain.id()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            thin: true,
            shared: true,
            provided: false,
            wipe: true,
            discard: false,
        }
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let turn = self.domain.making.of(&volume.name).await;
        let (domain, volume) = (Arc::clone(&self.domain), volume.clone());
        in_own_task(async move {
            let _until_the_end = turn;
            create::create(domain, volume).await
        })
        .await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        let name = volume.clone();
        self.domain.look(move |domain| domain.stat(&name)).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        let listed = self.domain.look(Domain::list);
        stream::once(listed)
            .flat_map(|listed| stream::iter(listed.unwrap_or_else(|error| vec![Err(error)])))
            .boxed()
    }

    async fn grow(
        &self,
        volume: &VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        in_own_task(create::grow(
            Arc::clone(&self.domain),
            volume.clone(),
            virtual_bytes,
        ))
        .await
    }

    async fn provide(&self, volume: &VolumeName, _bytes: u64) -> Result<VolumeInfo, StorageError> {
        self.stat(volume).await
    }

    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.deactivate(volume).await?;
        self.stat(volume).await
    }

    async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        self.domain.look(Domain::foreign).await
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let (domain, order) = (Arc::clone(&self.domain), order.clone());
        in_own_task(domain.remove(order, self.wiped_per_second)).await
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        self.domain.look(Domain::list_removals).await
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        self.domain
            .with(move |domain| domain.restore(removal).and_then(|name| domain.stat(&name)))
            .await
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        let name = volume.clone();
        self.domain
            .look(move |domain| Ok(domain.image(&name)?.parent(&domain.root)))
            .await
    }

    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        let on = on.to_vec();
        self.domain
            .look(move |domain| domain.dependents(&on, now()))
            .await
    }

    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>> {
        let name = volume.clone();
        let begun = self.domain.look(move |domain| {
            domain.chain_ends(&name)?;
            let (path, image) = (domain.path(&name), domain.image(&name)?);
            Ok(map::extents(
                &domain.qemu_img,
                path.as_os_str(),
                image.format(),
            ))
        });
        stream::once(begun).try_flatten().boxed()
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        let name = volume.clone();
        self.domain.look(move |domain| domain.in_use(&name)).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.domain.look(Domain::space).await
    }

    fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        match locator {
            Locator::File(path) => self.domain.volume_at(path),
            Locator::Block(_) | Locator::Nbd(_) => None,
        }
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        self.domain.resolve(locator)
    }
}

#[async_trait]
impl LiveVolumes for FileStore {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        Ok(self.stat(volume).await?.locator)
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        if self.in_use(volume).await? {
            return Err(self.domain.in_use_by(volume, "a process that has it open"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RemovalState;
    use crate::calls::MOST;
    use std::time::Duration;
    use uuid::Uuid;

    /// An image of 1 MiB that names another one of its directory, whatever that is.
    fn image(dir: &Path, name: &str, below: &str) {
        let mut create = std::process::Command::new("qemu-img");
        create.args([
            "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below,
        ]);
        let made = create.arg(dir.join(name)).arg("1M").status();
        assert!(made.expect("qemu-img is needed here").success());
    }

    async fn removed(store: &FileStore, name: &str) -> Result<RemovalState, StorageError> {
        let name: VolumeName = name.parse().unwrap();
        let identity = store.stat(&name).await.unwrap().identity;
        let order = RemovalOrder::new(RemovalId::from(Uuid::new_v4()), name, identity);
        store.remove(&order).await.map(|removal| removal.state)
    }

    #[tokio::test]
    async fn a_header_that_names_itself_or_a_loop_ends_no_call() {
        let dir = tempfile::tempdir().unwrap();
        for (name, below) in [("own", "own"), ("one", "other"), ("other", "one")] {
            image(
                dir.path(),
                &format!("{name}.qcow2"),
                &format!("{below}.qcow2"),
            );
        }
        let id = "domain".parse().unwrap();
        let store = FileStore::open(id, dir.path()).await.unwrap();
        let mut locators = Vec::new();
        for name in ["own.qcow2", "one.qcow2", "other.qcow2"] {
            let name: VolumeName = name.parse().unwrap();
            locators.push(store.stat(&name).await.unwrap().locator);
            let extents: Result<Vec<_>, _> = store.extents(&name).try_collect().await;
            let corrupt = matches!(extents, Err(StorageError::Corrupt { .. }));
            assert!(corrupt, "{extents:?}");
        }
        // What is built on itself needs nobody else.
        assert_eq!(store.dependents(&locators).await.unwrap().len(), 2);
        assert_eq!(
            removed(&store, "own.qcow2").await.unwrap(),
            RemovalState::Gone
        );
        for name in ["one.qcow2", "other.qcow2"] {
            let refused = removed(&store, name).await;
            assert!(
                matches!(refused, Err(StorageError::InUse { .. })),
                "{refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn whatever_is_no_volume_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["v.raw", "notes.txt", ".hidden.raw"] {
            std::fs::write(dir.path().join(file), [7; 512]).unwrap();
        }
        std::fs::create_dir(dir.path().join("sub.raw")).unwrap();
        std::os::unix::fs::symlink("v.raw", dir.path().join("link.raw")).unwrap();
        let id = "domain".parse().unwrap();
        let store = FileStore::open(id, dir.path()).await.unwrap();
        let foreign = [".hidden.raw", "link.raw", "notes.txt", "sub.raw"];
        assert_eq!(store.foreign().await.unwrap(), foreign);
    }

    #[tokio::test]
    async fn wipes_that_wait_for_their_turn_hold_up_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let id = "domain".parse().unwrap();
        let store = FileStore::open(id, dir.path()).await.unwrap();
        let store = store.wiping_at(u64::MAX);
        let first = store.domain.wiping.lock().await;
        let mut removals = Vec::new();
        for number in 0..=MOST {
            let name: VolumeName = format!("{number}.raw").parse().unwrap();
            std::fs::write(dir.path().join(name.as_str()), [7; 4096]).unwrap();
            let identity = store.stat(&name).await.unwrap().identity;
            let order = RemovalOrder {
                wipe: true,
                ..RemovalOrder::new(RemovalId::from(Uuid::new_v4()), name, identity)
            };
            let store = store.clone();
            removals.push(tokio::spawn(async move { store.remove(&order).await }));
        }
        // All of them have begun.
        while !store.list().collect::<Vec<_>>().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.space().await.unwrap();
        assert_eq!(store.list_removals().await.unwrap().len(), MOST + 1);
        drop(first);
        for removal in removals {
            let removal = removal.await.unwrap().unwrap();
            assert_eq!(removal.state, RemovalState::Gone);
            assert!(removal.freed_bytes > 0);
        }
    }
}
