//! A hypervisor whose calls go wrong as planned.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{
    Fill, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, JobProgress, KeptSnapshot, Layer,
    MirrorState, Overlay, Reference, VmState, VmView,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tokio::sync::{Mutex, broadcast};
use tonic::async_trait;

use super::backstage::upset;
use super::fault::Site;
use super::stage::Stage;
use crate::cluster::Upset;

type Answer<T> = Result<T, HypervisorError>;

/// How long after its answer a late call is done.
const LATE: Duration = Duration::from_millis(100);

/// The scripted host behind a stage.
pub struct Host {
    real: FakeHypervisor,
    stage: Arc<Stage>,
    /// As libvirt's own lock of a machine: a call that hangs holds up those that change something.
    turn: Arc<Mutex<()>>,
    /// The same of its guest's agent, which libvirt asks beside all else.
    guest: Arc<Mutex<()>>,
}

impl Host {
    /// Before the real one.
    pub fn new(real: FakeHypervisor, stage: Arc<Stage>) -> Self {
        Self {
            real,
            stage,
            turn: Arc::default(),
            guest: Arc::default(),
        }
    }

    fn unreached(&self, site: Site) -> Answer<()> {
        match upset(&self.stage, site) {
            None => Ok(()),
            Some(_) => Err(unknown()),
        }
    }

    async fn change<F, T>(&self, site: Site, call: F) -> Answer<T>
    where
        F: FnOnce(FakeHypervisor) -> BoxFuture<'static, Answer<T>> + Send + 'static,
    {
        self.change_within(&self.turn, site, call).await
    }

    async fn change_within<F, T>(&self, turn: &Arc<Mutex<()>>, site: Site, call: F) -> Answer<T>
    where
        F: FnOnce(FakeHypervisor) -> BoxFuture<'static, Answer<T>> + Send + 'static,
    {
        let turn = Arc::clone(turn).lock_owned().await;
        let real = self.real.clone();
        match upset(&self.stage, site) {
            None => call(real).await,
            Some(Upset::Refused | Upset::Answers(_)) => {
                Err(HypervisorError::Refused("not now".to_owned()))
            }
            Some(Upset::Unreached) => Err(unknown()),
            Some(Upset::Lost) => {
                let _told_to_nobody = call(real).await;
                Err(unknown())
            }
            Some(Upset::Late) => {
                // Outside the agent: a call that libvirt has taken goes on when the agent dies.
                std::thread::spawn(move || {
                    std::thread::sleep(LATE);
                    let _told_to_nobody = futures::executor::block_on(call(real));
                    drop(turn);
                });
                Err(unknown())
            }
        }
    }
}

/// A disk whose merge goes together with that of another one and has not caught up: it copies, or it
/// has as many layers as the other one and no job. All disks of a scenario begin with equal chains.
/// A machine that has died since it was looked at has no job at all, and no pivot comes about.
fn behind(vm: &VmView, pivots: &DiskTarget) -> Option<DiskTarget> {
    if vm.state == VmState::ShutOff {
        return None;
    }
    let layers = vm.disk(pivots)?.chain.len();
    let others = vm.disks.iter().filter(|disk| disk.target != *pivots);
    let mut behind = others.filter(|other| match &other.mirror {
        Some(mirror) => mirror.state == MirrorState::Copying,
        None => other.chain.len() >= layers,
    });
    behind.next().map(|disk| disk.target.clone())
}

fn unknown() -> HypervisorError {
    HypervisorError::Unknown("no answer, as the test has planned".to_owned())
}

#[async_trait]
impl Hypervisor for Host {
    async fn vms(&self) -> Answer<Vec<VmView>> {
        self.unreached("hypervisor::vms")?;
        self.real.vms().await
    }

    async fn vm(&self, vm: VmId) -> Answer<VmView> {
        self.unreached("hypervisor::vm")?;
        self.real.vm(vm).await
    }

    async fn job(&self, vm: VmId, disk: &DiskTarget) -> Answer<Option<JobProgress>> {
        self.unreached("hypervisor::job")?;
        self.real.job(vm, disk).await
    }

    async fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Answer<()> {
        let overlays = overlays.to_vec();
        self.change("hypervisor::add_overlays", move |real| {
            Box::pin(async move { real.add_overlays(vm, &overlays).await })
        })
        .await
    }

    async fn start_job(&self, vm: VmId, order: &JobOrder) -> Answer<()> {
        let (order, stage) = (order.clone(), Arc::clone(&self.stage));
        self.change("hypervisor::start_job", move |real| {
            Box::pin(async move {
                if let Ok(Some(_)) = real.job(vm, &order.disk).await {
                    stage.violated(format!("disk {} was given a second job", order.disk));
                }
                real.start_job(vm, &order).await
            })
        })
        .await
    }

