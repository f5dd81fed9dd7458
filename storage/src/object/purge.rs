//! Deletes everything below a volume's prefix: in bulk, many requests at once, until a listing finds
//! nothing.
//!
//! ```text
//!   listing ─▶ batches of 500 ─▶ requests in flight, at the pace that the store keeps ─▶ failed keys ─┐
//!      ▲                  ▲                                                                             │
//!      │ again, until it  └──────────────────────────────────── first ◀─────────────────────────────────┘
//!      └ finds nothing
//! ```
//!
//! - How many are in flight grows by one when all of them end well, and is halved when the store asks for
//!   fewer (503, SlowDown); then they are also sent as far apart as the store has shown to carry.
//! - Only keys that failed are tried again. What a request lost on its way is found by the next
//!   listing, so no key is lost by whatever happens to a reply.
//! - Memory does not grow with the number of objects: a listing is read only as fast as its keys go.
//! - Only keys of ours are deleted. Anything else is left, and told.

use super::failure::{denies, failure, throttles};
use super::keys::{Key, Keys};
use super::pace::Pace;
use crate::StorageError;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;
use uuid::Uuid;

/// Keys of one request. A store takes up to 1,000; it works on each request alone, so that of few large ones the
/// last keep a part of it idle, and what it refuses of them is more.
const BATCH: usize = 500;
/// Nothing has gone well for so long: whoever asked asks again.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request that takes longer is tried again.
const REQUEST: Duration = Duration::from_secs(60);
/// Listings that find what was deleted before.
const MOST_REPEATS: usize = 5;

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// Deletes a volume's objects.
///
/// # Errors
/// `Denied` when the store forbids it; `Unreachable` when nothing goes well for a minute; `Corrupt`
/// for keys that are not ours, or that are there again and again. What was deleted is.
pub(super) async fn purge(
    store: &Arc<dyn ObjectStore>,
    keys: &Keys,
    uuid: Uuid,
) -> Result<Freed, StorageError> {
    let mut purge = Purge {
        store: Arc::clone(store),
        prefix: keys.volume(uuid),
        pace: Pace::new(Instant::now()),
        failed: VecDeque::new(),
        freed: Freed::default(),
        foreign: None,
        last_success: Instant::now(),
    };
    let mut repeats = 0;
    loop {
        let before = purge.freed.objects;
        let listed = purge.sweep(keys, uuid).await?;
        if listed == 0 {
            return match purge.foreign {
                None => Ok(purge.freed),
                Some(path) => Err(StorageError::Corrupt {
                    what: format!("object {path}"),
                    why: "it is no part of the volume below whose prefix it lies".to_owned(),
                }),
            };
        }
        // A store that lists what is gone, or a key that does not come back as it was listed.
        repeats = if purge.freed.objects - before < listed {
            0
        } else {
            repeats + 1
        };
        if repeats > MOST_REPEATS {
            return Err(StorageError::Corrupt {
                what: format!("objects below {}", purge.prefix),
                why: "they are listed again after they were deleted".to_owned(),
            });
        }
    }
}

/// A batch and how it ended.
struct Ended {
    gone: Vec<(Path, u64)>,
    failed: Vec<(Path, u64)>,
    error: Option<Error>,
    /// When it was sent.
    sent_after: u64,
}

struct Purge {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    pace: Pace,
    failed: VecDeque<(Path, u64)>,
    freed: Freed,
    /// What is left alone.
    foreign: Option<Path>,
    last_success: Instant,
}

