//! The removal of a volume: gate, condemn, keep, purge; each resumable by the same order.
//!
//! ```text
//!   alone on this host,   ─▶ tombstone put ─▶ name taken ─▶ gate again ─┬─ needed after all: name given
//!   no lease, gate            Taking           condemned                │  back, refused
//!                                                                       │
//!                  keep_for over ◀── Kept ◀──────── to be kept ─────────┤
//!                        └──────────▶ Purging ◀──────────── not ────────┘
//!                                        └─▶ manifest, blocks, lease deleted until none is listed
//!                                                └─▶ tombstone deleted
//! ```
//!
//! - Whoever builds on a volume gives the new one its name first, and then looks whether what is
//!   below still has its own; the gate looks the other way round. So one of the two sees the other.
//! - Until then nobody is given the name of the volume that is being taken away, neither a new one nor one
//!   that is brought back: what had been built on that would be built on this one. They look before they
//!   are given it, and again when they have it.
//! - A tombstone is changed only as it was read. Purging is never taken back, and comes before the
//!   first object is deleted.
//! - While a volume has its name it is not condemned, whatever a tombstone says: it was on its way
//!   there, or back. So whoever condemns it takes the tombstones away that others have left of it, before
//!   it loses its name: they would free it when it is kept by the new one.

use super::domain::Domain;
use super::keys::Key;
use super::listing;
use super::purge;
use super::records::Read;
use crate::condemned::{Condemned, now};
use crate::{Removal, RemovalId, RemovalOrder, StorageError, VolumeName};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use std::sync::PoisonError;
use uuid::Uuid;

/// Tombstones that are read at once.
const AT_ONCE: usize = 32;

/// How far a removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// The name is being taken, and what is built on the volume looked for once more.
    Taking,
    /// Condemned, and whole.
    Kept,
    /// It has its name back.
    Restored,
    /// Nothing brings it back.
    Purging,
}

/// A removal as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tombstone {
    pub(super) stage: Stage,
    #[serde(flatten)]
    pub(super) order: Condemned,
}

impl Tombstone {
    pub(super) fn at(&self, stage: Stage) -> Self {
        let mut next = self.clone();
        next.stage = stage;
        next.order.purging = stage == Stage::Purging;
        next
    }
}

