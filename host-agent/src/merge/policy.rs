//! The bounds that a merge keeps.

use livemerge_runtime::Backoff;
use std::time::Duration;

/// The bounds that a merge keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether the guest's processors stand still while it is switched to the base.
    pub pivot: PivotMode,
    /// How long the processors may stand still before the pivot is called off and tried later.
    pub pause_limit: Duration,
    /// How long a pivot that was asked for may show no effect.
    pub pivot_limit: Duration,
    /// Time between two tries of the pivot.
    pub retry: Backoff,
    /// How long an expected block job may be missing before it counts as gone: libvirt updates
    /// its definition a moment after QEMU has ended a job.
    pub settle: Duration,
    /// How long a copy may not come closer to its end before something is done about it.
    pub stalled_after: Duration,
    /// What a guest may write in a second when it is held back as far as it may be.
    pub least_guest_bytes: u64,
    /// Time between two looks at a copy, for its progress. Its end is told by an event.
    pub look_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pivot: PivotMode::Suspended,
            pause_limit: Duration::from_millis(200),
            pivot_limit: Duration::from_secs(2),
            retry: Backoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            settle: Duration::from_secs(2),
            stalled_after: Duration::from_secs(10),
            least_guest_bytes: 1 << 20,
            look_every: Duration::from_millis(500),
        }
    }
}

/// Whether the guest runs while it is switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PivotMode {
    /// Its processors stand still: if QEMU dies, there is no doubt which volume is the truth.
    Suspended,
    /// It runs: if QEMU dies within the window, the merge fails and both volumes are kept.
    Running,
}
