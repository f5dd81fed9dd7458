//! The pauses between tries of what does not succeed.
//!
//! ```text
//!   tries      1      2      3        …
//!   whole    first  2·first 4·first   …  most, most, …
//!   pause    between half and the whole of it
//! ```
//!
//! A pause is a function of how often it was tried and of a seed: it can be computed where nothing
//! may be random, and be replayed. Whoever waits takes its own id for the seed, so that those who
//! failed together do not try again together. There is no last try: who gives up, and when, is the
//! caller's.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

/// From the first pause to the longest one, doubled each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Pauses that begin with `first` and grow up to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The longest pause.
    #[must_use]
    pub const fn most(&self) -> Duration {
        self.most
    }

    /// The pause after so many tries in a row that failed; the first failure is number 1.
    #[must_use]
    pub fn after(&self, tries: u32, seed: impl Hash) -> Duration {
        let factor = 2_u32.saturating_pow(tries.saturating_sub(1));
        let whole = self.first.saturating_mul(factor).min(self.most);
        let mut hasher = DefaultHasher::new();
        (seed, tries).hash(&mut hasher);
        // Of the hash 16 bits are enough to spread by.
        let part = u32::from((hasher.finish() >> 48) as u16);
        whole / 2 + whole / 2 * part / u32::from(u16::MAX)
    }
}

/// Tries in a row that have failed.
#[derive(Debug, Clone)]
pub struct Tries {
    backoff: Backoff,
    seed: u64,
    failed: u32,
}

impl Tries {
    /// None has failed.
    #[must_use]
    pub fn new(backoff: Backoff, seed: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self {
            backoff,
            seed: hasher.finish(),
            failed: 0,
        }
    }

    /// One more has failed. Gives the pause before the next one.
    pub fn failed(&mut self) -> Duration {
        self.failed = self.failed.saturating_add(1);
        self.backoff.after(self.failed, self.seed)
    }

    /// One has succeeded.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// The pause after one of what is done now and then, each `every` as long as it succeeds.
    pub fn after(&mut self, succeeded: bool, every: Duration) -> Duration {
        if !succeeded {
            return self.failed();
        }
        self.succeeded();
        every
    }

    /// How many have failed since the last one that succeeded.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));

    #[test]
    fn pauses_double_up_to_the_longest_and_lie_between_half_and_the_whole() {
        for (tries, whole) in [(0, 100), (1, 100), (2, 200), (3, 400), (8, 12_800)] {
            let whole = Duration::from_millis(whole);
            for seed in 0..100 {
                let pause = BACKOFF.after(tries, seed);
                assert!(pause >= whole / 2 && pause <= whole, "{tries}: {pause:?}");
            }
        }
        for tries in [9, 40, u32::MAX] {
            let pause = BACKOFF.after(tries, 7);
            assert!(pause >= BACKOFF.most() / 2 && pause <= BACKOFF.most());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses_and_others_are_spread() {
        let pauses = |seed: u64| (1..10).map(move |tries| BACKOFF.after(tries, seed));
        assert!(pauses(1).eq(pauses(1)));
        let eighth: Vec<_> = (0..64).map(|seed: u64| BACKOFF.after(8, seed)).collect();
        let (least, most) = (eighth.iter().min().unwrap(), eighth.iter().max().unwrap());
        // All of them lie within 6.4 s: they fill most of it.
        assert!(*most - *least > Duration::from_secs(4), "{eighth:?}");
    }

    #[test]
    fn what_is_done_now_and_then_is_done_less_often_while_it_fails() {
        let every = Duration::from_secs(30);
        let backoff = Backoff::new(every, 10 * every);
        let mut tries = Tries::new(backoff, "a domain");
        assert_eq!(tries.after(true, every), every);
        let first = tries.after(false, every);
        assert!(first <= every);
        for _ in 0..5 {
            tries.after(false, every);
        }
        let late = tries.after(false, every);
        assert!(late > 4 * every && late <= backoff.most(), "{late:?}");
        assert_eq!(tries.after(true, every), every);
        assert_eq!(tries.after(false, every), first);
    }

    #[test]
    fn a_success_begins_anew() {
        let mut tries = Tries::new(BACKOFF, "a host");
        let first = tries.failed();
        assert!(tries.failed() > first.mul_f64(0.9));
        assert_eq!(tries.count(), 2);
        tries.succeeded();
        assert_eq!(tries.count(), 0);
        assert_eq!(tries.failed(), first);
    }
}
