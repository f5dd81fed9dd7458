//! The hypervisor port over libvirt.
//!
//! ```text
//!   Libvirt ──▶ a blocking thread, in limited number and time ──▶ calls ──▶ virt, ffi
//!      ▲                                                            ├──▶ xml (pure)
//!      │                                                            ├──▶ view, overlay, headers
//!      │                                                            └──▶ offline ──▶ qemu-img
//!   events ◀── connection (kept up by a task) ◀── channel ◀── ffi callbacks ◀── event_loop
//! ```
//!
//! - libvirt's calls block, so they run on threads of their own. A call that takes too long is
//!   [`HypervisorError::Unknown`], while its thread goes on: it may still do its work. Until it has
//!   returned, everything else about its machine is Unknown too: what is seen could still change.
//! - Layers are numbered anew by each QEMU; numbers are read right before the call that uses them.
//! - Nothing is remembered of a machine but its offline jobs, which are this process's own, and that it
//!   was suspended: each answer is read from libvirt.

mod apart;
mod calls;
mod connection;
mod definitions;
mod error;
mod event_loop;
mod fill;
mod guest;
mod headers;
mod identity;
mod mend;
mod offline;
mod overlay;
mod reading;
mod relative;
mod suspended;
mod switched;
mod turns;
mod view;

#[cfg(feature = "fuzzing")]
pub(super) use switched::which as which_is_written;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::apart::apart;
use self::connection::{Connection, Link};
use self::offline::Offline;
use self::suspended::Suspended;
use self::turns::Turns;
use super::{
    BlockJobKind, Fill, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, JobProgress,
    KeptSnapshot, Layer, Overlay, Reference, VmView,
};

/// What libvirt itself may take, beside what a guest's agent takes.
const GRACE: Duration = Duration::from_secs(1);
/// How many calls may be on their way: more than a host's merges need, and few enough that a
/// libvirt that hangs does not take all threads of the process.
const CALLS_AT_ONCE: usize = 32;
/// Events that a slow listener may be behind before it is told that it has missed some.
const EVENTS_KEPT: usize = 1024;

/// The QEMU driver of libvirt, on this host.
pub struct Libvirt {
    link: Arc<Link>,
    offline: Arc<Offline>,
    calls: Arc<Semaphore>,
    /// How long a call may take.
    call_limit: Duration,
    changes: Turns,
    suspended: Arc<Suspended>,
    /// Of the agents in the guests, which libvirt asks beside all else.
    guests: Turns,
    _keeper: AbortOnDropHandle<()>,
}

impl Libvirt {
    /// Starts to connect to the URI, for example `qemu:///system` or `qemu:///embed?root=DIR`, and
    /// keeps the connection up from then on. Until [`HypervisorEvent::Connected`] every call is
    /// [`HypervisorError::Unknown`], and so is one that takes longer than the limit. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// When libvirt's event loop cannot be started.
    pub fn open(uri: &str, call_limit: Duration) -> Result<Self, HypervisorError> {
        event_loop::start().map_err(HypervisorError::Unknown)?;
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let link = Arc::new(Link::new(uri, events));
        let keeper = tokio::spawn(Arc::clone(&link).keep());
        let calls = Arc::new(Semaphore::new(CALLS_AT_ONCE));
        Ok(Self {
            offline: Offline::new(Arc::clone(&link)),
            link,
            calls,
            call_limit,
            changes: Turns::default(),
            suspended: Arc::default(),
            guests: Turns::default(),
            _keeper: AbortOnDropHandle::new(keeper),
        })
    }

