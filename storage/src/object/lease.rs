//! Who may write to a volume: one at a time, and for a time that has to be renewed.
//!
//! ```text
//!   none, released ─▶ put on condition, generation + 1 ─▶ held ─▶ renewed at a third of its time
//!   a dead one's ─▶ watched for as long as a request may take ─▶ put on condition ─▶ held
//!   another's ─▶ watched for its whole time by our clock ─┬─ unchanged ─▶ put on condition ─▶ held
//!                                                         └─ changed ───▶ in use
//!   held ─┬─ not renewed in time ─▶ no request is begun that could end after it; renewed later: held
//!         └─ somebody else's by now ─▶ lost: nothing is written any more
//! ```
//!
//! No clock of two hosts is compared: a holder counts from before its last renewal was sent, whoever
//! wants it from when that was seen. A request has less time than is left of the lease when it
//! begins, so that none of a holder's lands after the next one's first.

use super::keys::Keys;
use super::records::{Read, Records};
use crate::StorageError;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long a lease lasts, and a request that needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) lease: Duration,
    pub(super) request: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            request: Duration::from_secs(5),
        }
    }
}

/// A lease as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    generation: u64,
    /// A random number for each writer. Who puts what one has left takes the lease in its name.
    holder: Uuid,
    /// Makes each version differ: a store may tell versions apart by what they hold.
    renewals: u64,
    time_ms: u64,
    released: bool,
    /// How many blocks the volume has, as its writer knows.
    pub(super) blocks: u64,
}

impl Lease {
    /// Whether it was taken once, and at most renewed since.
    fn is_taken_as(&self, other: &Self) -> bool {
        (self.generation, self.holder) == (other.generation, other.holder)
    }
}

/// Where a holder stands.
#[derive(Debug, Clone, Copy)]
enum Standing {
    Until(Instant),
    Lost,
}

/// A lease that is held, and renewed until it is released or dropped.
#[derive(Debug)]
pub(super) struct Held {
    place: Place,
    /// Who let it run out, if somebody did.
    pub(super) taken_from: Option<Uuid>,
    standing: watch::Receiver<Standing>,
    blocks: Arc<std::sync::atomic::AtomicU64>,
    latest: Arc<tokio::sync::Mutex<Read<Lease>>>,
    renewing: JoinHandle<()>,
}

/// Where a volume's lease is.
#[derive(Debug, Clone)]
struct Place {
    records: Records,
    keys: Keys,
    uuid: Uuid,
    times: Times,
}

impl Place {
    async fn read(&self) -> Result<Option<Read<Lease>>, StorageError> {
        self.records.read(&self.keys.lease(self.uuid)).await
    }

    /// `None` when somebody else was quicker.
    async fn put(
        &self,
        lease: &Lease,
        instead_of: Option<UpdateVersion>,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        let at = self.keys.lease(self.uuid);
        match instead_of {
            None => self.records.create(&at, lease).await,
            Some(version) => self.records.replace(&at, lease, version).await,
        }
    }

    /// The lease as somebody has it who holds it no more, or none; waits for that as long as it lasts. Of a
    /// process that is certainly dead only until the last request that it can have begun has ended.
    async fn free(&self, dead: Uuid) -> Result<Option<Read<Lease>>, StorageError> {
        let Some(first) = self.read().await? else {
            return Ok(None);
        };
        if first.record.released {
            return Ok(Some(first));
        }
        let since = Instant::now();
        let lasts = if dead == first.record.holder {
            self.times.request
        } else {
            Duration::from_millis(first.record.time_ms)
        };
        while since.elapsed() <= lasts {
            tokio::time::sleep(lasts / 10).await;
            match self.read().await? {
                Some(now) if now.record == first.record => {}
                Some(now) if now.record.released => return Ok(Some(now)),
                None => return Ok(None),
                Some(_) => return Err(written_elsewhere(self.uuid)),
            }
        }
        Ok(Some(first))
    }
}

impl Held {
    /// Takes the lease of a volume, in a holder's name. Waits for the end of one that nobody renews; less
    /// long when it is that holder's own: whoever takes it again knows that the process is dead.
    ///
    /// # Errors
    /// `InUse` when somebody renews it.
    pub(super) async fn take(
        records: Records,
        keys: Keys,
        uuid: Uuid,
        times: Times,
        holder: Uuid,
    ) -> Result<Self, StorageError> {
        let place = Place {
            records,
            keys,
            uuid,
            times,
        };
        loop {
            let before = place.free(holder).await?;
            let unreleased = before.as_ref().filter(|read| !read.record.released);
            let taken_from = unreleased.map(|read| read.record.holder);
            let lease = Lease {
                generation: before.as_ref().map_or(0, |read| read.record.generation) + 1,
                holder,
                renewals: 0,
                time_ms: u64::try_from(times.lease.as_millis()).unwrap_or(u64::MAX),
                released: false,
                blocks: before.as_ref().map_or(0, |read| read.record.blocks),
            };
            let begun = Instant::now();
            let put = place.put(&lease, before.map(|read| read.version)).await?;
            let version = match put {
                Some(version) => version,
                None => match place.read().await? {
                    // The reply was lost, and a second try refused.
                    Some(now) if now.record.is_taken_as(&lease) => now.version,
                    _ => continue,
                },
            };
            let read = Read {
                record: lease,
                version,
            };
            return Ok(Self::renewed(place, taken_from, read, begun));
        }
    }

