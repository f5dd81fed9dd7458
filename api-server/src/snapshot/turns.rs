//! How much merges at once, and how fast, on each host and in each storage domain.
//!
//! ```text
//!   a delete ─▶ its host's place ─▶ its domains' places, in order ─▶ merges ─▶ gives them back
//!                     └── full: QUEUED, first come, first served ──┘
//! ```
//!
//! - Places are taken in one order everywhere, so that no two deletes wait for each other.
//! - What was merging when the server stopped goes on, whatever the limits say now.
//! - A total rate is shared evenly by what merges there.

use livemerge_proto::ids::HostId;
use livemerge_storage::StorageId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of one host, or of one storage domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// So many operations merge at once; 0 for no limit.
    pub merges: u32,
    /// So many bytes a second are copied by all of them together; 0 for no limit.
    pub bytes_per_second: u64,
}

/// The limits of all hosts and domains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of each host.
    pub host: Limit,
    /// Of each storage domain.
    pub storage: Limit,
}

/// Where merges take room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Host(HostId),
    Storage(StorageId),
}

/// The places of all hosts and domains.
#[derive(Debug)]
pub(super) struct Turns {
    limits: Limits,
    places: Mutex<BTreeMap<Place, Arc<Room>>>,
}

/// One host's or one domain's.
#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    /// How many merge here.
    merging: AtomicU64,
    bytes_per_second: u64,
}

/// The places of one operation. Dropped, they are given back.
#[derive(Debug, Default)]
pub(super) struct Turn(Vec<Seat>);

#[derive(Debug)]
struct Seat {
    room: Arc<Room>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Mutex::default(),
        }
    }

    /// Places that are free now: all of them, or none.
    pub(super) fn try_take(&self, places: &BTreeSet<Place>) -> Option<Turn> {
        let mut seats = Vec::new();
        for room in places.iter().map(|place| self.room(place)) {
            let permit = Arc::clone(&room.free).try_acquire_owned().ok()?;
            seats.push(Seat::new(room, Some(permit)));
        }
        Some(Turn(seats))
    }

    /// Places, once they are free.
    pub(super) async fn take(&self, places: &BTreeSet<Place>) -> Turn {
        let mut seats = Vec::new();
        for room in places.iter().map(|place| self.room(place)) {
            // It is never closed.
            let permit = Arc::clone(&room.free).acquire_owned().await.ok();
            seats.push(Seat::new(room, permit));
        }
        Turn(seats)
    }

    /// Places for what merges already.
    pub(super) fn keep(&self, places: &BTreeSet<Place>) -> Turn {
        let seats = places.iter().map(|place| {
            let room = self.room(place);
            let permit = Arc::clone(&room.free).try_acquire_owned().ok();
            Seat::new(room, permit)
        });
        Turn(seats.collect())
    }

    fn room(&self, place: &Place) -> Arc<Room> {
        let limit = match place {
            Place::Host(_) => self.limits.host,
            Place::Storage(_) => self.limits.storage,
        };
        let most = match limit.merges {
            0 => Semaphore::MAX_PERMITS,
            merges => merges as usize,
        };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let room = places.entry(place.clone()).or_insert_with(|| {
            Arc::new(Room {
                free: Arc::new(Semaphore::new(most)),
                merging: AtomicU64::new(0),
                bytes_per_second: limit.bytes_per_second,
            })
        });
        Arc::clone(room)
    }
}

impl Turn {
    /// What the operation may copy in a second, as it is shared now; 0 for no limit.
    pub(super) fn bytes_per_second(&self) -> u64 {
        let shares = self.0.iter().map(|seat| &seat.room);
        let limited = shares.filter(|room| room.bytes_per_second > 0);
        let share = limited.map(|room| {
            let merging = room.merging.load(Ordering::Relaxed).max(1);
            (room.bytes_per_second / merging).max(1)
        });
        share.min().unwrap_or(0)
    }
}

impl Seat {
    fn new(room: Arc<Room>, permit: Option<OwnedSemaphorePermit>) -> Self {
        room.merging.fetch_add(1, Ordering::Relaxed);
        Self {
            room,
            _permit: permit,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.merging.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(host: &str, storages: &[&str]) -> BTreeSet<Place> {
        let storages = storages
            .iter()
            .map(|id| Place::Storage(id.parse().unwrap()));
        storages
            .chain([Place::Host(host.parse().unwrap())])
            .collect()
    }

    fn limits(merges: u32, bytes_per_second: u64) -> Limits {
        let limit = Limit {
            merges,
            bytes_per_second,
        };
        Limits {
            host: limit,
            storage: Limit::default(),
        }
    }

    #[tokio::test]
    async fn who_comes_first_is_served_first_and_other_hosts_are_free() {
        let turns = Turns::new(limits(1, 0));
        let busy = turns.try_take(&places("a", &["s"])).unwrap();
        assert!(turns.try_take(&places("a", &["t"])).is_none());
        assert!(turns.try_take(&places("b", &["s"])).is_some());
        let wanted = places("a", &["s"]);
        let mut first = std::pin::pin!(turns.take(&wanted));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = std::pin::pin!(turns.take(&wanted));
        assert!(futures::poll!(&mut second).is_pending());
        drop(busy);
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut first).is_ready());
    }

    #[test]
    fn what_is_not_had_wholly_is_given_back() {
        let storage = Limit {
            merges: 1,
            bytes_per_second: 0,
        };
        let turns = Turns::new(Limits {
            storage,
            ..Limits::default()
        });
        let busy = turns.try_take(&places("a", &["t"])).unwrap();
        assert!(turns.try_take(&places("a", &["s", "t"])).is_none());
        assert!(turns.try_take(&places("a", &["s"])).is_some());
        drop(busy);
        assert!(turns.try_take(&places("a", &["s", "t"])).is_some());
    }

    #[test]
    fn a_rate_is_shared_by_those_who_merge() {
        let turns = Turns::new(limits(0, 100));
        assert_eq!(Turn::default().bytes_per_second(), 0);
        let one = turns.keep(&places("a", &[]));
        assert_eq!(one.bytes_per_second(), 100);
        let other = turns.try_take(&places("a", &[])).unwrap();
        assert_eq!([&one, &other].map(Turn::bytes_per_second), [50, 50]);
        drop(other);
        assert_eq!(one.bytes_per_second(), 100);
    }
}