    async fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        let (disk, stage) = (disk.clone(), Arc::clone(&self.stage));
        self.change("hypervisor::pivot", move |real| {
            Box::pin(async move {
                if let Some(other) = real.peek(vm).and_then(|vm| behind(&vm, &disk)) {
                    stage.violated(format!("{disk} is pivoted before {other} has caught up"));
                }
                real.pivot(vm, &disk).await
            })
        })
        .await
    }

    async fn abort_job(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        let disk = disk.clone();
        self.change("hypervisor::abort_job", move |real| {
            Box::pin(async move { real.abort_job(vm, &disk).await })
        })
        .await
    }

    async fn set_speed(&self, vm: VmId, disk: &DiskTarget, speed: u64) -> Answer<()> {
        let disk = disk.clone();
        self.change("hypervisor::set_speed", move |real| {
            Box::pin(async move { real.set_speed(vm, &disk, speed).await })
        })
        .await
    }

    async fn write_limit(&self, vm: VmId, disk: &DiskTarget) -> Answer<u64> {
        match upset(&self.stage, "hypervisor::write_limit") {
            None => self.real.write_limit(vm, disk).await,
            Some(Upset::Refused) => Err(HypervisorError::Refused("not now".to_owned())),
            Some(_) => Err(unknown()),
        }
    }

    async fn limit_writes(&self, vm: VmId, disk: &DiskTarget, limit: u64) -> Answer<()> {
        let disk = disk.clone();
        self.change("hypervisor::limit_writes", move |real| {
            Box::pin(async move { real.limit_writes(vm, &disk, limit).await })
        })
        .await
    }

    async fn set_next_start(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        removed: &[Locator],
        kept: &Locator,
    ) -> Answer<()> {
        let (disk, removed, kept) = (disk.clone(), removed.to_vec(), kept.clone());
        self.change("hypervisor::set_next_start", move |real| {
            Box::pin(
                async move { Hypervisor::set_next_start(&real, vm, &disk, &removed, &kept).await },
            )
        })
        .await
    }

    async fn restore_backing(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        image: &Locator,
        backing: &Layer,
    ) -> Answer<()> {
        let (disk, image, backing) = (disk.clone(), image.clone(), backing.clone());
        self.change("hypervisor::restore_backing", move |real| {
            Box::pin(async move { real.restore_backing(vm, &disk, &image, &backing).await })
        })
        .await
    }

    async fn fill(&self, vm: VmId) -> Answer<Fill> {
        self.unreached("hypervisor::fill")?;
        self.real.fill(vm).await
    }

    async fn watch_fill(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        layer: &Locator,
        bytes: u64,
    ) -> Answer<()> {
        self.unreached("hypervisor::watch_fill")?;
        self.real.watch_fill(vm, disk, layer, bytes).await
    }

    async fn suspend(&self, vm: VmId) -> Answer<()> {
        self.change("hypervisor::suspend", move |real| {
            Box::pin(async move { real.suspend(vm).await })
        })
        .await
    }

    fn keep_suspended(&self, vm: VmId) {
        self.real.keep_suspended(vm);
    }

    async fn resume(&self, vm: VmId) -> Answer<()> {
        self.change("hypervisor::resume", move |real| {
            Box::pin(async move { real.resume(vm).await })
        })
        .await
    }

    async fn resume_if_lacks_room(&self, vm: VmId) -> Answer<()> {
        self.change("hypervisor::resume", move |real| {
            Box::pin(async move { real.resume_if_lacks_room(vm).await })
        })
        .await
    }

    async fn freeze_guest(&self, vm: VmId, answer: Duration) -> Answer<usize> {
        self.change_within(&self.guest, "hypervisor::freeze_guest", move |real| {
            Box::pin(async move { real.freeze_guest(vm, answer).await })
        })
        .await
    }

    async fn thaw_guest(&self, vm: VmId, answer: Duration) -> Answer<usize> {
        self.change_within(&self.guest, "hypervisor::thaw_guest", move |real| {
            Box::pin(async move { real.thaw_guest(vm, answer).await })
        })
        .await
    }

    async fn references(&self, locators: &[Locator]) -> Answer<Vec<Vec<Reference>>> {
        self.unreached("hypervisor::references")?;
        self.real.references(locators).await
    }

    async fn migrates(&self, vm: VmId) -> Answer<bool> {
        self.unreached("hypervisor::migrates")?;
        self.real.migrates(vm).await
    }

    async fn kept_snapshots(&self, vm: VmId) -> Answer<Vec<KeptSnapshot>> {
        self.unreached("hypervisor::kept_snapshots")?;
        self.real.kept_snapshots(vm).await
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.real.events()
    }

    fn connected(&self) -> bool {
        self.real.connected()
    }

    fn uri(&self) -> &str {
        "fake:///host"
    }
}
