//! The hypervisor port over libvirt.
//!
//! ```text
//!   Libvirt ──▶ a blocking thread, in limited number and time ──▶ calls ──▶ virt, ffi
//!      ▲                                                            ├──▶ xml (pure)
//!      │                                                            └──▶ view, overlay, identity
//!   events ◀── connection (kept up by a task) ◀── channel ◀── ffi callbacks ◀── event_loop
//! ```
//!
//! - libvirt's calls block, so they run on threads of their own. A call that takes too long is
//!   [`HypervisorError::Unknown`], while its thread goes on: it may still do its work. Until it has
//!   returned, everything else about its machine is Unknown too: what is seen could still change.
//! - Layers are numbered anew by each QEMU; numbers are read right before the call that uses them.
//! - Nothing is remembered of a machine: each answer is read from libvirt.

mod apart;
mod calls;
mod connection;
mod error;
mod event_loop;
mod identity;
mod overlay;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::apart::apart;
use self::connection::{Connection, Link};
use super::{
    CommitOrder, Hypervisor, HypervisorError, HypervisorEvent, JobProgress, Overlay, Reference,
    VmView,
};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How many calls may be on their way: more than a host's merges need, and few enough that a
/// libvirt that hangs does not take all threads of the process.
const CALLS_AT_ONCE: usize = 32;
/// Events that a slow listener may be behind before it is told that it has missed some.
const EVENTS_KEPT: usize = 1024;

/// Whose turn it is to change a machine.
type Turn = tokio::sync::Mutex<()>;

/// The QEMU driver of libvirt, on this host.
pub struct Libvirt {
    link: Arc<Link>,
    calls: Arc<Semaphore>,
    changes: Mutex<HashMap<VmId, Arc<Turn>>>,
    _keeper: AbortOnDropHandle<()>,
}

impl Libvirt {
    /// Starts to connect to the URI, for example `qemu:///system` or `qemu:///embed?root=DIR`, and
    /// keeps the connection up from then on. Until [`HypervisorEvent::Connected`] every call is
    /// [`HypervisorError::Unknown`]. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When libvirt's event loop cannot be started.
    pub fn open(uri: &str) -> Result<Self, HypervisorError> {
        event_loop::start().map_err(HypervisorError::Unknown)?;
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let link = Arc::new(Link::new(uri, events));
        let keeper = tokio::spawn(Arc::clone(&link).keep());
        let calls = Arc::new(Semaphore::new(CALLS_AT_ONCE));
        Ok(Self {
            link,
            calls,
            changes: Mutex::default(),
            _keeper: AbortOnDropHandle::new(keeper),
        })
    }

    /// Looks at a machine, after the changes of it that are under way.
    async fn look<T: Send + 'static>(
        &self,
        vm: VmId,
        call: impl FnOnce(&Connection) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let turn = self.turn(vm);
        self.call(async move { drop(turn.lock_owned().await) }, call)
            .await
    }

    /// Changes a machine. One change at a time, each until its thread is done.
    async fn change(
        &self,
        vm: VmId,
        call: impl FnOnce(&Connection) -> Result<(), HypervisorError> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        self.call(self.turn(vm).lock_owned(), call).await
    }

    fn turn(&self, vm: VmId) -> Arc<Turn> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(changes.entry(vm).or_default())
    }

    /// Makes a blocking call off the async threads, when its turn has come, within the time limit.
    async fn call<G: Send + 'static, T: Send + 'static>(
        &self,
        turn: impl Future<Output = G> + Send,
        call: impl FnOnce(&Connection) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let unknown = |why: &str| HypervisorError::Unknown(why.to_owned());
        let connection = self
            .link
            .connection()
            .ok_or_else(|| unknown("not connected"))?;
        let calls = Arc::clone(&self.calls);
        let reply = timeout(CALL_LIMIT, async move {
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

#[async_trait]
impl Hypervisor for Libvirt {
    async fn vms(&self) -> Result<Vec<VmView>, HypervisorError> {
        self.call(async {}, Connection::vms).await
    }

    async fn vm(&self, vm: VmId) -> Result<VmView, HypervisorError> {
        self.look(vm, move |libvirt| libvirt.vm(vm)).await
    }

    async fn job(
        &self,
        vm: VmId,
        disk: &DiskTarget,
    ) -> Result<Option<JobProgress>, HypervisorError> {
        let disk = disk.clone();
        self.look(vm, move |libvirt| libvirt.job(vm, &disk)).await
    }

    async fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Result<(), HypervisorError> {
        let overlays = overlays.to_vec();
        self.change(vm, move |libvirt| libvirt.add_overlays(vm, &overlays))
            .await
    }

    async fn start_commit(&self, vm: VmId, order: &CommitOrder) -> Result<(), HypervisorError> {
        let order = order.clone();
        self.change(vm, move |libvirt| libvirt.start_commit(vm, &order))
            .await
    }

    async fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Result<(), HypervisorError> {
        let disk = disk.clone();
        self.change(vm, move |libvirt| libvirt.pivot(vm, &disk))
            .await
    }

    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.change(vm, move |libvirt| libvirt.suspend(vm)).await
    }

    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.change(vm, move |libvirt| libvirt.resume(vm)).await
    }

    async fn references(&self, locator: &Locator) -> Result<Vec<Reference>, HypervisorError> {
        let locator = locator.clone();
        self.call(async {}, move |libvirt| libvirt.references(&locator))
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
