//! How long calls take at most, and how often they are made.

use super::{Methods, Patient};
use crate::Backoff;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tower::retry::budget::{Budget, TpsBudget};

/// Bounds of the calls over one line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallPolicy {
    /// The time of a unary call with all its tries, where the caller sets none.
    pub time: Duration,
    /// How often a call is made at most, the first time included.
    pub tries: NonZeroU32,
    /// The pauses between tries; what `RetryInfo` says comes on top.
    pub backoff: Backoff,
    /// Repetitions that the line has for each second, however few calls it makes.
    pub repeats_per_second: u32,
    /// Repetitions for each call that succeeds, beside those; 0 to 1,000.
    pub repeats_per_call: f32,
}

impl Default for CallPolicy {
    fn default() -> Self {
        CallPolicy {
            time: Duration::from_secs(30),
            tries: const { NonZeroU32::new(4).expect("not zero") },
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            repeats_per_second: 2,
            repeats_per_call: 0.2,
        }
    }
}

/// For how long a call that succeeded allows repetitions.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What the calls over one line have together: which may be repeated, and how often. Clones share
/// the budget.
#[derive(Clone)]
pub struct Patience {
    pub(super) methods: Methods,
    pub(super) policy: CallPolicy,
    budget: Arc<TpsBudget>,
}

impl Patience {
    /// With a full budget.
    #[must_use]
    pub fn new(methods: Methods, policy: CallPolicy) -> Self {
        let budget = TpsBudget::new(
            REMEMBERED,
            policy.repeats_per_second,
            policy.repeats_per_call,
        );
        Patience {
            methods,
            policy,
            budget: Arc::new(budget),
        }
    }

    /// The same channel, called patiently.
    pub fn over<S>(&self, channel: S) -> Patient<S> {
        Patient::new(channel, self.clone())
    }

    /// A call has succeeded.
    pub(super) fn succeeded(&self) {
        self.budget.deposit();
    }

    /// Before the next try of a call, after so many.
    pub(super) fn pause(&self, tries: u32, seed: impl Hash) -> Duration {
        self.policy.backoff.after(tries, seed)
    }

    /// Takes a repetition out of the budget, if there is one.
    pub(super) fn may_repeat(&self) -> bool {
        self.budget.withdraw()
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
