//! What a process has left that died while it made a volume, or deleted one: objects below a uuid that
//! neither a name nor a removal leads to.
//!
//! ```text
//!   no name, no removal ─▶ old, by the store's clock? never written? nobody built on it? ─▶ tombstone, kept
//!                             └ no: told, and left                                             │ its time
//!                                                                named by now? ─▶ left ◀───────┤ is over
//!                                                                                              ▼
//!                                                                                            Purging
//! ```
//!
//! - Whoever makes a volume has not given it its name yet: so only what nobody has put an object to for
//!   [`AGE`] is condemned, and whoever finds a tombstone of its own volume gives up the name again.
//! - A table of names that somebody has damaged leaves volumes without theirs. What a guest has written to
//!   has a lease, and what another image names is needed by that: both are told, and never condemned.
//! - A condemned one is a removal like any other: it is listed, can be brought back, and goes when its time
//!   is over, unless it has a name by then.

use super::domain::{Domain, Manifest};
use super::failure::failure;
use super::gate::names;
use super::image::identity;
use super::keys::Key;
use super::records::limited;
use super::removal::{Stage, Tombstone};
use crate::condemned::{Condemned, now};
use crate::image::qcow2::Header;
use crate::{RemovalId, RemovalOrder, StorageError, VolumeName};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStoreExt as _, PutPayload};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Nobody takes so long to make a volume. By the store's clock.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// How long one is listed as condemned before it goes.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Prefixes that are looked into at once.
const AT_ONCE: usize = 16;
/// Time between two looks of a process.
const EVERY: Duration = Duration::from_secs(3600);