    fn renewed(place: Place, taken_from: Option<Uuid>, read: Read<Lease>, begun: Instant) -> Self {
        let (tell, standing) = watch::channel(Standing::Until(begun + place.times.lease));
        let blocks = Arc::new(std::sync::atomic::AtomicU64::new(read.record.blocks));
        let latest = Arc::new(tokio::sync::Mutex::new(read));
        let renewing = tokio::spawn(renew(
            place.clone(),
            Arc::clone(&latest),
            Arc::clone(&blocks),
            tell,
        ));
        Self {
            place,
            taken_from,
            standing,
            blocks,
            latest,
            renewing,
        }
    }

    /// Tells how many blocks the volume has, to be written down with the next renewal.
    pub(super) fn count(&self, blocks: u64) {
        self.blocks
            .store(blocks, std::sync::atomic::Ordering::Relaxed);
    }

    /// Returns when a request may begin that takes no longer than its limit.
    ///
    /// # Errors
    /// When it is lost, or cannot be renewed for so long.
    pub(super) async fn may_write(&self, patience: Duration) -> Result<(), StorageError> {
        let (begun, mut standing) = (Instant::now(), self.standing.clone());
        loop {
            match *standing.borrow_and_update() {
                Standing::Lost => return Err(written_elsewhere(self.place.uuid)),
                Standing::Until(end) if Instant::now() + self.place.times.request <= end => {
                    return Ok(());
                }
                Standing::Until(_) => {}
            }
            let left = patience.saturating_sub(begun.elapsed());
            match tokio::time::timeout(left, standing.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(written_elsewhere(self.place.uuid)),
                Err(_) => return Err(not_renewed(self.place.uuid)),
            }
        }
    }

    /// Whether somebody else has it by now.
    pub(super) fn is_lost(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Lost)
    }

    /// Gives it back, with the number of the volume's blocks.
    pub(super) async fn release(&self) -> Result<(), StorageError> {
        self.renewing.abort();
        let latest = self.latest.lock().await;
        let lease = Lease {
            released: true,
            renewals: latest.record.renewals + 1,
            blocks: self.blocks.load(std::sync::atomic::Ordering::Relaxed),
            ..latest.record.clone()
        };
        // Refused, it is somebody else's or was renewed by a request whose reply is lost: it ends by
        // itself then.
        let _put = self.place.put(&lease, Some(latest.version.clone())).await?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn renew(
    place: Place,
    latest: Arc<tokio::sync::Mutex<Read<Lease>>>,
    blocks: Arc<std::sync::atomic::AtomicU64>,
    tell: watch::Sender<Standing>,
) {
    let mut pause = place.times.lease / 3;
    loop {
        tokio::time::sleep(pause).await;
        let mut held = latest.lock().await;
        let begun = Instant::now();
        let next = Lease {
            renewals: held.record.renewals + 1,
            blocks: blocks.load(std::sync::atomic::Ordering::Relaxed),
            ..held.record.clone()
        };
        let put = place.put(&next, Some(held.version.clone()));
        // One that hangs is tried again while there is time.
        let put = tokio::time::timeout(place.times.lease / 3, put).await;
        pause = place.times.lease / 10;
        match put {
            Ok(Ok(Some(version))) => {
                *held = Read {
                    record: next,
                    version,
                };
                tell.send_replace(Standing::Until(begun + place.times.lease));
                pause = place.times.lease / 3;
            }
            Ok(Ok(None)) => match place.read().await {
                // An earlier renewal, whose reply was lost.
                Ok(Some(now)) if now.record.is_taken_as(&held.record) => *held = now,
                Ok(_) => {
                    tracing::error!(volume = %place.uuid, "another process writes to this volume by now");
                    tell.send_replace(Standing::Lost);
                    return;
                }
                Err(error) => warn(&place, &error),
            },
            Ok(Err(error)) => warn(&place, &error),
            Err(_) => tracing::warn!(volume = %place.uuid, "the renewal of a lease takes too long"),
        }
    }
}

fn warn(place: &Place, error: &StorageError) {
    tracing::warn!(volume = %place.uuid, %error, "a lease could not be renewed");
}

fn written_elsewhere(uuid: Uuid) -> StorageError {
    StorageError::InUse {
        what: format!("volume {uuid}"),
        by: "another process that writes to it".to_owned(),
    }
}

fn not_renewed(uuid: Uuid) -> StorageError {
    StorageError::Unreachable {
        what: format!("the lease of volume {uuid}"),
        source: io::Error::new(io::ErrorKind::TimedOut, "it cannot be renewed"),
    }
}

/// What this process has seen of leases, to tell those that nobody renews.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<Uuid, (Lease, Instant)>>);

impl Seen {
    /// Whether somebody may write to a volume: unless it is released, until it was the same for its
    /// whole time.
    pub(super) fn is_live(&self, uuid: Uuid, lease: Option<&Lease>) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lease) = lease.filter(|lease| !lease.released) else {
            seen.remove(&uuid);
            return false;
        };
        match seen.get(&uuid) {
            Some((before, since)) if before == lease => {
                since.elapsed() <= Duration::from_millis(lease.time_ms)
            }
            _ => {
                seen.insert(uuid, (lease.clone(), Instant::now()));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
