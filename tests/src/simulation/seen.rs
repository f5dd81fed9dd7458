//! What runs have gone through.

use std::collections::BTreeMap;
use std::fmt;

/// What runs have gone through: how often of each.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    pub(super) fn count(&mut self, what: &'static str) {
        self.add_to(what, 1);
    }

    pub(super) fn add_to(&mut self, what: &'static str, times: usize) {
        *self.0.entry(what).or_default() += times;
    }

    /// How often.
    pub fn times(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// With what other runs have gone through.
    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add_to(what, *times);
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            writeln!(f, "{times:>9}  {what}")?;
        }
        Ok(())
    }
}
