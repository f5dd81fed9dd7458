//! A storage domain in memory, on the images that the scripted hypervisor runs from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt as _};
use livemerge_host_agent::hypervisor::fake::{FakeImages, IMAGE_BYTES};
use livemerge_proto::reason::Reason;
use livemerge_storage::{
    Capabilities, Content, Dependent, Extent, Format, Identity, LiveVolumes, Locator, NewVolume,
    Parent, Removal, RemovalId, RemovalOrder, RemovalState, Space, StorageError, StorageId,
    USUAL_CLUSTER_BYTES, VolumeInfo, VolumeName, VolumeRef, VolumeStore,
};
use tonic::async_trait;

use super::between::{Between, Nothing, Upset};

const ROOT: &str = "/fake";
/// What one block of the scripted images stands for, in bytes.
const BLOCK: u64 = 1 << 16;
const SIZE: u64 = 1 << 30;

/// Volumes and the marks that tell them apart. Clones are the same domain.
#[derive(Clone)]
pub struct FakeVolumes {
    id: StorageId,
    images: FakeImages,
    marks: Arc<Mutex<Marks>>,
    between: Arc<dyn Between>,
}

#[derive(Debug, Default)]
struct Marks {
    next: u64,
    allocated_bytes: Option<u64>,
    by_name: BTreeMap<VolumeName, u64>,
    encrypted: BTreeSet<VolumeName>,
    bitmaps: BTreeMap<VolumeName, Vec<String>>,
    condemned: BTreeMap<RemovalId, VolumeInfo>,
}

impl FakeVolumes {
    /// An empty domain named `default`.
    pub fn new(images: FakeImages) -> Self {
        Self::behind(images, Arc::new(Nothing))
    }

    /// The same, with something between it and the agent.
    pub fn behind(images: FakeImages, between: Arc<dyn Between>) -> Self {
        Self {
            id: "default".parse().expect("an id"),
            images,
            marks: Arc::default(),
            between,
        }
    }

    /// Adds a base volume.
    pub fn add_base(&self, name: &str) -> Locator {
        let name: VolumeName = name.parse().expect("a volume's name");
        let locator = locator(&name);
        self.images.create(&locator, None);
        self.mark(name);
        locator
    }

    /// Adds a volume that is built on another.
    pub fn add_overlay(&self, name: &str, below: &Locator) -> Locator {
        let locator = self.add_base(name);
        self.images.create(&locator, Some(below));
        locator
    }

    /// What every volume takes from now on, whatever was written to it.
    pub fn allocate(&self, bytes: u64) {
        self.lock().allocated_bytes = Some(bytes);
    }

    /// Somebody puts another volume in the place of one.
    pub fn replace(&self, name: &str) {
        self.mark(name.parse().expect("a volume's name"));
    }

    /// Somebody takes a volume away; whoever has it open goes on.
    pub fn lose(&self, name: &str) {
        let name: VolumeName = name.parse().expect("a volume's name");
        self.lock().by_name.remove(&name);
    }

    /// A volume's header says from now on that it is encrypted.
    pub fn encrypt(&self, name: &str) {
        let name = name.parse().expect("a volume's name");
        self.lock().encrypted.insert(name);
    }

    /// A backup keeps a dirty bitmap of this name in a volume.
    pub fn add_bitmap(&self, name: &str, bitmap: &str) {
        let name = name.parse().expect("a volume's name");
        let mut marks = self.lock();
        marks
            .bitmaps
            .entry(name)
            .or_default()
            .push(bitmap.to_owned());
    }

    /// A removal stops half-way: the volume is condemned, and its space not freed.
    pub fn condemn(&self, name: &str, removal: RemovalId) {
        let name: VolumeName = name.parse().expect("a volume's name");
        let info = self.info(&name).expect("a volume of the domain");
        let mut marks = self.lock();
        marks.by_name.remove(&name);
        marks.condemned.insert(removal, info);
    }

