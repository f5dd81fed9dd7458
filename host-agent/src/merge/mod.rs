//! Merges: takes orders, and takes each merge to its end, whether or not anybody asks again.
//!
//! ```text
//!   StartMerge ─▶ Merges::start ─▶ not late ─▶ checks ─▶ journal ─▶ accepted
//!                                                        │
//!                             one lane a machine ◀───────┘      (driver.rs, member.rs)
//!                                                               observe ─▶ step ─▶ journal ─▶ act
//! ```
//!
//! Invariants:
//! - An accepted merge is in the journal, and ends as Merged, Cancelled or Failed whatever restarts.
//! - Merges of several disks that were ordered together are accepted together, and before the first
//!   pivot all have caught up, or none is done.
//! - All checks are made before the first mutation; a refused order leaves nothing behind.
//! - One order of a machine at a time is past `Pending`; it alone stops and starts the guest.
//!
//! It removes no volume: that is ordered separately, after the merge.

mod accepting;
mod again;
mod board;
mod bytes;
mod check;
mod chunks;
mod driver;
#[cfg(test)]
mod driver_tests;
mod elsewhere;
mod fence;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod giving;
mod job;
mod journal;
mod ladder;
mod look;
mod member;
mod observation;
#[cfg(test)]
mod offline_tests;
mod overlaying;
mod pivot;
mod plan;
#[cfg(test)]
mod plan_tests;
mod planning;
mod policy;
mod progress;
mod restore;
mod room;
#[cfg(test)]
pub(crate) mod samples;
mod slack;
pub mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together_tests;
mod traced;
mod types;
mod waits;

pub use board::{MergeView, Views, Waiting};
pub use bytes::Work;
pub use check::{Fit, check};
pub use elsewhere::Elsewhere;
pub(crate) use fence::write as write_whole;
pub use fence::{Fence, next_own_generation};
pub use job::{backing_of, job_order};
pub use pivot::runs_unwritten;
pub use plan::{DiskPlan, DiskRange, MergeOption, plan};
pub use room::{Promise, Room};
pub use step::{PivotMode, Policy};
pub use types::{
    Direction, Help, MergeKind, MergeOrder, MergeRecord, Overlaying, Phase, VolumeMark, Window,
};

use crate::hypervisor::Hypervisor;
use crate::lanes::Lanes;
use crate::latest::Latest;
use crate::metrics::MergeMeter;
use crate::overlays::Overlays;
use crate::slack::marks::Marks;
use crate::volumes::Volumes;
use board::Board;
use driver::{Driver, Surroundings, What, Wish, Wishes, blocking, ended, past_return};
use jiff::Timestamp;
use journal::Journal;
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Clock, Shutdown};
use livemerge_storage::StorageId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// How long the journal remembers merges that have ended.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// And how many of them: a watch begins with all, in one message.
const KEEP_MOST: usize = 1000;