    /// Looks at a machine, after the changes of it that are under way.
    async fn look<T: Send + 'static>(
        &self,
        vm: VmId,
        call: impl FnOnce(&Connection) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let turn = self.changes.of(vm);
        self.call(async move { drop(turn.lock_owned().await) }, call)
            .await
    }

    /// Changes a machine. One change at a time, each until its thread is done.
    async fn change(
        &self,
        vm: VmId,
        call: impl FnOnce(&Connection) -> Result<(), HypervisorError> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        self.call(self.changes.of(vm).lock_owned(), call).await
    }

    /// Asks a guest's agent, which has `answer` twice, for a sign of life and for its work. One
    /// question at a time, each until its thread is done: no freeze comes after the thaw that was
    /// asked for later.
    async fn ask_guest(
        &self,
        vm: VmId,
        answer: Duration,
        call: impl FnOnce(&Connection) -> Result<usize, HypervisorError> + Send + 'static,
    ) -> Result<usize, HypervisorError> {
        let limit = 2 * answer + GRACE;
        self.call_within(limit, self.guests.of(vm).lock_owned(), call)
            .await
    }

    async fn call<G: Send + 'static, T: Send + 'static>(
        &self,
        turn: impl Future<Output = G> + Send,
        call: impl FnOnce(&Connection) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call_within(self.call_limit, turn, call).await
    }

    /// Makes a blocking call off the async threads, when its turn has come, within the time limit.
    async fn call_within<G: Send + 'static, T: Send + 'static>(
        &self,
        limit: Duration,
        turn: impl Future<Output = G> + Send,
        call: impl FnOnce(&Connection) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let unknown = |why: &str| HypervisorError::Unknown(why.to_owned());
        let connection = self
            .link
            .connection()
            .ok_or_else(|| unknown("not connected"))?;
        let calls = Arc::clone(&self.calls);
        let reply = timeout(limit, async move {
            // Both are held until the thread is done, even if nobody waits for it any more.
            let turn = turn.await;
            let permit = calls.acquire_owned().await;
            let call = move || {
                let _held = (turn, permit);
                call(&connection)
            };
            apart(call).await
        });
        match reply.await {
            Ok(Some(reply)) => reply,
            Ok(None) => Err(unknown("the call broke off")),
            Err(_elapsed) => Err(unknown("the call takes too long")),
        }
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.offline.abort_all();
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn vms(&self) -> Result<Vec<VmView>, HypervisorError> {
        self.call(async {}, Connection::vms).await
    }

    async fn vm(&self, vm: VmId) -> Result<VmView, HypervisorError> {
        let (offline, suspended) = (Arc::clone(&self.offline), Arc::clone(&self.suspended));
        self.look(vm, move |libvirt| {
            libvirt.vm(vm, offline.works_on(vm), &suspended)
        })
        .await
    }

    async fn job(
        &self,
        vm: VmId,
        disk: &DiskTarget,
    ) -> Result<Option<JobProgress>, HypervisorError> {
        let (disk, offline) = (disk.clone(), Arc::clone(&self.offline));
        self.look(vm, move |libvirt| match offline.progress(vm, &disk) {
            None => libvirt.job(vm, &disk),
            job => Ok(job),
        })
        .await
    }

    async fn migrates(&self, vm: VmId) -> Result<bool, HypervisorError> {
        self.look(vm, move |libvirt| libvirt.migrates(vm)).await
    }

    async fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Result<(), HypervisorError> {
        let overlays = overlays.to_vec();
        let put_on = self.change(vm, move |libvirt| libvirt.add_overlays(vm, &overlays));
        let put_on = put_on.await;
        // libvirt itself tells nobody of layers that are new.
        self.link.tell(HypervisorEvent::Filling { vm });
        put_on
    }

    async fn start_job(&self, vm: VmId, order: &JobOrder) -> Result<(), HypervisorError> {
        let (order, offline, turn) = (
            order.clone(),
            Arc::clone(&self.offline),
            self.changes.of(vm),
        );
        self.change(vm, move |libvirt| match order.kind {
            BlockJobKind::Offline => offline.start(libvirt, vm, &order, turn),
            _ => libvirt.start_job(vm, &order),
        })
        .await
    }

    async fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Result<(), HypervisorError> {
        let disk = disk.clone();
        self.change(vm, move |libvirt| libvirt.pivot(vm, &disk))
            .await
    }

    async fn abort_job(&self, vm: VmId, disk: &DiskTarget) -> Result<(), HypervisorError> {
        let (disk, offline) = (disk.clone(), Arc::clone(&self.offline));
        self.change(vm, move |libvirt| match offline.abort(vm, &disk) {
            true => Ok(()),
            false => libvirt.abort_job(vm, &disk),
        })
        .await
    }

    async fn set_speed(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        bytes_per_second: u64,
    ) -> Result<(), HypervisorError> {
        let (disk, offline) = (disk.clone(), Arc::clone(&self.offline));
        self.change(vm, move |libvirt| {
            match offline.set_speed(vm, &disk, bytes_per_second) {
                true => Ok(()),
                false => libvirt.set_speed(vm, &disk, bytes_per_second),
            }
        })
        .await
    }

    async fn write_limit(&self, vm: VmId, disk: &DiskTarget) -> Result<u64, HypervisorError> {
        let disk = disk.clone();
        self.look(vm, move |libvirt| libvirt.write_limit(vm, &disk))
            .await
    }

    async fn limit_writes(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        bytes_per_second: u64,
    ) -> Result<(), HypervisorError> {
        let disk = disk.clone();
        self.change(vm, move |libvirt| {
            libvirt.limit_writes(vm, &disk, bytes_per_second)
        })
        .await
    }

    async fn set_next_start(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        removed: &[Locator],
        kept: &Locator,
    ) -> Result<(), HypervisorError> {
        let (disk, removed, kept) = (disk.clone(), removed.to_vec(), kept.clone());
        self.change(vm, move |libvirt| {
            libvirt.set_next_start(vm, &disk, &removed, &kept)
        })
        .await
    }

    async fn restore_backing(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        image: &Locator,
        backing: &Layer,
    ) -> Result<(), HypervisorError> {
        let (disk, image, backing) = (disk.clone(), image.clone(), backing.clone());
        self.change(vm, move |libvirt| {
            libvirt.restore_backing(vm, &disk, &image, &backing)
        })
        .await
    }

    async fn fill(&self, vm: VmId) -> Result<Fill, HypervisorError> {
        self.look(vm, move |libvirt| libvirt.fill(vm)).await
    }

    async fn watch_fill(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        layer: &Locator,
        bytes: u64,
    ) -> Result<(), HypervisorError> {
        let (disk, layer) = (disk.clone(), layer.clone());
        self.change(vm, move |libvirt| {
            libvirt.watch_fill(vm, &disk, &layer, bytes)
        })
        .await
    }

    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError> {
        let suspended = Arc::clone(&self.suspended);
        self.change(vm, move |libvirt| libvirt.suspend(vm, &suspended))
            .await
    }

    fn keep_suspended(&self, vm: VmId) {
        self.suspended.by_an_earlier_process(vm);
    }

    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError> {
        let suspended = Arc::clone(&self.suspended);
        self.change(vm, move |libvirt| libvirt.resume(vm, &suspended))
            .await
    }

    async fn resume_if_lacks_room(&self, vm: VmId) -> Result<(), HypervisorError> {
        let suspended = Arc::clone(&self.suspended);
        self.change(vm, move |libvirt| {
            libvirt.resume_if_lacks_room(vm, &suspended)
        })
        .await
    }

    async fn freeze_guest(&self, vm: VmId, answer: Duration) -> Result<usize, HypervisorError> {
        self.ask_guest(vm, answer, move |libvirt| libvirt.freeze_guest(vm, answer))
            .await
    }

    async fn thaw_guest(&self, vm: VmId, answer: Duration) -> Result<usize, HypervisorError> {
        self.ask_guest(vm, answer, move |libvirt| libvirt.thaw_guest(vm, answer))
            .await
    }

    async fn references(
        &self,
        locators: &[Locator],
    ) -> Result<Vec<Vec<Reference>>, HypervisorError> {
        let locators = locators.to_vec();
        self.call(async {}, move |libvirt| libvirt.references(&locators))
            .await
    }

    async fn kept_snapshots(&self, vm: VmId) -> Result<Vec<KeptSnapshot>, HypervisorError> {
        self.look(vm, move |libvirt| libvirt.kept_snapshots(vm))
            .await
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.link.events()
    }

    fn connected(&self) -> bool {
        self.link.connection().is_some()
    }

    fn uri(&self) -> &str {
        self.link.uri()
    }
}