impl Purge {
    /// Lists once and deletes what is listed. Gives the number of keys that were listed.
    async fn sweep(&mut self, keys: &Keys, uuid: Uuid) -> Result<u64, StorageError> {
        sleep_until(self.pace.opens().into()).await;
        let mut listing = self.store.list(Some(&self.prefix)).fuse().boxed();
        let mut in_flight = FuturesUnordered::new();
        let (mut listed, mut ends) = (0, false);
        let mut batch: Vec<(Path, u64)> = Vec::with_capacity(BATCH);
        loop {
            let full = batch.len() == BATCH || ends && !batch.is_empty();
            let waits = full || !self.failed.is_empty();
            let free = in_flight.len() < self.pace.in_flight();
            let opens = self.pace.opens();
            if waits && free && opens <= Instant::now() {
                let next = if self.failed.is_empty() {
                    std::mem::replace(&mut batch, Vec::with_capacity(BATCH))
                } else {
                    let again = self.failed.len().min(BATCH);
                    self.failed.drain(..again).collect()
                };
                in_flight.push(self.delete(next));
                continue;
            }
            if ends && !waits && in_flight.is_empty() {
                return Ok(listed);
            }
            tokio::select! {
                Some(ended) = in_flight.next() => self.settle(ended)?,
                () = sleep_until(opens.into()), if waits && free => {}
                found = listing.next(), if !ends && !full => match found {
                    None => ends = true,
                    Some(Ok(meta)) if !is_ours(&meta, keys, uuid) => self.foreign = Some(meta.location),
                    Some(Ok(meta)) => {
                        listed += 1;
                        batch.push((meta.location, meta.size));
                    }
                    Some(Err(error)) => {
                        // What it has found until now is deleted anyway; the next one finds the rest.
                        listed += 1;
                        ends = true;
                        self.bad_news(error, self.pace.failures())?;
                    }
                },
            }
        }
    }

    fn delete(&mut self, batch: Vec<(Path, u64)>) -> impl Future<Output = Ended> + use<> {
        let sent_after = self.pace.sent(Instant::now());
        delete(Arc::clone(&self.store), batch, sent_after)
    }

    fn settle(&mut self, ended: Ended) -> Result<(), StorageError> {
        self.freed.objects += ended.gone.len() as u64;
        self.freed.bytes += ended.gone.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if !ended.gone.is_empty() {
            self.last_success = Instant::now();
        }
        self.failed.extend(ended.failed);
        match ended.error {
            Some(error) => self.bad_news(error, ended.sent_after),
            None => {
                self.pace.well();
                Ok(())
            }
        }
    }

    /// Slows down, or gives up.
    fn bad_news(&mut self, error: Error, sent_after: u64) -> Result<(), StorageError> {
        let give_up = denies(&error) || self.last_success.elapsed() > PATIENCE;
        if give_up || matches!(error, Error::InvalidPath { .. }) {
            return Err(failure(&self.prefix, error));
        }
        self.pace
            .badly(throttles(&error), sent_after, Instant::now());
        tracing::debug!(%error, pace = ?self.pace, "objects are deleted again");
        Ok(())
    }
}

fn is_ours(meta: &ObjectMeta, keys: &Keys, uuid: Uuid) -> bool {
    match keys.read(&meta.location) {
        Some(Key::Manifest(of) | Key::Lease(of) | Key::Block(of, _)) => of == uuid,
        _ => false,
    }
}

/// Deletes a batch. Each key has its own answer; without one it is taken as failed.
async fn delete(store: Arc<dyn ObjectStore>, batch: Vec<(Path, u64)>, sent_after: u64) -> Ended {
    let paths: Vec<Path> = batch.iter().map(|(path, _)| path.clone()).collect();
    let keys: BoxStream<'static, _> = stream::iter(paths.into_iter().map(Ok)).boxed();
    let mut answers = store.delete_stream(keys);
    let (mut gone, mut error) = (HashSet::new(), None);
    let heard = async {
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(path) => drop(gone.insert(path)),
                Err(Error::NotFound { path, .. }) => drop(gone.insert(Path::from(path))),
                // What forbids says more than what is only busy.
                Err(found) if error.as_ref().is_none_or(|error| !denies(error)) => {
                    error = Some(found);
                }
                Err(_) => {}
            }
        }
    };
    let in_time = tokio::time::timeout(REQUEST, heard).await.is_ok();
    let (gone, failed): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|(path, _)| gone.contains(path));
    if error.is_none() && (!in_time || !failed.is_empty()) {
        error = Some(Error::Generic {
            store: "objects",
            source: "some keys have no answer".into(),
        });
    }
    Ended {
        gone,
        failed,
        error,
        sent_after,
    }
}
