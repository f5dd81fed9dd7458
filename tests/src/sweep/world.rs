//! QEMU and the guest: block jobs that move on, writes that are acknowledged, and after each step
//! a look whether any of them is lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{
    BlockJobKind, DiskView, Hypervisor, MirrorState, VmState, VmView,
};
use livemerge_host_agent::merge::Policy;
use livemerge_proto::ids::{DiskTarget, VmId};

use super::fault::Fault;
use super::ledger::Ledger;
use super::stage::Stage;

/// Blocks of a disk: all are written once. Then the guest writes the first ones, one after the other,
/// and begins anew: of the others a pull has something to copy.
const BLOCKS: u64 = 16;
const WRITTEN: u64 = 6;
/// Time between two steps.
const STEP: Duration = Duration::from_millis(2);
/// Blocks that a job copies in a step.
const COPIED: usize = 2;
/// What a guest's standstill may take beyond its bounds: an agent that has died is started again, and
/// all cases share the machine's processors.
const MARGIN: Duration = Duration::from_millis(2800);

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
    pace: Arc<Mutex<Pace>>,
}

/// How fast the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// Slower than its disks are copied.
    #[default]
    Slow,
    /// Faster, unless it is held back.
    Fast,
    /// Faster, also when it is held back.
    Flood,
}

#[derive(Default)]
struct Guest {
    writes: u64,
    acknowledged: BTreeMap<DiskTarget, Contents>,
    /// So many steps in a row it has stood still.
    stands_for: u32,
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
            pace: Arc::default(),
        }
    }

    /// From now on the guest writes so fast.
    pub fn writes_at(&self, pace: Pace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// For how many steps nothing that the services do may stop the guest: until the pivot is called
    /// off, or until one that was asked for has shown no effect for too long. Steps take longer on a busy
    /// machine, as all that the services do.
    fn standstill() -> u32 {
        let policy = Policy::default();
        let time = policy.pause_limit + policy.pivot_limit + MARGIN;
        time.div_duration_f64(STEP) as u32
    }

    /// Jobs copy nothing from now on, or they do again.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// How many bytes a second each disk's job may copy; none of a disk without a job.
    pub(super) fn speeds(&self) -> Vec<Option<u64>> {
        let view = self.view();
        let disks = view.iter().flat_map(|view| &view.disks);
        let job = |disk: &DiskView| self.hypervisor.running_job(self.vm, &disk.target);
        disks.map(|disk| job(disk).map(|job| job.speed)).collect()
    }

    /// Goes on until dropped.
    pub async fn turn(self, ledger: Ledger) {
        loop {
            self.step();
            ledger.check();
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
        self.count_standstill(&view);
    }

    fn count_standstill(&self, view: &VmView) {
        let (mut guest, most) = (self.guest(), Self::standstill());
        let stands = view.state == VmState::Paused || self.is_frozen();
        guest.stands_for = if stands { guest.stands_for + 1 } else { 0 };
        if guest.stands_for > most {
            let time = STEP * most;
            let text = format!("the guest stands still for more than {time:?}");
            self.stage.violated(text);
        }
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
            if !self.ends_early(target) {
                self.hypervisor.advance(vm, target, COPIED);
                self.stage.pass("qemu::copies");
            }
        } else if self.hypervisor.switch(vm, target) {
            let half_written = self.stage.pass("qemu::switches") == Some(Fault::HalfWritten);
            if let Some(left) = disk.chain.last().filter(|_| half_written) {
                self.hypervisor.notice(vm, target);
                self.hypervisor.set_next_start(vm, target, &left.locator);
            }
        } else {
            self.stage.pass("qemu::notices");
        }
    }

    /// Whether a fault ends a job that was about to go on.
    fn ends_early(&self, disk: &DiskTarget) -> bool {
        let (vm, hypervisor) = (self.vm, &self.hypervisor);
        match self.stage.pass("qemu::works") {
            Some(Fault::JobFails) => hypervisor.fail_job(vm, disk),
            Some(Fault::JobCancelled) => hypervisor.cancel_job(vm, disk),
            _ => {
                let job = hypervisor.running_job(vm, disk);
                let below = job.is_some_and(|job| job.kind == BlockJobKind::Commit);
                let dies = below && self.stage.pass("qemu::commits") == Some(Fault::DiesAtTheEnd);
                return dies && hypervisor.dies_at_the_end(vm, disk);
            }
        }
        true
    }

    /// Writes one block of each disk.
    pub fn write(&self, view: &VmView) {
        let mut guest = self.guest();
        let disks = view.disks.iter();
        for disk in disks.flat_map(|disk| std::iter::repeat_n(disk, self.writes(disk))) {
            guest.writes += 1;
            let (block, value) = (guest.writes % WRITTEN, guest.writes);
            let target = &disk.target;
            if self.hypervisor.guest_write(self.vm, target, block, value) {
                let written = guest.acknowledged.entry(target.clone()).or_default();
                written.insert(block, value);
            }
        }
    }

    /// How often the guest writes to a disk in a step.
    fn writes(&self, disk: &DiskView) -> usize {
        let free = self.hypervisor.limited_to(self.vm, &disk.target) == 0;
        match *self.pace.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fast if free => COPIED + 1,
            Pace::Flood => COPIED + 1,
            Pace::Fast | Pace::Slow => 1,
        }
    }

    /// Writes all of every disk, before there is a snapshot.
    pub fn fill(&self) {
        let mut guest = self.guest();
        let view = self.view();
        for disk in view.iter().flat_map(|view| &view.disks) {
            for block in 0..BLOCKS {
                guest.writes += 1;
                let (value, target) = (guest.writes, &disk.target);
                if self.hypervisor.guest_write(self.vm, target, block, value) {
                    let written = guest.acknowledged.entry(target.clone()).or_default();
                    written.insert(block, value);
                }
            }
        }
    }

    /// Writes what the guest writes, once.
    pub fn write_on(&self) {
        if let Some(view) = self.view() {
            (0..WRITTEN).for_each(|_| self.write(&view));
        }
    }

    /// Whether a start now would lack what QEMU had pulled when it died.
    pub fn lacks_data(&self) -> bool {
        self.hypervisor.lacks_data(self.vm)
    }

    /// What the guest has been told is written.
    pub fn acknowledged(&self) -> BTreeMap<DiskTarget, Contents> {
        self.guest().acknowledged.clone()
    }

    /// Looks for lost writes: in what the guest reads, or in what its next start would open.
    pub fn check(&self) {
        let guest = self.guest();
        let Some(view) = self.view() else { return };
        // Until the agent has made a pull good nobody may start the machine; who asks, waits for that.
        let disks = view.disks.iter().filter(|_| !self.lacks_data());
        for disk in disks {
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