    /// The names of all volumes.
    pub fn names(&self) -> Vec<String> {
        self.lock()
            .by_name
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    fn mark(&self, name: VolumeName) {
        let mut marks = self.lock();
        marks.next += 1;
        let mark = marks.next;
        marks.by_name.insert(name, mark);
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self, name: &VolumeName) -> Result<VolumeInfo, StorageError> {
        let marks = self.lock();
        let mark = marks.by_name.get(name).copied();
        let allocated_bytes = marks.allocated_bytes.unwrap_or(BLOCK);
        let encrypted = marks.encrypted.contains(name);
        let bitmaps = marks.bitmaps.get(name).cloned().unwrap_or_default();
        drop(marks);
        let mark = mark.ok_or_else(|| StorageError::NotFound {
            what: format!("volume {name}"),
        })?;
        let identity: Identity = format!("mark-{mark}").parse().expect("an identity");
        let locator = locator(name);
        let parent = self.images.backing(&locator);
        Ok(VolumeInfo {
            volume: VolumeRef {
                storage: self.id.clone(),
                name: name.clone(),
            },
            identity,
            format: self.images.format(&locator).unwrap_or(Format::Qcow2),
            virtual_bytes: self.images.bytes(&locator).unwrap_or(IMAGE_BYTES),
            allocated_bytes,
            parent: parent.map(|locator| Parent {
                format: self.images.format(&locator),
                locator,
            }),
            locator,
            cluster_bytes: USUAL_CLUSTER_BYTES,
            encrypted,
            bitmaps,
        })
    }

    /// What a reader of the volume sees, block by block.
    fn seen_by(&self, volume: &VolumeName) -> Result<Vec<Extent>, StorageError> {
        let own = self.info(volume)?.locator;
        let mut chain = self.images.chain(&own).unwrap_or_default();
        chain.reverse();
        let held: Vec<_> = chain
            .iter()
            .map(|image| self.images.own_blocks(image))
            .collect();
        let last = held.iter().filter_map(|blocks| blocks.last()).max();
        let blocks = 0..=last.copied().unwrap_or_default();
        let extent = |block: u64| {
            let holder = held.iter().position(|blocks| blocks.contains(&block));
            let content = match holder {
                Some(_) => Content::Data { in_place: true },
                None => Content::Nothing,
            };
            Extent {
                start: block * BLOCK,
                length: BLOCK,
                depth: holder.unwrap_or_default(),
                content,
            }
        };
        Ok(blocks.map(extent).collect())
    }

    async fn purge(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let own = locator(&order.volume);
        let condemned = self.lock().condemned.remove(&order.id);
        let freed_bytes = match self.info(&order.volume) {
            _ if condemned.is_some() => {
                self.images.remove(&own);
                condemned.map_or(0, |info| info.allocated_bytes)
            }
            Ok(info) if info.identity == order.identity => {
                let names: Vec<VolumeName> = self.lock().by_name.keys().cloned().collect();
                if let Some(child) = names
                    .iter()
                    .find(|n| self.images.backing(&locator(n)).as_ref() == Some(&own))
                {
                    return Err(StorageError::InUse {
                        what: order.volume.to_string(),
                        by: child.to_string(),
                    });
                }
                self.between.removing(&order.volume).await;
                self.images.remove(&own);
                self.lock().by_name.remove(&order.volume);
                info.allocated_bytes
            }
            Ok(_another) => 0,
            Err(StorageError::NotFound { .. }) => 0,
            Err(error) => return Err(error),
        };
        let volume = VolumeRef {
            storage: self.id.clone(),
            name: order.volume.clone(),
        };
        Ok(Removal {
            id: order.id,
            volume,
            identity: order.identity.clone(),
            state: RemovalState::Gone,
            freed_bytes,
            condemned_at: None,
        })
    }

    async fn asked<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        match self.between.storage(call) {
            None => work.await,
            Some(Upset::Refused | Upset::Unreached) => Err(unreached(call)),
            Some(Upset::Answers(reason)) => Err(failed(call, reason)),
            Some(Upset::Lost | Upset::Late) => work.await.and(Err(unreached(call))),
        }
    }
}

#[async_trait]
impl VolumeStore for FakeVolumes {
    fn id(&self) -> &StorageId {
        &self.id
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
        let created = || {
            if self.info(&volume.name).is_err() {
                let backing = volume.parent.as_ref().map(|parent| &parent.locator);
                self.images.create(&locator(&volume.name), backing);
                self.mark(volume.name.clone());
            }
            self.info(&volume.name)
        };
        self.asked("create", async { created() }).await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.asked("stat", async { self.info(volume) }).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        let names: Vec<VolumeName> = self.lock().by_name.keys().cloned().collect();
        let mut infos: Vec<_> = names.into_iter().map(|name| self.info(&name)).collect();
        if self.between.storage("list").is_some() {
            infos.push(Err(unreached("list")));
        }
        stream::iter(infos).boxed()
    }

    /// Each block that a volume of the chain has, at the volume that has it; nothing between.
    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>> {
        let extents = self.seen_by(volume).map_or_else(
            |error| vec![Err(error)],
            |extents| extents.into_iter().map(Ok).collect(),
        );
        stream::iter(extents).boxed()
    }

    async fn grow(
        &self,
        volume: &VolumeName,
        _virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        self.info(volume)
    }

    async fn provide(&self, volume: &VolumeName, _bytes: u64) -> Result<VolumeInfo, StorageError> {
        self.info(volume)
    }

    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.info(volume)
    }

    async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        self.asked("remove", self.purge(order)).await
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        let marks = self.lock();
        let removals = marks.condemned.iter().map(|(id, info)| Removal {
            id: *id,
            volume: info.volume.clone(),
            identity: info.identity.clone(),
            state: RemovalState::Condemned { keep_until: None },
            freed_bytes: 0,
            condemned_at: None,
        });
        Ok(removals.collect())
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        Err(StorageError::NotFound {
            what: format!("removal {removal}"),
        })
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        Ok(self.info(volume)?.parent)
    }

    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        let built_on = self.images.built_on(on);
        let marks = self.lock();
        let built_on = built_on.into_iter().filter_map(|(locator, on)| {
            let name = self.resolve(&locator)?;
            marks.by_name.contains_key(&name).then_some(Dependent {
                on,
                locator,
                volume: Some(name),
                kept: false,
            })
        });
        Ok(built_on.collect())
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        self.info(volume).map(|_| false)
    }

    async fn space(&self) -> Result<Space, StorageError> {
        Ok(Space {
            free_bytes: SIZE,
            total_bytes: SIZE,
        })
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        let Locator::File(path) = locator else {
            return None;
        };
        path.strip_prefix(ROOT).ok()?.to_str()?.parse().ok()
    }
}

#[async_trait]
impl LiveVolumes for FakeVolumes {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        Ok(self.info(volume)?.locator)
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        self.info(volume).map(drop)
    }
}

fn locator(name: &VolumeName) -> Locator {
    Locator::File(PathBuf::from(ROOT).join(name.as_str()))
}

fn unreached(call: &str) -> StorageError {
    StorageError::Unreachable {
        what: call.to_owned(),
        source: std::io::Error::other("as the test has planned"),
    }
}

/// As storage says it itself.
fn failed(call: &str, reason: Reason) -> StorageError {
    match reason {
        Reason::VolumeInUse => StorageError::InUse {
            what: call.to_owned(),
            by: "the test".to_owned(),
        },
        Reason::InsufficientSpace => StorageError::NoSpace { needed: 1, free: 0 },
        _ => unreached(call),
    }
}
