//! Frozen guests: their file systems stand still while overlays are put on, and never for longer.
//!
//! ```text
//!   freeze ─▶ mark ─▶ hypervisor: freeze ─┬─ frozen ─▶ the caller puts the overlays on
//!                                         │              │ thaw, caller gone, or time over
//!                     (keeper, a task)    ├─ perhaps ────┤
//!                                         │              ▼
//!                                         │            hypervisor: thaw, until it is answered
//!                                         └─ no ───────▶ mark away
//! ```
//!
//! Invariants:
//! - The mark is on disk before the guest is asked to freeze, and goes after its thaw was answered, or
//!   the machine was seen off or gone. A starting agent thaws whatever has a mark.
//! - A task of its own holds the freeze: whatever becomes of the caller, the guest is thawed, at the
//!   latest after [`Policy::hold`].
//! - Frozen is said of a snapshot only if the thaw found the guest still frozen.
//! - An agent in the guest that does not answer takes a snapshot no longer than twice
//!   [`Policy::answer`].
//!
//! It puts no overlay on: that is `overlays`.

mod keeper;
mod marks;
#[cfg(test)]
mod tests;

use crate::hypervisor::{Hypervisor, Overlay, VmState, VmView};
use crate::lanes::Lanes;
use keeper::{Keeper, Told};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Shutdown;
use marks::{Mark, Marks, Taken};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Whether a guest is frozen while overlays are put on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quiesce {
    /// When its agent answers in time.
    #[default]
    IfPossible,
    /// Or there are no overlays.
    Required,
    /// Its agent is not asked.
    Never,
}

/// What a guest finds that starts from what lies below the overlays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Not known.
    #[default]
    Unknown,
    /// What a power cut would have left.
    Crash,
    /// Frozen file systems.
    Frozen,
    /// What a machine had while it was off.
    Off,
}

/// The bounds of a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a guest's agent has for a sign of life, and again for its work.
    pub answer: Duration,
    /// How long a guest stays frozen at most.
    pub hold: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            hold: Duration::from_secs(10),
        }
    }
}

/// The frozen guests of this host.
pub struct Freezes {
    hypervisor: Arc<dyn Hypervisor>,
    marks: Arc<Marks>,
    policy: Policy,
    /// Of a machine: one freeze until its thaw was answered.
    lanes: Lanes<VmId>,
    stuck: watch::Sender<BTreeSet<VmId>>,
    keepers: TaskTracker,
    shutdown: Shutdown,
}

/// A guest that is frozen until this is dropped, or its time is over.
#[derive(Debug)]
pub struct Frozen {
    release: oneshot::Sender<()>,
    held: oneshot::Receiver<bool>,
}

impl Frozen {
    /// Has the guest thawed, and waits for its first answer. Tells whether it was frozen until then.
    pub async fn thaw(self) -> bool {
        drop(self.release);
        self.held.await.unwrap_or(false)
    }
}

impl Freezes {
    /// Reads the marks, and begins to thaw every machine that has one.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(
        dir: &Path,
        hypervisor: Arc<dyn Hypervisor>,
        policy: Policy,
        shutdown: Shutdown,
    ) -> io::Result<Arc<Self>> {
        let marks = Arc::new(Marks::open(dir)?);
        let left = marks.frozen()?;
        let freezes = Arc::new(Self {
            hypervisor,
            marks,
            policy,
            lanes: Lanes::default(),
            stuck: watch::Sender::default(),
            keepers: TaskTracker::new(),
            shutdown,
        });
        for (vm, mark) in left {
            tracing::warn!(%vm, "the guest may have been left frozen: it is thawed");
            // Nobody else has a lane yet.
            if let Ok(lane) = freezes.lanes.of(vm).try_lock_owned() {
                let keeper = Keeper::new(Arc::clone(&freezes), vm, lane);
                freezes.keepers.spawn(keeper.after_restart(mark));
            }
        }
        Ok(freezes)
    }

    /// Freezes a guest for the overlays of an order.
    ///
    /// # Errors
    /// Says why it is not frozen; if it may be, it is being thawed.
    pub async fn freeze(
        self: &Arc<Self>,
        vm: &VmView,
        request: uuid::Uuid,
        overlays: &[Overlay],
    ) -> Result<Frozen, Problem> {
        if vm.state != VmState::Running {
            return Err(unavailable(vm.id, "the guest's processors stand still"));
        }
        let keeper = self.keeper(vm.id).await.ok_or_else(|| {
            let why = "an earlier freeze of it has not been taken back yet";
            unavailable(vm.id, why)
        })?;
        let mark = Mark {
            request,
            overlays: overlays
                .iter()
                .map(|overlay| overlay.locator.to_string())
                .collect(),
        };
        let (frozen, told) = Told::new();
        self.keepers.spawn(keeper.freeze_and_thaw(mark, told));
        frozen.answered().await
    }

    /// What came of an order whose overlays are on; [`Consistency::Unknown`] when that was lost. The
    /// thaw of a guest that was left frozen may tell: it is waited for, a while.
    pub async fn taken(&self, vm: VmId, request: uuid::Uuid) -> Consistency {
        drop(self.lane(vm).await);
        let marks = Arc::clone(&self.marks);
        let taken = blocking(move || Ok(marks.taken(vm))).await.ok().flatten();
        let of_it = taken.filter(|taken| taken.request == request);
        of_it.map(|taken| taken.consistency).unwrap_or_default()
    }

    /// Writes down what came of an order. Without that a repetition would not know, no more.
    pub async fn take(&self, vm: VmId, request: uuid::Uuid, consistency: Consistency) {
        let marks = Arc::clone(&self.marks);
        let taken = Taken {
            request,
            consistency,
        };
        if let Err(error) = blocking(move || marks.take(vm, &taken)).await {
            tracing::warn!(%vm, %error, "what came of a snapshot cannot be written down");
        }
    }

    /// The machines whose guests may be frozen although they should not be.
    pub fn stuck(&self) -> watch::Receiver<BTreeSet<VmId>> {
        self.stuck.subscribe()
    }

    /// Waits, once the agent stops, until no guest is frozen, or cannot be thawed now.
    pub async fn stopped(&self) {
        self.keepers.close();
        self.keepers.wait().await;
    }

    /// `None` while another one keeps the machine, and does not end soon.
    async fn keeper(self: &Arc<Self>, vm: VmId) -> Option<Keeper> {
        if self.stuck.borrow().contains(&vm) {
            return None;
        }
        let lane = self.lane(vm).await?;
        Some(Keeper::new(Arc::clone(self), vm, lane))
    }

    async fn lane(&self, vm: VmId) -> Option<OwnedMutexGuard<()>> {
        let lane = self.lanes.of(vm).lock_owned();
        timeout(self.policy.answer, lane).await.ok()
    }
}

fn unavailable(vm: VmId, why: &str) -> Problem {
    let text = format!("the guest's file systems cannot be frozen: {why}");
    Problem::new(Reason::GuestAgentUnavailable, text).with("vm", vm)
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|died| Err(io::Error::other(died)))
}
