//! What came of many cases.

use serde::Serialize;

/// Counts, for `target/sweep.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Cases that were run to their end, failed ones too.
    pub cases: usize,
    /// Cases in which a promise was broken.
    pub failed: usize,
    /// Cases whose fault never came about.
    pub skipped: usize,
    /// Cases that were left out on purpose; the report says which, and why.
    pub left_out: usize,
    /// What random parts were drawn from. The sweep itself draws nothing.
    pub seeds: Vec<u64>,
}

impl Tally {
    /// Adds another part's counts.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.left_out += other.left_out;
        self.seeds.extend(other.seeds);
    }
}
