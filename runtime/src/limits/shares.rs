//! Places, and who holds them.
//!
//! The rule is one sentence: *no client holds more places than it leaves free*. One client that
//! floods a server gets half of the places, two get a third each, and so on; a client that holds
//! nothing gets a place as long as there is any. Nobody has to be known beforehand, and a client
//! that is alone is held back no more than that.

use super::shed::{Limit, Shed};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who holds a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Whom credentials name.
    Named(String),
    /// An address without its port; of IPv6 the network that one client has to itself.
    Address(IpAddr),
    /// Whoever can reach a unix socket.
    Local,
}

impl Holder {
    pub(crate) fn at(address: IpAddr) -> Self {
        Holder::Address(match address.to_canonical() {
            IpAddr::V6(own) => {
                let [a, b, c, d, ..] = own.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            own @ IpAddr::V4(_) => own,
        })
    }
}

/// So many places. Clones have the same.
#[derive(Clone, Debug)]
pub(crate) struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: usize,
    limit: Limit,
    shed: Shed,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Those alone that hold something.
    by: HashMap<Holder, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All places are held.
    Full,
    /// The client would hold more than it leaves free.
    Share,
}

impl Shares {
    pub(crate) fn new(places: NonZeroU32, limit: Limit, shed: &Shed) -> Self {
        Shares(Arc::new(Inner {
            places: places.get() as usize,
            limit,
            shed: shed.clone(),
            held: Mutex::default(),
        }))
    }

    /// A place until it is dropped; a refusal is counted.
    pub(crate) fn take(&self, holder: Holder) -> Result<Place, Refused> {
        let taken = self.0.held().take(&holder, self.0.places);
        match taken {
            Ok(()) => Ok(Place {
                of: Arc::clone(&self.0),
                holder,
            }),
            Err(refused) => {
                self.0.shed.count(self.0.limit, refused);
                Err(refused)
            }
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn take(&mut self, holder: &Holder, places: usize) -> Result<(), Refused> {
        let free = places - self.all;
        if free == 0 {
            return Err(Refused::Full);
        }
        match self.by.get_mut(holder) {
            Some(own) if *own >= free => return Err(Refused::Share),
            Some(own) => *own += 1,
            None => drop(self.by.insert(holder.clone(), 1)),
        }
        self.all += 1;
        Ok(())
    }

    fn give_back(&mut self, holder: &Holder) {
        self.all -= 1;
        if let Some(own) = self.by.get_mut(holder) {
            *own -= 1;
            if *own == 0 {
                self.by.remove(holder);
            }
        }
    }
}

/// A place that is held.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<Inner>,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.held().give_back(&self.holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    fn shares(places: u32) -> Shares {
        let shed = Shed::new(&Metrics::default());
        Shares::new(NonZeroU32::new(places).unwrap(), Limit::Calls, &shed)
    }

    fn named(name: &str) -> Holder {
        Holder::Named(name.to_owned())
    }

    /// All that a client gets.
    fn flood(shares: &Shares, name: &str) -> Vec<Place> {
        std::iter::from_fn(|| shares.take(named(name)).ok()).collect()
    }

    #[test]
    fn a_client_holds_no_more_than_it_leaves_free() {
        for (places, alone) in [(1, 1), (2, 1), (3, 2), (9, 5), (100, 50)] {
            assert_eq!(flood(&shares(places), "a").len(), alone, "{places}");
        }
    }

    #[test]
    fn whoever_holds_nothing_finds_a_place_until_none_is_free() {
        let shares = shares(12);
        let a = flood(&shares, "a");
        let b = flood(&shares, "b");
        assert_eq!((a.len(), b.len()), (6, 3));
        assert_eq!(shares.take(named("a")).unwrap_err(), Refused::Share);
        let others: Vec<_> = ["c", "d", "e"].map(|name| shares.take(named(name))).into();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(shares.take(named("f")).unwrap_err(), Refused::Full);
        drop(a);
        assert!(shares.take(named("f")).is_ok());
    }

    #[test]
    fn what_is_given_back_can_be_had_again_and_nobody_is_remembered() {
        let shares = shares(4);
        for _ in 0..3 {
            assert_eq!(flood(&shares, "a").len(), 2);
        }
        let held = shares.0.held();
        assert_eq!((held.all, held.by.len()), (0, 0));
    }

    #[test]
    fn an_address_counts_without_what_its_client_may_choose() {
        let at = |address: &str| Holder::at(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::2"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
