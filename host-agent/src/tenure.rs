//! How long this process is its host's agent: until it stops, or a newer one has taken its place.
//!
//! ```text
//!   the host's agent ─┬─ told to stop ─────────────────────▶ the process ends
//!                     └─ registration: STALE_GENERATION ───▶ replaced: until somebody stops it
//! ```
//!
//! One that was replaced has lost the right to change anything: a machine has one writer. It takes no
//! orders any more, its merges end where no guest stands still for them, and nothing is grown, reaped
//! or taken back. It goes on to answer questions and to thaw what it has frozen, says NOT_SERVING, and
//! registers no more: it is the host's agent again only by a new start, which has a generation of its own.

use crate::merge::Fence;
use livemerge_runtime::Shutdown;
use std::sync::Arc;

/// The tenure of one process. Clones are the same.
#[derive(Debug, Clone)]
pub struct Tenure {
    fence: Arc<Fence>,
    work: Shutdown,
}

impl Tenure {
    /// Ends with the process, or when it is told so.
    pub(crate) fn new(fence: Arc<Fence>, shutdown: &Shutdown) -> Self {
        Self {
            fence,
            work: shutdown.child_token(),
        }
    }

    /// What the work of the host's agent ends with.
    pub(crate) fn work(&self) -> &Shutdown {
        &self.work
    }

    /// A newer agent of the same host is there.
    pub fn replaced(&self) {
        self.fence.close();
        self.work.cancel();
        tracing::error!(
            "another agent of this host is registered with a newer generation, or one of the same \
             start: this one takes no orders and leaves its merges; stop it, or stop the other one \
             and start this one again"
        );
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.work.is_cancelled()
    }
}
