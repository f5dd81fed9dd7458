//! A machine's wall clock, which may jump. What it counts in between is true.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const EPOCH_SECONDS: i64 = 1_800_000_000;

/// A wall clock.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    off_by: SignedDuration,
}

impl WallClock {
    /// What it shows, so long after the run's start.
    pub(super) fn at(&self, now: Duration) -> Timestamp {
        let now = SignedDuration::try_from(now).expect("a run is short");
        Timestamp::from_second(EPOCH_SECONDS)
            .and_then(|epoch| epoch.checked_add(now + self.off_by))
            .expect("jumps are short")
    }

    /// Jumps, forward or back.
    pub(super) fn jump(&mut self, seconds: i64) {
        self.off_by += SignedDuration::from_secs(seconds);
    }
}