/// The merges of this host.
pub struct Merges {
    around: Surroundings,
    volumes: Arc<Volumes>,
    fence: Arc<Fence>,
    latest: Arc<Latest>,
    /// Held from the first check of an order until it is in the journal: one order with an id, one
    /// order for a machine.
    accepting: (Lanes<MergeId>, Lanes<VmId>),
    /// Held while room of a domain is promised, until that stands in the journal.
    promising: Lanes<StorageId>,
    lanes: Lanes<VmId>,
    /// How the drivers of open merges are told what is wished.
    wishes: Mutex<HashMap<MergeId, Wishes>>,
    tasks: TaskTracker,
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
        let opened = blocking(move || {
            let (journal, mut contents) = Journal::open(&dir, KEEP, now)?;
            for id in half_accepted(&contents.records) {
                tracing::warn!(merge = %id, "was never accepted with those that go together with it");
                journal.forget(id)?;
                contents.records.retain(|record| record.order.id != id);
            }
            let slack = Marks::open(&dir.with_file_name("slack"))?;
            let latest = Latest::open(&dir.with_file_name("orders"))?;
            Ok((journal, contents, slack, latest))
        });
        let (journal, contents, slack, latest) = opened.await?;
        let latest = Arc::new(latest);
        let overlays = Overlays::new(
            Arc::clone(&hypervisor),
            Arc::clone(&volumes),
            Arc::clone(&latest),
        );
        let around = Surroundings {
            journal: Arc::new(journal),
            slack: Arc::new(slack),
            overlays: Arc::new(overlays),
            volumes: Arc::clone(&volumes),
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
            latest,
            accepting: Default::default(),
            promising: Lanes::default(),
            lanes: Lanes::default(),
            wishes: Mutex::default(),
            tasks: TaskTracker::new(),
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

    /// Counts what happens to merges from now on.
    pub(crate) fn observe(&self, meter: MergeMeter) {
        self.around.board.observe(meter);
    }

    /// Who puts overlays on this host's machines: orders for one machine follow one another.
    pub fn overlays(&self) -> Arc<Overlays> {
        Arc::clone(&self.around.overlays)
    }

    /// Files of the journal that could not be read and were set aside, at this start or before, and
    /// that nobody has taken away since.
    pub async fn damaged(&self) -> Vec<PathBuf> {
        let journal = Arc::clone(&self.around.journal);
        blocking(move || journal.set_aside())
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the journal cannot be listed");
                vec![]
            })
    }

    /// Gives a merge up, and with it those that go together with it, as long as none has pivoted.
    ///
    /// # Errors
    /// `POINT_OF_NO_RETURN` after that, or `MERGE_NOT_FOUND`, or what did not answer.
    pub async fn cancel(&self, merge: MergeId, generation: u64) -> Result<MergeView, Problem> {
        self.fence.pass(generation).await?;
        if let Some(answer) = self.wish(merge, What::Cancel).await {
            return answer;
        }
        let view = self.known(merge)?;
        match &view.record.phase {
            phase if phase.lost() => Ok(view),
            Phase::Merged { .. } => Err(past_return(&view.record)),
            _ => Err(stopping()),
        }
    }

    /// Lets a merge's job copy so many bytes a second from now on; 0 for no limit.
    ///
    /// # Errors
    /// When the merge is not known, has ended, or something did not answer.
    pub async fn limit(
        &self,
        merge: MergeId,
        generation: u64,
        bytes_per_second: u64,
    ) -> Result<MergeView, Problem> {
        self.fence.pass(generation).await?;
        let limit = What::Limit(bytes_per_second);
        if let Some(answer) = self.wish(merge, limit).await {
            return answer;
        }
        let view = self.known(merge)?;
        Err(if view.record.phase.ended() {
            ended(merge)
        } else {
            stopping()
        })
    }

    /// What the merge's driver answers; `None` when it has none, or no longer.
    async fn wish(&self, merge: MergeId, what: What) -> Option<Result<MergeView, Problem>> {
        let driver = self.wishes().get(&merge).cloned()?;
        let (answer, answered) = oneshot::channel();
        let wish = Wish {
            merge,
            what,
            answer,
        };
        if !driver.send(wish) {
            return None;
        }
        answered.await.ok()
    }

    fn known(&self, merge: MergeId) -> Result<MergeView, Problem> {
        self.get(merge).ok_or_else(|| {
            let text = format!("merge {merge} is not in this host's journal");
            Problem::new(Reason::MergeNotFound, text).with("merge", merge)
        })
    }

    /// One merge of the journal.
    pub fn get(&self, id: MergeId) -> Option<MergeView> {
        self.around.board.get(id)
    }

    /// The merges of the journal now and after each change.
    pub fn watch(&self) -> watch::Receiver<Views> {
        self.around.board.watch()
    }

    /// Goes on after a restart. The merges that may have stopped a guest come first, and wait for
    /// nothing, storage included.
    fn go_on(self: &Arc<Self>, records: Vec<MergeRecord>) {
        let mut groups: BTreeMap<MergeId, Vec<MergeRecord>> = BTreeMap::new();
        for record in records {
            let first = record.order.together.iter().min();
            let first = first.copied().unwrap_or(record.order.id);
            groups.entry(first).or_default().push(record);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.retain(|group| group.iter().any(|record| !record.phase.ended()));
        let pending = |record: &MergeRecord| matches!(record.phase, Phase::Pending);
        groups.sort_by_key(|group| (group.iter().all(pending), group[0].accepted_at));
        for group in groups {
            for record in group.iter().filter(|record| !record.phase.ended()) {
                if record.phase.suspended() {
                    // Before anybody finds that its guest stands still for want of room.
                    self.around.hypervisor.keep_suspended(record.order.vm);
                }
                tracing::info!(merge = %record.order.id, vm = %record.order.vm, phase = ?record.phase, "goes on");
            }
            self.spawn(group);
        }
    }

    /// Drives the merges that go together.
    fn spawn(self: &Arc<Self>, records: Vec<MergeRecord>) {
        let Some(first) = records.first() else { return };
        let lane = self.lanes.of(first.order.vm);
        let ids: Vec<_> = records.iter().map(|record| record.order.id).collect();
        let (wishes, wished) = Wishes::new();
        for id in &ids {
            self.wishes().insert(*id, wishes.clone());
        }
        // Taken here if it is free: the tasks may begin in another order.
        let turn = Arc::clone(&lane).try_lock_owned().ok();
        let merges = Arc::clone(self);
        let trace = first.trace.map(|span| span.context().trace_id());
        let span = tracing::info_span!("merge", id = %first.order.id, trace_id = trace);
        let driver = Driver::new(self.around.clone(), records, wished);
        let driven = async move {
            driver.run(lane, turn).await;
            merges.wishes().retain(|id, _| !ids.contains(id));
            forget_outlived(&merges.around).await;
        };
        self.tasks.spawn(driven.instrument(span));
    }

    fn wishes(&self) -> MutexGuard<'_, HashMap<MergeId, Wishes>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Merges of orders of which not all were written down: nobody was told that they are accepted, and
/// nothing was done for them. Who ordered them will do so again.
fn half_accepted(records: &[MergeRecord]) -> Vec<MergeId> {
    let there: BTreeSet<MergeId> = records.iter().map(|record| record.order.id).collect();
    let whole = |record: &&MergeRecord| record.order.together.iter().all(|id| there.contains(id));
    let half = records
        .iter()
        .filter(|record| matches!(record.phase, Phase::Pending) && !whole(record));
    half.map(|record| record.order.id).collect()
}

/// That the agent is about to end; the merge goes on when it starts again.
fn stopping() -> Problem {
    Problem::new(Reason::ServerDraining, "the agent is stopping")
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
