//! How much merges at once, and how fast, on each host and in each storage domain.
//!
//! ```text
//!   a delete ─▶ queue, in the order of acceptance ─▶ all its places at once ─▶ merges ─▶ gives them back
//!                 └── one of them is full: QUEUED ──┘        (its host's, its domains')
//! ```
//!
//! - Who waits holds no place: all are taken at once, or none. Whenever one is given back or somebody
//!   leaves the queue, all who wait are tried again, in order.
//! - Who waits for one place may be overtaken by those who need others, but not for ever: after
//!   [`OVERTAKEN_MOST`] of them its places are kept free for it.
//! - What was merging when the server stopped goes on, whatever the limits say now.
//! - A total rate is shared evenly by what merges there.

use livemerge_proto::ids::{HostId, OperationId};
use livemerge_storage::StorageId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// So many who came later may have taken one of the places that somebody waits for.
const OVERTAKEN_MOST: u32 = 8;

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

impl Limits {
    fn of(&self, place: &Place) -> Limit {
        match place {
            Place::Host(_) => self.host,
            Place::Storage(_) => self.storage,
        }
    }
}

/// Where merges take room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Host(HostId),
    Storage(StorageId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Storage(storage) => write!(f, "storage domain {storage}"),
        }
    }
}

/// The places of all hosts and domains.
#[derive(Debug)]
pub(super) struct Turns {
    hall: Arc<Hall>,
    /// Those of operations that were merging when the server stopped, until their lanes have begun: who
    /// queues then finds their places taken.
    kept: Mutex<BTreeMap<OperationId, Turn>>,
}

#[derive(Debug)]
struct Hall {
    limits: Limits,
    state: Mutex<State>,
    /// Others have begun or ended: a share may be another one.
    shares: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// How many merge at each place.
    merging: BTreeMap<Place, u32>,
    queue: BTreeMap<OperationId, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    places: BTreeSet<Place>,
    overtaken: u32,
    told: watch::Sender<Standing>,
}

/// How it stands with somebody in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Waits {
        /// What holds it up.
        at: Place,
        /// Its place among those who wait for one of the same places, from 1.
        position: u32,
    },
    Seated,
}

/// A place in the queue. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Ticket {
    hall: Arc<Hall>,
    id: OperationId,
    places: BTreeSet<Place>,
    standing: watch::Receiver<Standing>,
}

/// The places of one operation. Dropped, they are given back.
#[derive(Debug, Default)]
pub(super) struct Turn(Option<Held>);

#[derive(Debug)]
struct Held {
    hall: Arc<Hall>,
    places: BTreeSet<Place>,
    /// Its share as it was asked for last.
    share: AtomicU64,
    shares_change: watch::Receiver<()>,
}

impl Turns {
    pub(super) fn new(limits: Limits) -> Self {
        let hall = Hall {
            limits,
            state: Mutex::default(),
            shares: watch::Sender::new(()),
        };
        Self {
            hall: Arc::new(hall),
            kept: Mutex::default(),
        }
    }

    /// Puts a turn by for the operation whose it is.
    pub(super) fn put_by(&self, id: OperationId, turn: Turn) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(id, turn);
    }

    /// The turn that was put by for it.
    pub(super) fn put_by_for(&self, id: OperationId) -> Option<Turn> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&id)
    }

    /// Whether who queues for these places now need not wait.
    pub(super) fn has_room(&self, places: &BTreeSet<Place>) -> bool {
        let state = self.hall.lock();
        let free = |place: &Place| !state.is_full(place, &self.hall.limits);
        let mut waiters = state.queue.values();
        places.iter().all(free) && waiters.all(|waiter| waiter.places.is_disjoint(places))
    }

    /// Queues for places, of which all may be had at once. An operation queues once.
    pub(super) fn queue(&self, id: OperationId, places: BTreeSet<Place>) -> Ticket {
        let mut state = self.hall.lock();
        let waits = state.join(id, &places, &self.hall.limits);
        let seat = waits.is_none();
        let (told, standing) = watch::channel(waits.unwrap_or(Standing::Seated));
        let waiter = Waiter {
            places: places.clone(),
            overtaken: 0,
            told,
        };
        state.queue.insert(id, waiter);
        if seat {
            state.seat(&self.hall.limits);
        }
        drop(state);
        if seat {
            self.hall.shares.send_replace(());
        }
        Ticket {
            hall: Arc::clone(&self.hall),
            id,
            places,
            standing,
        }
    }

    /// Places for what merges already.
    pub(super) fn keep(&self, places: BTreeSet<Place>) -> Turn {
        self.hall.lock().take(&places);
        self.hall.shares.send_replace(());
        Turn(Some(self.hall.held(places)))
    }
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(self: &Arc<Self>, places: BTreeSet<Place>) -> Held {
        Held {
            places,
            share: AtomicU64::new(0),
            shares_change: self.shares.subscribe(),
            hall: Arc::clone(self),
        }
    }

    fn give_back(&self, places: &BTreeSet<Place>) {
        let mut state = self.lock();
        for place in places {
            if let Some(merging) = state.merging.get_mut(place) {
                *merging = merging.saturating_sub(1);
            }
        }
        state.merging.retain(|_, merging| *merging > 0);
        state.seat(&self.limits);
        drop(state);
        self.shares.send_replace(());
    }
}

