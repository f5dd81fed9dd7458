//! Block jobs of machines that are shut off: what QEMU does for one that runs, `qemu-img` does here.
//!
//! ```text
//!   start ─▶ locks on all images ─▶ qemu-img commit ─▶ qemu-img check ─▶ sync ─▶ relink ─▶ locks off ─▶ Completed
//!                                     │      │           │                      ├─ header of the overlay above
//!                              abort ─┘      └─ fails    └─ finds damage        └─ the machine's definition
//!                            Cancelled         Failed       Damaged
//! ```
//!
//! - The locks are QEMU's own, held from before the copy until nothing names the removed layers any
//!   more: a machine that is started meanwhile is refused, and so is a merge of one that runs.
//! - Everything may be repeated: a copy that broke off begins again with the same data, and what is
//!   relinked already is found so. Nothing here is written down.
//! - A job dies with this process. Its thread lives as long as the child, which is killed when
//!   that thread ends, however it ends.
//! - Nobody reads a removed layer but through the youngest one, whose content never changes. So the
//!   chain reads the same at every moment.

mod commit;
mod job;
mod overlays;
mod plan;
mod relink;
mod restore;

pub(super) use overlays::add;
pub(super) use relink::{define, set_next_start};
pub(super) use restore::restore;

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use livemerge_proto::ids::{DiskTarget, VmId};

use self::job::{Job, Stop};
use self::plan::Plan;
use self::relink::relink;
use super::calls::refused;
use super::connection::{Connection, Link};
use super::turns::Turn;
use crate::hypervisor::{BlockJobOutcome, HypervisorError, HypervisorEvent, JobOrder, JobProgress};

type Answer<T> = Result<T, HypervisorError>;
type Place = (VmId, DiskTarget);

/// How often the definition is tried to be changed, and the time in between.
const TRIES: (u32, Duration) = (60, Duration::from_millis(500));

/// The jobs of this process.
pub(super) struct Offline {
    link: Arc<Link>,
    jobs: Mutex<HashMap<Place, Arc<Job>>>,
}

impl Offline {
    pub(super) fn new(link: Arc<Link>) -> Arc<Self> {
        let jobs = Mutex::default();
        Arc::new(Self { link, jobs })
    }

    /// Starts a job. Blocks until it runs.
    pub(super) fn start(
        self: &Arc<Self>,
        libvirt: &Connection,
        vm: VmId,
        order: &JobOrder,
        turn: Arc<Turn>,
    ) -> Answer<()> {
        let place = (vm, order.disk.clone());
        if self.jobs().contains_key(&place) {
            return Err(refused(&order.disk, "has a block job already"));
        }
        let plan = Plan::make(libvirt, vm, order)?;
        let job = Arc::new(Job::new(plan.virtual_bytes, order.bytes_per_second));
        self.jobs().insert(place.clone(), Arc::clone(&job));
        let registered = Registered(Arc::clone(self), place);
        let (started, starts) = sync_channel(1);
        thread::Builder::new()
            .name("offline-merge".to_owned())
            .spawn(move || run(registered, &job, plan, &turn, &started))
            .map_err(|error| HypervisorError::Unknown(error.to_string()))?;
        let told = starts.recv();
        told.unwrap_or_else(|_| Err(HypervisorError::Unknown("the job broke off".to_owned())))
    }

    pub(super) fn progress(&self, vm: VmId, disk: &DiskTarget) -> Option<JobProgress> {
        self.job(vm, disk).map(|job| job.progress())
    }

    /// False when there is no such job.
    pub(super) fn abort(&self, vm: VmId, disk: &DiskTarget) -> bool {
        self.job(vm, disk).map(|job| job.abort()).is_some()
    }

    /// False when there is no such job. `qemu-img` takes a limit only when it starts, so it starts
    /// again.
    pub(super) fn set_speed(&self, vm: VmId, disk: &DiskTarget, bytes_per_second: u64) -> bool {
        let job = self.job(vm, disk);
        job.map(|job| job.set_speed(bytes_per_second)).is_some()
    }

    pub(super) fn works_on(&self, vm: VmId) -> bool {
        self.jobs().keys().any(|(machine, _)| *machine == vm)
    }

    pub(super) fn abort_all(&self) {
        for job in self.jobs().values() {
            job.abort();
        }
    }

    fn job(&self, vm: VmId, disk: &DiskTarget) -> Option<Arc<Job>> {
        self.jobs().get(&(vm, disk.clone())).cloned()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Place, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job is known while this lives.
struct Registered(Arc<Offline>, Place);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.jobs().remove(&self.1);
    }
}

/// The job's thread.
fn run(
    registered: Registered,
    job: &Job,
    plan: Plan,
    turn: &Turn,
    started: &SyncSender<Answer<()>>,
) {
    let copied = job.copy(&plan.images, &plan.locks, started);
    let link = Arc::clone(&registered.0.link);
    let (vm, disk) = registered.1.clone();
    let mut tries = 0;
    let outcome = loop {
        // What is seen of the machine is as before the change, or as after the locks are off.
        let seen = turn.blocking_lock();
        let done = match &copied {
            Ok(()) => relink(&link, &plan),
            Err(Stop::Aborted) => break end(registered, plan, BlockJobOutcome::Cancelled),
            Err(Stop::Damaged(why)) => {
                let kept = &plan.kept().locator;
                tracing::error!(%vm, %disk, %kept, why, "an offline merge leaves all as it is: the image is damaged");
                break end(registered, plan, BlockJobOutcome::Damaged);
            }
            Err(Stop::Failed(why)) => Err(HypervisorError::Refused(why.clone())),
        };
        match done {
            Ok(()) => break end(registered, plan, BlockJobOutcome::Completed),
            Err(HypervisorError::Unknown(_)) if job.is_aborted() => {
                break end(registered, plan, BlockJobOutcome::Cancelled);
            }
            Err(HypervisorError::Unknown(why)) if tries < TRIES.0 => {
                tracing::warn!(%vm, %disk, why, "an offline merge waits for its machine's definition");
            }
            Err(error) => {
                tracing::warn!(%vm, %disk, %error, "an offline merge failed");
                break end(registered, plan, BlockJobOutcome::Failed);
            }
        }
        tries += 1;
        drop(seen);
        thread::sleep(TRIES.1);
    };
    link.tell(HypervisorEvent::BlockJob { vm, disk, outcome });
}

/// The locks go before the job does.
fn end(registered: Registered, plan: Plan, outcome: BlockJobOutcome) -> BlockJobOutcome {
    drop(plan);
    drop(registered);
    outcome
}
