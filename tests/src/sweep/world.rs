//! QEMU and the guest: block jobs that move on, writes that are acknowledged, and after each step
//! a look whether any of them is lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{DiskView, Hypervisor, MirrorState, VmState, VmView};
use livemerge_proto::ids::{DiskTarget, VmId};

use super::stage::Stage;

/// Blocks of a disk. The guest writes one after the other, and begins anew.
const BLOCKS: u64 = 8;
/// Time between two steps.
const STEP: Duration = Duration::from_millis(2);
/// Blocks that a job copies in a step.
const COPIED: usize = 2;
/// Nothing that the services do may stop the guest for longer, restarts included.
const STANDSTILL: Duration = Duration::from_secs(5);

/// What a disk reads, block by block.
pub type Contents = BTreeMap<u64, u64>;

/// The machine's inner life. Clones are the same.
#[derive(Clone)]
pub struct World {
    hypervisor: FakeHypervisor,
    vm: VmId,
    stage: Arc<Stage>,
    guest: Arc<Mutex<Guest>>,
    held: Arc<AtomicBool>,
}

#[derive(Default)]
struct Guest {
    writes: u64,
    acknowledged: BTreeMap<DiskTarget, Contents>,
    stands_since: Option<Instant>,
}

impl World {
    /// A machine that has not written yet.
    pub fn new(hypervisor: FakeHypervisor, vm: VmId, stage: Arc<Stage>) -> Self {
        Self {
            hypervisor,
            vm,
            stage,
            guest: Arc::default(),
            held: Arc::default(),
        }
    }

    /// Jobs copy nothing from now on, or they do again.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// Goes on until dropped.
    pub async fn turn(self) {
        loop {
            self.step();
            tokio::time::sleep(STEP).await;
        }
    }

    /// One step of jobs and guest, and a look at the data.
    pub fn step(&self) {
        let Some(view) = self.view() else { return };
        for disk in &view.disks {
            self.job(disk);
        }
        self.write(&view);
        self.check();
    }

    /// One step of a disk's job. From a switch until the next step nobody knows of it.
    fn job(&self, disk: &DiskView) {
        let (vm, target) = (self.vm, &disk.target);
        let job = self.hypervisor.job(vm, target).now_or_never();
        if !matches!(job, Some(Ok(Some(_)))) {
            return;
        }
        self.hypervisor.notice(vm, target);
        let pivots = disk
            .mirror
            .as_ref()
            .is_some_and(|mirror| mirror.state == MirrorState::Pivoting);
        if self.held.load(Ordering::SeqCst) {
            return;
        }
        if !pivots {
            self.hypervisor.advance(vm, target, COPIED);
            self.stage.pass("qemu::copies");
        } else if self.hypervisor.switch(vm, target) {
            self.stage.pass("qemu::switches");
        } else {
            self.stage.pass("qemu::notices");
        }
    }

    /// Writes one block of each disk.
    pub fn write(&self, view: &VmView) {
        let mut guest = self.guest();
        for disk in &view.disks {
            guest.writes += 1;
            let (block, value) = (guest.writes % BLOCKS, guest.writes);
            let target = &disk.target;
            if self.hypervisor.guest_write(self.vm, target, block, value) {
                let written = guest.acknowledged.entry(target.clone()).or_default();
                written.insert(block, value);
            }
        }
    }

    /// Fills all disks before the case begins.
    pub fn fill(&self) {
        if let Some(view) = self.view() {
            (0..BLOCKS).for_each(|_| self.write(&view));
        }
    }

    /// What the guest has been told is written.
    pub fn acknowledged(&self) -> BTreeMap<DiskTarget, Contents> {
        self.guest().acknowledged.clone()
    }

    /// Looks for lost writes: in what the guest reads, or in what its next start would open.
    pub fn check(&self) {
        let mut guest = self.guest();
        let Some(view) = self.view() else { return };
        for disk in &view.disks {
            for (block, value) in guest.acknowledged.get(&disk.target).into_iter().flatten() {
                let next = disk.next_start.as_ref();
                let read = if view.state == VmState::ShutOff {
                    next.and_then(|image| self.hypervisor.images().read(image, *block))
                } else {
                    let live = self.hypervisor.guest_read(self.vm, &disk.target, *block);
                    // It was killed since the look: the next one sees to it.
                    Some(live.unwrap_or(*value))
                };
                if read != Some(*value) {
                    let (disk, state) = (&disk.target, view.state);
                    self.stage.violated(format!(
                        "{disk} block {block} reads {read:?}, {value} was acknowledged ({state:?})"
                    ));
                }
            }
        }
        let stands = view.state == VmState::Paused || self.is_frozen();
        let since = guest.stands_since.take().unwrap_or_else(Instant::now);
        if stands && since.elapsed() > STANDSTILL {
            self.stage
                .violated(format!("the guest stands still for {STANDSTILL:?}"));
        }
        guest.stands_since = stands.then_some(since);
    }

    /// Whether the guest's file systems are frozen.
    pub fn is_frozen(&self) -> bool {
        self.hypervisor.is_guest_frozen(self.vm)
    }

    /// Waits until they are not, at the end of a case.
    pub async fn until_thawed(&self) {
        while self.is_frozen() {
            tokio::time::sleep(STEP).await;
        }
    }

    /// The machine as it is, without any fault.
    pub fn view(&self) -> Option<VmView> {
        self.hypervisor.vm(self.vm).now_or_never()?.ok()
    }

    fn guest(&self) -> MutexGuard<'_, Guest> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
