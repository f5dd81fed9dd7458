//! Merges: takes orders, and takes each merge to its end, whether or not anybody asks again.
//!
//! ```text
//!   StartMerge ─▶ Merges::start ─▶ fence ─▶ checks ─▶ journal ─▶ accepted
//!                                                        │
//!                             one lane a machine ◀───────┘      (driver.rs)
//!                                                               observe ─▶ step ─▶ journal ─▶ act
//! ```
//!
//! Invariants:
//! - An accepted merge is in the journal, and ends as Merged or Failed whatever restarts.
//! - All checks are made before the first mutation; a refused order leaves nothing behind.
//! - One merge of a machine at a time is past `Pending`; it alone stops and starts the guest.
//!
//! It removes no volume: that is ordered separately, after the merge.

mod board;
mod check;
mod driver;
mod fence;
mod journal;
#[cfg(test)]
mod samples;
pub mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;
mod types;

pub use board::{MergeView, Views};
pub use check::{Fit, check};
pub use fence::{Fence, next_own_generation};
pub use step::{PivotMode, Policy};
pub use types::{MergeOrder, MergeRecord, Phase, VolumeMark, Window};

use crate::hypervisor::Hypervisor;
use crate::lanes::Lanes;
use crate::volumes::Volumes;
use board::Board;
use driver::{Driver, Surroundings, blocking};
use jiff::Timestamp;
use journal::Journal;
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Clock, Shutdown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How long the journal remembers merges that have ended.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// And how many of them: a watch begins with all, in one message.
const KEEP_MOST: usize = 1000;

/// The merges of this host.
pub struct Merges {
    around: Surroundings,
    volumes: Arc<Volumes>,
    fence: Arc<Fence>,
    /// Held from the first check of an order until it is in the journal: one order with an id, one
    /// order for a machine.
    accepting: (Lanes<MergeId>, Lanes<VmId>),
    lanes: Lanes<VmId>,
    tasks: TaskTracker,
    quarantined: Vec<PathBuf>,
}

