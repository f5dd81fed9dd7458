//! How many requests are in flight: one more after each round that went well, half as many when the
//! store asks for fewer. Of those that were in flight together when it did, the first is the news: the others
//! were sent before anybody knew.

use std::time::Duration;
use uuid::Uuid;

const FIRST: usize = 8;
const MOST: usize = 64;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// A window of requests.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    well: usize,
    pause: Duration,
    pauses: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST,
            well: 0,
            pause: SHORTEST,
            pauses: 0,
        }
    }
}

impl Window {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A request ended well.
    pub(super) fn well(&mut self) {
        self.pause = SHORTEST;
        self.well += 1;
        if self.well >= self.size {
            self.well = 0;
            self.size = (self.size + 1).min(MOST);
        }
    }

    /// How many pauses there were: what a request that is sent now has to say if it fails.
    pub(super) fn pauses(&self) -> u64 {
        self.pauses
    }

    /// A request failed that was sent after so many pauses. Tells how long to wait: longer each time, and not
    /// for the same time as others; nothing when there was a pause since.
    pub(super) fn badly(&mut self, throttled: bool, sent_after: u64) -> Duration {
        if sent_after < self.pauses {
            return Duration::ZERO;
        }
        self.pauses += 1;
        self.well = 0;
        if throttled {
            self.size = (self.size / 2).max(1);
        }
        let random = f64::from(Uuid::new_v4().as_bytes()[0]) / 256.0;
        let pause = self.pause.mul_f64(0.5 + random);
        self.pause = (self.pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_one_a_round_and_is_halved() {
        let mut window = Window::default();
        (0..FIRST).for_each(|_| window.well());
        assert_eq!(window.size(), FIRST + 1);
        (0..100_000).for_each(|_| window.well());
        assert_eq!(window.size(), MOST);
        assert!(window.badly(false, 0) < SHORTEST * 2);
        assert_eq!(window.size(), MOST);
        let pauses: Vec<_> = (1..21).map(|sent| window.badly(true, sent)).collect();
        assert_eq!(window.size(), 1);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST * 2));
        assert!(pauses[10] > pauses[0]);
    }
    #[test]
    fn what_was_in_flight_together_fails_once() {
        let mut window = Window::default();
        let sent = window.pauses();
        assert!(window.badly(true, sent) > Duration::ZERO);
        for _other in 1..FIRST {
            assert_eq!(window.badly(true, sent), Duration::ZERO);
        }
        assert_eq!(window.size(), FIRST / 2);
        assert!(window.badly(true, window.pauses()) > SHORTEST / 2);
        assert_eq!(window.size(), FIRST / 4);
    }
}