impl State {
    fn take(&mut self, places: &BTreeSet<Place>) {
        for place in places {
            *self.merging.entry(place.clone()).or_default() += 1;
        }
    }

    fn is_full(&self, place: &Place, limits: &Limits) -> bool {
        let most = limits.of(place).merges;
        most > 0 && self.merging.get(place).is_some_and(|now| *now >= most)
    }

    /// How somebody stands who joins the queue and has to wait: that takes no place, so who stands behind only
    /// moves back by one, and all need not be tried again.
    fn join(
        &mut self,
        id: OperationId,
        places: &BTreeSet<Place>,
        limits: &Limits,
    ) -> Option<Standing> {
        let before = || self.queue.range(..id).map(|(_, waiter)| waiter);
        let kept_free = |place: &Place| {
            let mut before = before();
            before.any(|one| one.overtaken >= OVERTAKEN_MOST && one.places.contains(place))
        };
        let held_up = |place: &&Place| self.is_full(place, limits) || kept_free(place);
        let at = places.iter().find(held_up)?.clone();
        let before = before().filter(|one| !one.places.is_disjoint(places));
        let position = u32::try_from(before.count()).unwrap_or(u32::MAX - 1) + 1;
        let behind = self.queue.range_mut(id..).map(|(_, waiter)| waiter);
        for waiter in behind.filter(|one| !one.places.is_disjoint(places)) {
            waiter.told.send_modify(|told| {
                if let Standing::Waits { position, .. } = told {
                    *position += 1;
                }
            });
        }
        Some(Standing::Waits { at, position })
    }

    /// Tries all who wait, in order, and tells them how they stand.
    fn seat(&mut self, limits: &Limits) {
        let mut kept_free: BTreeSet<Place> = BTreeSet::new();
        // How many wait, by their places: most wait for the same ones.
        let mut before: BTreeMap<BTreeSet<Place>, u32> = BTreeMap::new();
        for (id, waiter) in std::mem::take(&mut self.queue) {
            let held_up = |place: &&Place| kept_free.contains(place) || self.is_full(place, limits);
            let Some(at) = waiter.places.iter().find(held_up).cloned() else {
                self.take(&waiter.places);
                waiter.told.send_replace(Standing::Seated);
                for earlier in self.queue.values_mut() {
                    earlier.overtaken += u32::from(!earlier.places.is_disjoint(&waiter.places));
                }
                continue;
            };
            if waiter.overtaken >= OVERTAKEN_MOST {
                kept_free.extend(waiter.places.iter().cloned());
            }
            let same = before
                .iter()
                .filter(|(places, _)| !places.is_disjoint(&waiter.places));
            let position = same.map(|(_, count)| count).sum::<u32>() + 1;
            match before.get_mut(&waiter.places) {
                Some(count) => *count += 1,
                None => drop(before.insert(waiter.places.clone(), 1)),
            }
            let standing = Standing::Waits { at, position };
            waiter.told.send_if_modified(|told| {
                let news = *told != standing;
                *told = standing;
                news
            });
            self.queue.insert(id, waiter);
        }
    }
}

impl Ticket {
    /// How it stands now.
    pub(super) fn standing(&mut self) -> Standing {
        self.standing.borrow_and_update().clone()
    }

    /// Ends when it stands otherwise.
    pub(super) async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            // Who is seated is told nothing more.
            std::future::pending::<()>().await;
        }
    }

    /// The places of somebody who is seated.
    pub(super) fn turn(mut self) -> Turn {
        let places = std::mem::take(&mut self.places);
        let seated = *self.standing.borrow() == Standing::Seated;
        Turn(seated.then(|| self.hall.held(places)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.hall.lock();
        if state.queue.remove(&self.id).is_some() {
            state.seat(&self.hall.limits);
            drop(state);
            self.hall.shares.send_replace(());
            return;
        }
        drop(state);
        // Empty when its turn has them.
        self.hall.give_back(&self.places);
    }
}

impl Turn {
    /// What the operation may copy in a second, as it is shared now; 0 for no limit.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.0.as_ref().map_or(0, |held| {
            let share = held.share_now();
            held.share.store(share, Ordering::Relaxed);
            share
        })
    }

    /// Ends when that is another one than when it was asked for last.
    pub(super) async fn share_changed(&mut self) {
        if let Some(held) = &mut self.0 {
            while held.share_now() == held.share.load(Ordering::Relaxed) {
                if held.shares_change.changed().await.is_err() {
                    break;
                }
            }
            return;
        }
        std::future::pending::<()>().await;
    }
}

impl Held {
    fn share_now(&self) -> u64 {
        let state = self.hall.lock();
        let share = |place: &Place| {
            let all = self.hall.limits.of(place).bytes_per_second;
            let merging = state.merging.get(place).copied().unwrap_or(1).max(1);
            (all > 0).then(|| (all / u64::from(merging)).max(1))
        };
        self.places.iter().filter_map(share).min().unwrap_or(0)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.hall.give_back(&held.places);
        }
    }
}

#[cfg(test)]
mod tests;