impl Merges {
    /// Reads the journal and goes on with every merge that has not ended.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn open(
        dir: &Path,
        hypervisor: Arc<dyn Hypervisor>,
        volumes: Arc<Volumes>,
        fence: Arc<Fence>,
        clock: Arc<dyn Clock>,
        policy: Policy,
        shutdown: Shutdown,
    ) -> std::io::Result<Arc<Self>> {
        let (dir, now) = (dir.to_owned(), clock.now());
        let (journal, contents) = blocking(move || Journal::open(&dir, KEEP, now)).await?;
        let around = Surroundings {
            journal: Arc::new(journal),
            hypervisor,
            board: Board::new(&contents.records),
            clock,
            policy: Arc::new(policy),
            shutdown,
        };
        let merges = Arc::new(Self {
            around,
            volumes,
            fence,
            accepting: Default::default(),
            lanes: Lanes::default(),
            tasks: TaskTracker::new(),
            quarantined: contents.quarantined,
        });
        merges.go_on(contents.records);
        forget_outlived(&merges.around).await;
        Ok(merges)
    }

    /// Waits, once the agent stops, until no guest stands still for a merge. Copies go on in QEMU.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Files of the journal that could not be read and were set aside.
    pub fn quarantined(&self) -> &[PathBuf] {
        &self.quarantined
    }

    /// Accepts an order, or says why not. Repeating it returns the merge as it stands.
    ///
    /// # Errors
    /// Says why not; nothing was touched then.
    pub async fn start(self: &Arc<Self>, order: MergeOrder) -> Result<MergeView, Problem> {
        self.fence.pass(order.generation).await?;
        let (ids, machines) = &self.accepting;
        let _one_with_the_id = ids.of(order.id).lock_owned().await;
        let _one_of_a_machine = machines.of(order.vm).lock_owned().await;
        if let Some(known) = self.get(order.id) {
            return if known.record.order.same_payload(&order) {
                Ok(known)
            } else {
                let text = format!("merge {} was ordered with another payload", order.id);
                Err(Problem::new(Reason::MergeIdConflict, text).with("merge", order.id))
            };
        }
        self.refuse_lost_merge(order.id).await?;
        self.refuse_second_merge(&order)?;
        let fit = check(&order, self.around.hypervisor.as_ref(), &self.volumes).await?;
        let record = MergeRecord {
            order,
            base: fit.base,
            top: fit.top,
            active: fit.active,
            top_bytes: fit.top_bytes,
            phase: Phase::Pending,
            pivot_attempts: 0,
            longest_pause: Duration::ZERO,
            accepted_at: self.around.clock.now(),
            revision: 1,
        };
        let (journal, written) = (Arc::clone(&self.around.journal), record.clone());
        blocking(move || journal.write(&written))
            .await
            .map_err(|error| {
                tracing::error!(%error, "the journal cannot be written");
                let text = "the agent's journal cannot be written";
                Problem::new(Reason::StoreUnavailable, text)
            })?;
        let view = MergeView::new(record);
        self.around.board.show(view.clone());
        self.spawn(view.record.clone());
        Ok(view)
    }

    /// One merge of the journal.
    pub fn get(&self, id: MergeId) -> Option<MergeView> {
        self.around.board.get(id)
    }

    /// The merges of the journal now and after each change.
    pub fn watch(&self) -> watch::Receiver<Views> {
        self.around.board.watch()
    }

    /// A merge whose journal is damaged may have been done. To say what the checks find would be to
    /// say that it was never begun.
    async fn refuse_lost_merge(&self, id: MergeId) -> Result<(), Problem> {
        let journal = Arc::clone(&self.around.journal);
        match blocking(move || journal.has_lost(id)).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = format!("the journal of merge {id} is damaged and was set aside");
                Err(Problem::new(Reason::MergeIdConflict, text).with("merge", id))
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read");
                let text = "the agent's journal cannot be read";
                Err(Problem::new(Reason::StoreUnavailable, text))
            }
        }
    }

    /// At most one block job a disk.
    fn refuse_second_merge(&self, order: &MergeOrder) -> Result<(), Problem> {
        let views = self.watch().borrow().clone();
        let open = views.values().find(|view| {
            let other = &view.record.order;
            !view.record.phase.ended() && other.vm == order.vm && other.disk == order.disk
        });
        open.map_or(Ok(()), |open| {
            let text = format!(
                "merge {} works on disk {}",
                open.record.order.id, order.disk
            );
            let problem = Problem::new(Reason::ConcurrentChange, text);
            Err(problem
                .with("merge", open.record.order.id)
                .with("disk", &order.disk))
        })
    }

    /// Goes on after a restart. The merges that may have stopped a guest come first, and wait for
    /// nothing, storage included.
    fn go_on(self: &Arc<Self>, mut records: Vec<MergeRecord>) {
        records.retain(|record| !record.phase.ended());
        records.sort_by_key(|record| matches!(record.phase, Phase::Pending));
        for record in records {
            tracing::info!(merge = %record.order.id, vm = %record.order.vm, phase = ?record.phase, "goes on");
            self.spawn(record);
        }
    }

    fn spawn(&self, record: MergeRecord) {
        let lane = self.lanes.of(record.order.vm);
        let around = self.around.clone();
        let driver = Driver::new(around.clone(), record);
        self.tasks.spawn(async move {
            {
                let _one_of_a_machine = lane.lock().await;
                driver.run().await;
            }
            forget_outlived(&around).await;
        });
    }
}

/// Forgets merges that ended long ago, and the oldest when they are many.
async fn forget_outlived(around: &Surroundings) {
    let before = around.clock.now().saturating_sub(KEEP);
    let before = before.unwrap_or(Timestamp::MIN);
    for id in around.board.outlived(KEEP_MOST, before) {
        let journal = Arc::clone(&around.journal);
        match blocking(move || journal.forget(id)).await {
            Ok(()) => around.board.forget(id),
            Err(error) => {
                tracing::warn!(merge = %id, %error, "an ended merge cannot be forgotten");
                return;
            }
        }
    }
}
