//! How many bytes lie before an offset, coarsely: what a job that goes through an image from its
//! beginning has copied when it has come that far.
//!
//! ```text
//!   data      ··DDD·······D··
//!   buckets   |   2|  1|   |  1|       before(6) = 3
//! ```
//!
//! The number of buckets is bounded, not their size: a large image has larger ones.

use serde::{Deserialize, Serialize};

/// At most so many buckets: what is kept of a volume stays below some kilobytes.
const BUCKETS: usize = 256;
/// Size of the smallest ones.
const SMALLEST: u64 = 64 << 10;

/// Bytes by offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    bucket_bytes: u64,
    sums: Vec<u64>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            bucket_bytes: SMALLEST,
            sums: Vec::new(),
        }
    }
}

impl Profile {
    /// Adds bytes that lie in one piece.
    pub fn add(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        while self.room() < end {
            self.coarsen();
        }
        let mut at = start;
        while at < end {
            let place = self.place(at);
            if self.sums.len() <= place {
                self.sums.resize(place + 1, 0);
            }
            let next = (at - at % self.bucket_bytes).saturating_add(self.bucket_bytes);
            let until = next.min(end);
            self.sums[place] += until - at;
            at = until;
        }
    }

    /// Bytes before an offset. Within a bucket they count as spread evenly.
    pub fn before(&self, offset: u64) -> u64 {
        let place = self.place(offset);
        let whole: u64 = self.sums.iter().take(place).sum();
        let part = self.sums.get(place).map_or(0, |sum| {
            let part = u128::from(*sum) * u128::from(offset % self.bucket_bytes);
            u64::try_from(part / u128::from(self.bucket_bytes)).unwrap_or(*sum)
        });
        whole + part
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.sums.iter().sum()
    }

    fn room(&self) -> u64 {
        self.bucket_bytes.saturating_mul(BUCKETS as u64)
    }

    fn place(&self, offset: u64) -> usize {
        usize::try_from(offset / self.bucket_bytes).unwrap_or(usize::MAX)
    }

    fn coarsen(&mut self) {
        self.bucket_bytes = self.bucket_bytes.saturating_mul(2);
        let pairs = self.sums.chunks(2).map(|pair| pair.iter().sum());
        self.sums = pairs.collect();
    }
}

impl<'a> std::iter::Sum<&'a Self> for Profile {
    fn sum<I: Iterator<Item = &'a Self>>(profiles: I) -> Self {
        profiles.fold(Self::default(), |mut all, profile| {
            while all.bucket_bytes < profile.bucket_bytes {
                all.coarsen();
            }
            for (place, sum) in (0..).zip(&profile.sums) {
                // Its buckets are never larger than theirs: one of it lies in one of them.
                let into = all.place(place * profile.bucket_bytes);
                if all.sums.len() <= into {
                    all.sums.resize(into + 1, 0);
                }
                all.sums[into] += sum;
            }
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_lies_at_the_end_is_not_before_it() {
        let mut profile = Profile::default();
        profile.add(992 * MIB, 32 * MIB);
        assert_eq!(profile.total(), 32 * MIB);
        for (offset, before) in [
            (0, 0),
            (512, 0),
            (992, 0),
            (1000, 8),
            (1024, 32),
            (4096, 32),
        ] {
            assert_eq!(profile.before(offset * MIB), before * MIB, "{offset}");
        }
    }

    #[test]
    fn within_a_bucket_bytes_are_spread_evenly() {
        let mut profile = Profile::default();
        profile.add(0, 16 << 10);
        assert_eq!(profile.before(SMALLEST / 2), 8 << 10);
        assert_eq!(profile.before(SMALLEST), 16 << 10);
    }

    #[test]
    fn however_large_and_scattered_it_stays_small_and_near() {
        let mut profile = Profile::default();
        let step = 10 * MIB;
        for piece in 0..100_000 {
            profile.add(piece * step, 64 << 10);
        }
        assert!(profile.sums.len() <= BUCKETS);
        assert_eq!(profile.total(), 100_000 * (64 << 10));
        let (bucket, half) = (profile.bucket_bytes, 50_000);
        let wanted = half * (64 << 10);
        let off = profile.before(half * step).abs_diff(wanted);
        assert!(off <= (bucket / step + 1) * (64 << 10), "{off}");
        profile.add(u64::MAX - 5, 10);
        assert!(profile.total() - profile.before(u64::MAX) <= 1);
    }

    #[test]
    fn several_are_added_whatever_their_buckets() {
        let (mut fine, mut coarse) = (Profile::default(), Profile::default());
        fine.add(MIB, 3 * MIB);
        coarse.add(2 * MIB, MIB);
        coarse.add(1000 * MIB, 8 * MIB);
        for order in [[&fine, &coarse], [&coarse, &fine]] {
            let sum: Profile = order.into_iter().sum();
            assert_eq!(sum.total(), 12 * MIB);
            assert_eq!(sum.before(900 * MIB), 4 * MIB);
            assert_eq!(sum.before(1004 * MIB), 8 * MIB);
        }
    }
}