impl Domain {
    pub(super) async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        if order.wipe || order.discard {
            let text = "an object store neither overwrites nor discards what is deleted";
            return Err(StorageError::Invalid(text.to_owned()));
        }
        let Ok(uuid) = Uuid::try_parse(order.identity.as_str()) else {
            return Ok(order.gone(&self.id, 0, None));
        };
        let turn = self.turn.lock().await;
        let (condemned, version) = match self.condemned(order, uuid).await? {
            Some(condemned) => condemned,
            None => return Ok(order.gone(&self.id, 0, None)),
        };
        let at = condemned.order.condemned_at;
        if condemned.stage != Stage::Purging {
            if condemned.order.is_kept(now()) {
                return Ok(condemned.order.removal(order.id, &self.id));
            }
            let purging = condemned.at(Stage::Purging);
            self.replace(order.id, &purging, version).await?;
        }
        let _busy = Purging::begin(self, uuid, &order.volume)?;
        // Freeing takes its time, and concerns no name.
        drop(turn);
        let freed = self.purge(uuid).await?;
        self.records.delete(&self.keys.removal(order.id)).await?;
        self.marks.forget(uuid);
        self.spill(uuid).clear().await?;
        Ok(order.gone(&self.id, freed, Some(at)))
    }

    /// The tombstone of the volume, which is condemned; `None` when it is gone, or the name is
    /// another volume's.
    async fn condemned(
        &self,
        order: &RemovalOrder,
        uuid: Uuid,
    ) -> Result<Option<(Tombstone, UpdateVersion)>, StorageError> {
        let stone = self.tombstone(order.id).await?;
        if let Some(stone) = &stone {
            stone.record.order.check(order)?;
        }
        let holder = self.names.holder(&order.volume).await?;
        let is_named = holder == Some(uuid);
        match stone {
            Some(stone) if stone.record.stage == Stage::Purging => {
                Ok(Some((stone.record, stone.version)))
            }
            Some(stone) if !is_named && stone.record.stage == Stage::Restored => {
                // Brought back, and removed by another order since.
                self.records.delete(&self.keys.removal(order.id)).await?;
                Ok(None)
            }
            Some(stone) if !is_named && stone.record.stage == Stage::Kept => {
                Ok(Some((stone.record, stone.version)))
            }
            // What is built on the name is built on the one that has it by now, unless that is on its way
            // back and will not be let have it. Nobody is given a name that is being taken: by an earlier
            // build they were.
            Some(stone) if !is_named && holder.is_some() => {
                if self.comes_back(holder).await? {
                    return Err(busy(order.id));
                }
                self.keep(order, stone).await.map(Some)
            }
            Some(stone) if !is_named => self.look_again(order, uuid, stone).await.map(Some),
            stone if is_named && !order.resumes => self.condemn(order, uuid, stone).await,
            _ => Ok(None),
        }
    }

    /// Whether the one that has a name is being restored.
    async fn comes_back(&self, holder: Option<Uuid>) -> Result<bool, StorageError> {
        let holder = holder.map(|uuid| uuid.to_string());
        let stones = self.tombstones().await?;
        let mut stones = stones.iter();
        Ok(stones.any(|(_, stone)| Some(stone.order.identity.as_str()) == holder.as_deref()))
    }

    async fn condemn(
        &self,
        order: &RemovalOrder,
        uuid: Uuid,
        before: Option<Read<Tombstone>>,
    ) -> Result<Option<(Tombstone, UpdateVersion)>, StorageError> {
        // Only looks, and each is an answer of its own.
        let (manifest, alone, gate, void) = tokio::join!(
            self.manifest(&order.volume, uuid),
            self.alone(&order.volume, uuid),
            self.gate(order),
            self.other_tombstones(order),
        );
        // A name that was left behind.
        if let Err(StorageError::NotFound { .. }) = manifest {
            self.names.take(&order.volume, uuid).await?;
            return Ok(None);
        }
        manifest?;
        let alone = alone?;
        gate?;
        // It has its name: what says otherwise is left of a removal, or of a restoration, that died.
        let void = void?;
        let stone = Tombstone {
            stage: Stage::Taking,
            order: Condemned::new(order, now()),
        };
        let at = self.keys.removal(order.id);
        let put = match before {
            Some(read) => self.records.replace(&at, &stone, read.version).await?,
            None => self.records.create(&at, &stone).await?,
        };
        let version = put.ok_or_else(|| busy(order.id))?;
        // Only those that were there before this one: of two orders at once one stays written down.
        for id in void {
            self.records.delete(&self.keys.removal(id)).await?;
        }
        self.names.take(&order.volume, uuid).await?;
        drop(alone);
        let read = Read {
            record: stone,
            version,
        };
        self.look_again(order, uuid, read).await.map(Some)
    }

    /// Other removals of the same volume that free nothing yet.
    async fn other_tombstones(&self, order: &RemovalOrder) -> Result<Vec<RemovalId>, StorageError> {
        let stones = self.tombstones().await?.into_iter();
        let others = stones.filter(|(id, stone)| {
            let same = stone.order.identity == order.identity;
            *id != order.id && same && stone.stage != Stage::Purging
        });
        Ok(others.map(|(id, _)| id).collect())
    }

    /// Whether anything was built on the volume while its name was taken.
    async fn look_again(
        &self,
        order: &RemovalOrder,
        uuid: Uuid,
        stone: Read<Tombstone>,
    ) -> Result<(Tombstone, UpdateVersion), StorageError> {
        match self.gate(order).await {
            Ok(()) => self.keep(order, stone).await,
            Err(error @ StorageError::InUse { .. }) => {
                // Without a name it stays condemned, and listed.
                if self.names.give(&order.volume, uuid).await? == uuid {
                    self.records.delete(&self.keys.removal(order.id)).await?;
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn keep(
        &self,
        order: &RemovalOrder,
        stone: Read<Tombstone>,
    ) -> Result<(Tombstone, UpdateVersion), StorageError> {
        let kept = stone.record.order.is_kept(now());
        let stone = Read {
            record: stone
                .record
                .at(if kept { Stage::Kept } else { Stage::Purging }),
            version: stone.version,
        };
        let version = self.replace(order.id, &stone.record, stone.version).await?;
        Ok((stone.record, version))
    }

    /// Passes when no image of the domain is built on the volume, but what is not kept for longer.
    async fn gate(&self, order: &RemovalOrder) -> Result<(), StorageError> {
        let name = &order.volume;
        let needers = self.needers(std::slice::from_ref(name)).await?;
        match needers.iter().find(|(_, needer)| needer.refuses(order)) {
            None => Ok(()),
            Some((_, needer)) => Err(self.in_use_by(name, &needer.shown())),
        }
    }

    /// All removals that are written down.
    pub(super) async fn tombstones(&self) -> Result<Vec<(RemovalId, Tombstone)>, StorageError> {
        let listed = listing::paths(&self.bucket.patient, &self.keys.removals()).await?;
        let ids = listed.iter().filter_map(|path| match self.keys.read(path) {
            Some(Key::Removal(id)) => Some(id),
            _ => None,
        });
        let ids: Vec<RemovalId> = ids.collect();
        let read = ids.into_iter().map(|id| async move {
            let stone = self.tombstone(id).await?;
            Ok(stone.map(|stone| (id, stone.record)))
        });
        let read = stream::iter(read).buffer_unordered(AT_ONCE);
        read.try_filter_map(|stone| std::future::ready(Ok(stone)))
            .try_collect()
            .await
    }

    /// Whether another removal than this one has begun to take a name from its volume, and has not looked
    /// again for what is built on that.
    pub(super) async fn is_being_taken(
        &self,
        name: &VolumeName,
        except: Option<RemovalId>,
    ) -> Result<bool, StorageError> {
        let stones = self.tombstones().await?;
        let mut others = stones.iter().filter(|(id, _)| Some(*id) != except);
        let takes = |stone: &Tombstone| stone.stage == Stage::Taking && stone.order.volume == *name;
        Ok(others.any(|(_, stone)| takes(stone)))
    }

    pub(super) async fn tombstone(
        &self,
        id: RemovalId,
    ) -> Result<Option<Read<Tombstone>>, StorageError> {
        self.records.read(&self.keys.removal(id)).await
    }

    async fn replace(
        &self,
        id: RemovalId,
        stone: &Tombstone,
        version: UpdateVersion,
    ) -> Result<UpdateVersion, StorageError> {
        let at = self.keys.removal(id);
        let put = self.records.replace(&at, stone, version).await?;
        put.ok_or_else(|| busy(id))
    }

    /// Deletes everything of a volume. The manifest goes first: without it no name leads anywhere.
    async fn purge(&self, uuid: Uuid) -> Result<u64, StorageError> {
        self.records.delete(&self.keys.manifest(uuid)).await?;
        let freed = purge::purge(&self.bucket.plain, &self.keys, uuid).await?;
        Ok(freed.bytes)
    }
}

fn busy(id: RemovalId) -> StorageError {
    StorageError::Busy {
        what: format!("removal {id}"),
    }
}

/// One call at a time frees a volume.
struct Purging<'a> {
    domain: &'a Domain,
    uuid: Uuid,
}

impl<'a> Purging<'a> {
    fn begin(domain: &'a Domain, uuid: Uuid, name: &VolumeName) -> Result<Self, StorageError> {
        let mut purging = domain
            .purging
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if purging.insert(uuid) {
            return Ok(Self { domain, uuid });
        }
        Err(StorageError::Busy {
            what: domain.what(name),
        })
    }
}

impl Drop for Purging<'_> {
    fn drop(&mut self) {
        let purging = self.domain.purging.lock();
        purging
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.uuid);
    }
}
