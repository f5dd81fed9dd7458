//! The blocks of one volume: an object each, whole or not there. What is not there reads zeros.
//!
//! Requests are tried again for a while, each for itself and with a growing pause; those that change
//! something begin only while the lease has time for them.

use super::failure::{failure, hangs};
use super::keys::{Key, Keys};
use super::lease::{Held, Times};
use super::listing::is_ordered;
use crate::StorageError;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutPayload};
use roaring::RoaringTreemap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The size of a block. Four clusters of qcow2: each write-back of a smaller one would cost as much,
/// a request, and a larger one is written whole for each cluster that changes.
pub(super) const BLOCK_BYTES: u64 = 256 << 10;
/// What a client sees as an error only after this time; a guest waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most keys that a bulk request has.
pub(super) const BULK: usize = 1000;
/// A listing is made in so many parts at once.
const PARTS: u64 = 16;

/// The blocks of one volume.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    store: Arc<dyn ObjectStore>,
    keys: Keys,
    uuid: Uuid,
    times: Times,
}

impl Blocks {
    pub(super) fn new(store: Arc<dyn ObjectStore>, keys: Keys, uuid: Uuid, times: Times) -> Self {
        Self {
            store,
            keys,
            uuid,
            times,
        }
    }

    /// A block's bytes; `None` when it is not there.
    ///
    /// # Errors
    /// `Corrupt` for an object that is no block.
    pub(super) async fn get(&self, index: u64) -> Result<Option<Bytes>, StorageError> {
        let at = self.keys.block(self.uuid, index);
        let got = self
            .again(&at, None, || async {
                self.store.get(&at).await?.bytes().await
            })
            .await;
        match got {
            Ok(bytes) if bytes.len() as u64 == BLOCK_BYTES => Ok(Some(bytes)),
            Ok(bytes) => Err(StorageError::Corrupt {
                what: format!("object {at}"),
                why: format!("it has {} bytes, not those of a block", bytes.len()),
            }),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A block that must be there and is not.
    pub(super) fn lost(&self, index: u64) -> StorageError {
        StorageError::Corrupt {
            what: format!("object {}", self.keys.block(self.uuid, index)),
            why: "it was put, or listed, and is not there".to_owned(),
        }
    }

    /// Puts a whole block. Only a volume that nobody knows yet is written without a lease.
    pub(super) async fn put(
        &self,
        index: u64,
        bytes: Bytes,
        lease: Option<&Held>,
    ) -> Result<(), StorageError> {
        let at = self.keys.block(self.uuid, index);
        self.again(&at, lease, || async {
            let put = self.store.put(&at, PutPayload::from(bytes.clone()));
            put.await.map(drop)
        })
        .await
    }

    /// Takes at most [`BULK`] blocks away.
    pub(super) async fn delete(&self, indexes: &[u64], lease: &Held) -> Result<(), StorageError> {
        let paths = indexes
            .iter()
            .map(|index| self.keys.block(self.uuid, *index));
        let paths: Vec<Path> = paths.collect();
        let at = self.keys.blocks(self.uuid);
        self.again(&at, Some(lease), || async {
            let keys = stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            let mut answers = self.store.delete_stream(keys);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await
    }

    /// Which of a volume's first `count` blocks are there.
    pub(super) async fn present(&self, count: u64) -> Result<RoaringTreemap, StorageError> {
        let step = match is_ordered(&self.store) {
            true => count.div_ceil(PARTS).max(1 << 10),
            // Each part would be all of it.
            false => count.max(1),
        };
        let parts = (0..count).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let parts = parts.map(|begin| self.listed(begin..(begin + step).min(count)));
        let parts = stream::iter(parts).buffer_unordered(PARTS as usize);
        parts
            .try_fold(
                RoaringTreemap::new(),
                |all, part| async move { Ok(all | part) },
            )
            .await
    }

    async fn listed(&self, part: Range<u64>) -> Result<RoaringTreemap, StorageError> {
        let (mut found, mut tries) = (RoaringTreemap::new(), Tries::default());
        loop {
            let before = found.len();
            let Err(error) = self.list_on(&part, &mut found).await else {
                return Ok(found);
            };
            // What it has found is kept: a long one gets on with each try.
            if found.len() > before {
                tries = Tries::default();
            }
            tries.failed(error).await?;
        }
    }

    /// Lists a part from where it was left. Each page of it has the time of a request.
    async fn list_on(
        &self,
        part: &Range<u64>,
        found: &mut RoaringTreemap,
    ) -> Result<(), StorageError> {
        let (prefix, ordered) = (self.keys.blocks(self.uuid), is_ordered(&self.store));
        let before = found.max().or(part.start.checked_sub(1));
        let mut listed = match before {
            // An offset is not listed itself.
            Some(before) if ordered => {
                let offset = self.keys.block(self.uuid, before);
                self.store.list_with_offset(Some(&prefix), &offset)
            }
            _ => self.store.list(Some(&prefix)),
        };
        while let Some(meta) = self.tried(&prefix, listed.try_next()).await? {
            match self.keys.read(&meta.location) {
                Some(Key::Block(_, index)) if part.contains(&index) => {
                    found.insert(index);
                }
                Some(Key::Block(_, index)) if index >= part.end && ordered => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// Tries a request until it is answered.
    async fn again<T, F>(
        &self,
        at: &Path,
        lease: Option<&Held>,
        request: impl Fn() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut tries = Tries::default();
        loop {
            if let Some(lease) = lease {
                lease.may_write(PATIENCE).await?;
            }
            match self.tried(at, request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn tried<T>(
        &self,
        at: &Path,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.times.request, request).await {
            Ok(answer) => answer.map_err(|error| failure(at, error)),
            Err(_) => Err(hangs(at, self.times.request)),
        }
    }
}

/// The tries of a request.
struct Tries {
    begun: Instant,
    pause: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            pause: Duration::from_millis(25),
        }
    }
}

impl Tries {
    /// Returns when it is time for the next one.
    ///
    /// # Errors
    /// What the last one ended with, when another one would not help or there was time enough.
    async fn failed(&mut self, error: StorageError) -> Result<(), StorageError> {
        let answered = matches!(
            error,
            StorageError::NotFound { .. } | StorageError::Denied { .. }
        );
        if answered || self.begun.elapsed() + self.pause > PATIENCE {
            return Err(error);
        }
        tracing::debug!(%error, "a request is tried again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(2));
        Ok(())
    }
}
