//! How many requests are in flight, and how far apart they are sent.
//!
//! ```text
//!   all go well ─▶ one more in flight after each round of them, and the distance shrinks until there is none
//!   one fails   ─▶ half as many when the store asks for fewer; and as far apart as those were that went well
//!                  since the last failure: what the store carries. Twice as far apart when none did
//! ```
//!
//! - Of those that were in flight together when one fails, the first is the news: the others were sent before
//!   anybody knew.
//! - Requests are sent at their distance, however long the answers take: the time of the one is not added
//!   to the other.

use std::time::{Duration, Instant};
use uuid::Uuid;

const FIRST: usize = 16;
const MOST: usize = 64;
/// One is answered while the next is on its way.
const LEAST: usize = 2;
/// Apart after the first failure.
const BEGINS: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// So little apart is not apart.
const NONE: Duration = Duration::from_millis(5);
const SHRINKS: f64 = 0.9;

/// The pace of requests to a store.
#[derive(Debug)]
pub(super) struct Pace {
    in_flight: usize,
    /// That went well since there may be so many in flight.
    round: usize,
    apart: Duration,
    opens: Instant,
    failures: u64,
    failed_at: Instant,
    /// That went well since then.
    well: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: FIRST,
            round: 0,
            apart: Duration::ZERO,
            opens: now,
            failures: 0,
            failed_at: now,
            well: 0,
        }
    }

    /// How many requests may be in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When the next one may be sent.
    pub(super) fn opens(&self) -> Instant {
        self.opens
    }

    /// A request is sent. Gives what is to be told when it fails.
    pub(super) fn sent(&mut self, now: Instant) -> u64 {
        self.opens = now + self.apart;
        self.failures
    }

    /// A request ended well.
    pub(super) fn well(&mut self) {
        self.well += 1;
        self.apart = self.apart.mul_f64(SHRINKS);
        if self.apart < NONE {
            self.apart = Duration::ZERO;
        }
        self.round += 1;
        if self.round >= self.in_flight {
            self.round = 0;
            self.in_flight = (self.in_flight + 1).min(MOST);
        }
    }

    /// How many failures were news.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// A request failed that was sent after so many failures. The next one is not sent after the same time as
    /// others do that failed with it.
    pub(super) fn badly(&mut self, throttled: bool, sent_after: u64, now: Instant) {
        if sent_after < self.failures {
            return;
        }
        let apart = match self.well {
            0 => self.apart * 2,
            well => (now - self.failed_at) / well,
        };
        self.apart = apart.clamp(BEGINS, LONGEST);
        let random = f64::from(Uuid::new_v4().as_bytes()[0]) / 256.0;
        self.opens = now + self.apart.mul_f64(0.5 + random / 2.0);
        if throttled {
            self.in_flight = (self.in_flight / 2).max(LEAST);
        }
        self.round = 0;
        self.failures += 1;
        self.failed_at = now;
        self.well = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_are_in_flight_after_each_round_and_half_as_many_when_fewer_are_asked_for() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        (0..FIRST).for_each(|_| pace.well());
        assert_eq!(pace.in_flight(), FIRST + 1);
        (0..100_000).for_each(|_| pace.well());
        assert_eq!((pace.in_flight(), pace.opens()), (MOST, now));
        pace.badly(false, 0, now);
        assert_eq!(pace.in_flight(), MOST);
        for failed in 1..30 {
            let before = pace.opens();
            pace.badly(true, failed, before);
            assert!(pace.opens() > before && pace.opens() < before + LONGEST * 2);
        }
        assert_eq!((pace.in_flight(), pace.apart), (LEAST, LONGEST));
    }

    #[test]
    fn what_was_in_flight_together_fails_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let sent = pace.sent(now);
        pace.badly(true, sent, now);
        let opens = pace.opens();
        (1..FIRST).for_each(|_| pace.badly(true, sent, now));
        assert_eq!((pace.in_flight(), pace.opens()), (FIRST / 2, opens));
        let sent = pace.sent(opens);
        pace.badly(true, sent, opens);
        assert_eq!(pace.in_flight(), FIRST / 4);
    }

    /// A store that takes two requests a second, and as many at once when none came for a second; it answers
    /// after a while.
    struct Store {
        has: f64,
        at: Instant,
        answers: Duration,
    }

    impl Store {
        const RATE: f64 = 2.0;

        fn takes(&mut self, now: Instant) -> bool {
            let earned = (now - self.at).as_secs_f64() * Self::RATE;
            self.has = (self.has + earned).min(Self::RATE);
            self.at = now;
            let takes = self.has >= 1.0;
            self.has -= f64::from(u8::from(takes));
            takes
        }
    }

    #[test]
    fn what_a_store_carries_is_used_and_few_are_refused() {
        const WORK: usize = 60;
        for answers in [10, 300, 700] {
            let begun = Instant::now();
            let mut store = Store {
                has: Store::RATE,
                at: begun,
                answers: Duration::from_millis(answers),
            };
            let mut pace = Pace::new(begun);
            let (mut now, mut done, mut refused) = (begun, 0, 0);
            let mut in_flight = Vec::<(Instant, bool, u64)>::new();
            while done < WORK {
                let (ended, open): (Vec<_>, _) =
                    in_flight.into_iter().partition(|(at, ..)| *at <= now);
                in_flight = open;
                for (_, taken, sent) in ended {
                    if taken {
                        pace.well();
                        done += 1;
                    } else {
                        pace.badly(true, sent, now);
                        refused += 1;
                    }
                }
                if in_flight.len() < pace.in_flight() && pace.opens() <= now {
                    let sent = pace.sent(now);
                    let taken = store.takes(now);
                    let refusal = Duration::from_millis(10);
                    in_flight.push((
                        now + if taken { store.answers } else { refusal },
                        taken,
                        sent,
                    ));
                }
                now += Duration::from_millis(1);
            }
            let allowed = (WORK as f64 - Store::RATE) / Store::RATE;
            let took = (now - begun).as_secs_f64();
            assert!(took < allowed / 0.9, "{took} s of {allowed}, {answers} ms");
            assert!(refused < WORK / 2, "{refused} refused, {answers} ms");
        }
    }
}