impl Domain {
    /// Looks for them now and then, beside whoever asks about removals.
    pub(super) fn look_for_orphans(self: &Arc<Self>) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.elapsed() < EVERY {
            return;
        }
        *looked = Instant::now();
        let domain = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = domain.condemn_orphans(AGE).await {
                tracing::warn!(storage = %domain.id, %error, "objects of no volume are not looked for");
            }
        });
    }

    /// Uuids that neither a name nor a removal leads to. One that is being made is among them.
    pub(super) async fn orphans(&self) -> Result<Vec<Uuid>, StorageError> {
        let prefix = self.keys.prefix();
        let listed = limited(
            prefix,
            self.bucket.patient.list_with_delimiter(Some(prefix)),
        );
        let listed = listed.await?.map_err(|error| failure(prefix, error))?;
        let uuids = listed.common_prefixes.iter().filter_map(|below| {
            let uuid = Uuid::try_parse(below.filename()?).ok()?;
            (self.keys.volume(uuid) == *below).then_some(uuid)
        });
        let mut uuids: HashSet<Uuid> = uuids.collect();
        // A removal begins while there is a name, and a restoration ends when there is one again.
        for _ in 0..2 {
            for (_, uuid) in self.names.all().await? {
                uuids.remove(&uuid);
            }
            for (_, stone) in self.tombstones().await? {
                if let Ok(uuid) = Uuid::try_parse(stone.order.identity.as_str()) {
                    uuids.remove(&uuid);
                }
            }
        }
        // A store may show a prefix for a while below which nothing lies any more.
        let lies = |uuid: Uuid| async move {
            let prefix = self.keys.volume(uuid);
            let mut listed = self.bucket.patient.list(Some(&prefix));
            let first = limited(&prefix, listed.try_next()).await?;
            let first = first.map_err(|error| failure(&prefix, error))?;
            Ok::<_, StorageError>(first.map(|_| uuid))
        };
        let lie = stream::iter(uuids).map(lies).buffer_unordered(AT_ONCE);
        let found = lie.try_filter_map(|found| std::future::ready(Ok(found)));
        let mut uuids: Vec<Uuid> = found.try_collect().await?;
        uuids.sort_unstable();
        Ok(uuids)
    }

    /// Condemns those that nobody has touched for so long, and tells which.
    pub(super) async fn condemn_orphans(&self, age: Duration) -> Result<Vec<Uuid>, StorageError> {
        let orphans = self.orphans().await?;
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        let clock = self.store_clock().await?;
        let mut left = Vec::new();
        for uuid in &orphans {
            if self.is_left(*uuid, &clock, age).await? {
                left.push((*uuid, self.name_given(*uuid).await?));
            }
        }
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let images = self.images_among(&orphans).await?;
        let wanted: Vec<_> = left.iter().map(|(_, name)| name.clone()).collect();
        let needers = self.needers(&wanted).await?.into_iter();
        let needed: HashSet<usize> = needers.map(|(index, _)| index).collect();
        let mut condemned = Vec::new();
        for (index, (uuid, name)) in left.into_iter().enumerate() {
            let needed = needed.contains(&index) || images.iter().any(|it| names(it, &name));
            if self.condemn_orphan(uuid, name, needed).await? {
                condemned.push(uuid);
            }
        }
        Ok(condemned)
    }

    /// The heads of those that are images.
    async fn images_among(&self, orphans: &[Uuid]) -> Result<Vec<Header>, StorageError> {
        let mut images = Vec::new();
        for uuid in orphans {
            match self.header(*uuid, &uuid.to_string()).await {
                Ok(header) => images.push(header),
                // What is no image names nothing. What cannot be read may name anything.
                Err(StorageError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// The name that one was to have; its uuid where nobody has written that down.
    async fn name_given(&self, uuid: Uuid) -> Result<VolumeName, StorageError> {
        let manifest = self.keys.manifest(uuid);
        let manifest = self.records.read::<Manifest>(&manifest).await?;
        let unnamed = || uuid.to_string().parse().expect("a uuid is a name");
        Ok(manifest.map_or_else(unnamed, |read| read.record.name))
    }

    /// An object as the store has just taken it: its clock.
    async fn store_clock(&self) -> Result<ObjectMeta, StorageError> {
        let at = self.keys.clock();
        let read = async {
            let payload = PutPayload::from_static(b"what time is it");
            self.bucket.patient.put(&at, payload).await?;
            self.bucket.patient.head(&at).await
        };
        limited(&at, read)
            .await?
            .map_err(|error| failure(&at, error))
    }

    /// Whether none of its objects is younger, and none is a lease.
    async fn is_left(
        &self,
        uuid: Uuid,
        clock: &ObjectMeta,
        age: Duration,
    ) -> Result<bool, StorageError> {
        let prefix = self.keys.volume(uuid);
        let mut listed = self.bucket.patient.list(Some(&prefix));
        while let Some(meta) = limited(&prefix, listed.try_next())
            .await?
            .map_err(|error| failure(&prefix, error))?
        {
            let is_ours = match self.keys.read(&meta.location) {
                Some(Key::Manifest(of) | Key::Block(of, _)) => of == uuid,
                _ => false,
            };
            let old = (clock.last_modified - meta.last_modified).to_std();
            if !is_ours || !old.is_ok_and(|old| old >= age) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes its removal down, unless it is needed: an image names what is called so, and it is meant.
    async fn condemn_orphan(
        &self,
        uuid: Uuid,
        name: VolumeName,
        needed: bool,
    ) -> Result<bool, StorageError> {
        if needed && self.names.holder(&name).await?.is_none() {
            tracing::warn!(%uuid, %name, "objects of no volume, which another image names");
            return Ok(false);
        }
        let _turn = self.turn.lock().await;
        // The same for whoever finds it, on whichever host.
        let id = RemovalId::from(uuid);
        let order = RemovalOrder {
            keep_for: KEEP,
            ..RemovalOrder::new(id, name, identity(uuid))
        };
        let stone = Tombstone {
            stage: Stage::Kept,
            order: Condemned::new(&order, now()),
        };
        let put = self.records.create(&self.keys.removal(id), &stone).await?;
        tracing::warn!(%uuid, name = %stone.order.volume, "objects of no volume are condemned");
        Ok(put.is_some())
    }

    /// Whether a removal has condemned what is only being made.
    pub(super) async fn is_condemned(&self, uuid: Uuid) -> Result<bool, StorageError> {
        let stones = self.tombstones().await?;
        let uuid = uuid.to_string();
        Ok(stones
            .iter()
            .any(|(_, stone)| stone.order.identity.as_str() == uuid))
    }
}
