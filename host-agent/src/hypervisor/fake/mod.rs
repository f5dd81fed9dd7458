//! A hypervisor in memory, for tests: it does what libvirt and QEMU do to chains and data, when
//! the test says so.
//!
//! ```text
//!   start_job ─▶ copying ─▶ ready ─▶ asked ─▶ switched ─▶ noticed
//!                   advance()      pivot()   switch()    notice()
//! ```
//!
//! - Data are real: a commit moves blocks between [`FakeImages`], so a test can look whether an
//!   acknowledged write was lost, in the chain that the guest has open or in an image that would be
//!   opened next ([`FakeImages::read`]).
//! - Between *switched* and *noticed* QEMU writes the base while everybody else still believes in
//!   the overlay. [`FakeHypervisor::kill_vm`] at any point leaves what would really be left.
//! - With [`Pace::Manual`] nothing moves but by the test's word, so that a run can be repeated from
//!   a seed. With [`Pace::Every`] jobs go on by themselves, on Tokio's clock.

mod disk;
mod fill;
mod guest;
mod images;
mod machine;
mod migration;
mod port;
mod script;
#[cfg(test)]
mod tests;

pub use disk::RunningJob;
pub use guest::GuestAgent;
pub use images::{FakeImages, IMAGE_BYTES};
pub use script::Call;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tokio::sync::broadcast;

use self::disk::Disk;
use self::fill::Filling;
use self::guest::Guest;
use self::machine::Machine;
use self::script::{Fault, Script};
use super::{
    BlockJobOutcome, HypervisorError, HypervisorEvent, KeptSnapshot, UnsupportedDisk, VmState,
    VmView,
};

/// Who moves the block jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The test, step by step.
    Manual,
    /// After each such time a job takes its next step: it catches up, or it pivots.
    Every(Duration),
}

/// A host with its machines. Clones are the same host.
#[derive(Clone)]
pub struct FakeHypervisor {
    host: Arc<Mutex<Host>>,
    images: FakeImages,
    events: broadcast::Sender<HypervisorEvent>,
    pace: Pace,
}

struct Host {
    connected: bool,
    machines: BTreeMap<VmId, Machine>,
    kept: BTreeMap<VmId, Vec<KeptSnapshot>>,
    unsupported: BTreeMap<VmId, Vec<UnsupportedDisk>>,
    migrating: BTreeSet<VmId>,
    script: Script,
}

impl FakeHypervisor {
    /// A connected host without machines, on these images.
    pub fn new(images: FakeImages, pace: Pace) -> Self {
        let host = Host {
            connected: true,
            machines: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            migrating: BTreeSet::new(),
            kept: BTreeMap::new(),
            script: Script::default(),
        };
        let (events, _) = broadcast::channel(1024);
        Self {
            host: Arc::new(Mutex::new(host)),
            images,
            events,
            pace,
        }
    }

    /// The images that the machines run from.
    pub fn images(&self) -> &FakeImages {
        &self.images
    }

    /// Defines a machine that runs, with one chain for each disk, base first. Images that are not
    /// there are made.
    ///
    /// # Panics
    /// On a disk without a layer, or a target that is not one.
    pub fn add_vm(&self, vm: VmId, name: &str, disks: &[(&str, &[Locator])]) {
        let disks = disks
            .iter()
            .map(|(target, chain)| self.new_disk(target, chain))
            .collect();
        let machine = Machine {
            id: vm,
            name: name.to_owned(),
            state: VmState::Running,
            suspended: false,
            disks,
            guest: Guest::default(),
            filling: Filling::default(),
        };
        self.host().machines.insert(vm, machine);
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    fn new_disk(&self, target: &str, chain: &[Locator]) -> Disk {
        let mut below = None;
        for layer in chain {
            if !self.images.exists(layer) {
                self.images.create(layer, below);
            }
            below = Some(layer);
        }
        Disk {
            target: target.parse().expect("a disk's target name"),
            chain: chain.to_vec(),
            next_start: below.expect("a disk has at least one layer").clone(),
            job: None,
            write_limit: 0,
            works_for: None,
            unflushed: BTreeSet::new(),
            lacks_data: false,
            discards: false,
        }
    }

    /// Undefines a machine, whatever it does.
    pub fn remove_vm(&self, vm: VmId) {
        self.host().machines.remove(&vm);
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    /// Ends a machine's QEMU at once. Its jobs end without an event of their own, and what was pulled
    /// since the guest stood still last is lost.
    pub fn kill_vm(&self, vm: VmId) {
        if let Some(machine) = self.host().machines.get_mut(&vm) {
            machine.stop(&self.images);
        }
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    /// Ends the jobs of machines that are shut off, as the agent's death does: without an event.
    pub fn lose_offline_jobs(&self) {
        let mut host = self.host();
        let off = |machine: &&mut Machine| machine.state == VmState::ShutOff;
        host.machines
            .values_mut()
            .filter(off)
            .for_each(Machine::end_jobs);
    }

    /// Starts a machine from the images that its definition names, as their headers say.
    ///
    /// # Errors
    /// When there is no such machine, it runs, an image is missing, or a job works on its images.
    pub fn start_vm(&self, vm: VmId) -> Result<(), HypervisorError> {
        {
            let mut host = self.host();
            let machine = host.machine(vm)?;
            if machine.state != VmState::ShutOff {
                return Err(HypervisorError::Refused(
                    "the machine runs already".to_owned(),
                ));
            }
            machine.start(&self.images)?;
        }
        self.tell(HypervisorEvent::Lifecycle { vm });
        Ok(())
    }

    /// Stops or lets run the guest's processors, as somebody else than the tested does.
    pub fn set_paused(&self, vm: VmId, paused: bool) {
        if let Some(machine) = self.host().machines.get_mut(&vm)
            && machine.state != VmState::ShutOff
        {
            machine.suspended &= paused;
            machine.set_state(if paused {
                VmState::Paused
            } else {
                VmState::Running
            });
        }
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    /// Puts layers on a disk, oldest first, as somebody else may do: the guest writes the last one.
    /// Images that are not there are made.
    ///
    /// # Panics
    /// When there is no such machine or disk.
    pub fn freeze(&self, vm: VmId, disk: &DiskTarget, layers: &[Locator]) {
        let frozen = self.with_disk(vm, disk, |disk, images| {
            for layer in layers {
                if !images.exists(layer) {
                    images.create(layer, Some(disk.active()));
                }
                disk.push(layer);
            }
        });
        frozen.expect("a disk of the host");
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    /// Takes the youngest frozen layer and the active one together, as `virsh blockcommit` does.
    ///
    /// # Panics
    /// When there is no such machine or disk.
    pub fn thaw(&self, vm: VmId, disk: &DiskTarget) {
        let thawed = self.with_disk(vm, disk, |disk, images| {
            let gone = disk.active().clone();
            let written = images.own_blocks(&gone);
            disk.chain.pop();
            for block in written {
                let value = images.read(&gone, block).unwrap_or_default();
                images.write(disk.active(), block, value);
            }
            disk.next_start = disk.active().clone();
        });
        thawed.expect("a disk of the host");
        self.tell(HypervisorEvent::Lifecycle { vm });
    }

    /// What metadata of snapshots the hypervisor itself keeps of a machine.
    pub fn set_kept_snapshots(&self, vm: VmId, kept: Vec<KeptSnapshot>) {
        self.host().kept.insert(vm, kept);
    }

    /// The machine has these disks beside those that can be merged.
    pub fn set_unsupported(&self, vm: VmId, disks: Vec<UnsupportedDisk>) {
        self.host().unsupported.insert(vm, disks);
    }

    /// Names another image in the machine's definition, as somebody else may do.
    pub fn set_next_start(&self, vm: VmId, disk: &DiskTarget, image: &Locator) {
        let _ = self.with_disk(vm, disk, |disk, _| disk.next_start = image.clone());
    }

    /// Whether a file system of the guest is frozen.
    pub fn is_guest_frozen(&self, vm: VmId) -> bool {
        let host = self.host();
        let machine = host.machines.get(&vm);
        machine.is_some_and(|machine| machine.guest.frozen > 0)
    }

    /// The guest writes a block. True when the write was acknowledged: the guest runs, and its file
    /// systems are not frozen.
    pub fn guest_write(&self, vm: VmId, disk: &DiskTarget, block: u64, value: u64) -> bool {
        let mut host = self.host();
        let Ok(machine) = host.machine(vm) else {
            return false;
        };
        if machine.state != VmState::Running || machine.guest.frozen > 0 {
            return false;
        }
        machine
            .disk(disk)
            .map(|disk| disk.write(&self.images, block, value))
            .is_ok()
    }

    /// What the guest reads, if its QEMU lives.
    pub fn guest_read(&self, vm: VmId, disk: &DiskTarget, block: u64) -> Option<u64> {
        let mut host = self.host();
        let machine = host.machine(vm).ok()?;
        if machine.state == VmState::ShutOff {
            return None;
        }
        machine
            .disk(disk)
            .ok()
            .map(|disk| disk.read(&self.images, block))
    }

    /// Copies up to so many blocks of the disk's job. It becomes ready, or is done, when nothing is
    /// left.
    pub fn advance(&self, vm: VmId, disk: &DiskTarget, blocks: usize) {
        let told = self.with_disk(vm, disk, |disk, images| disk.copy(images, blocks));
        self.tell_job(vm, disk, told.flatten());
    }

    /// Carries out a pivot that was asked for, inside QEMU: it writes the base from now on, and
    /// nobody else knows. True when there was one.
    pub fn switch(&self, vm: VmId, disk: &DiskTarget) -> bool {
        self.with_disk(vm, disk, Disk::switch).unwrap_or(false)
    }

    /// Lets the hypervisor learn of the switch: chain and definition change, the event comes.
    pub fn notice(&self, vm: VmId, disk: &DiskTarget) {
        let told = self.with_disk(vm, disk, |disk, _| disk.notice());
        self.tell_job(vm, disk, told.flatten());
    }

    /// The disk's job fails, unless it has switched; the chain stays as it is.
    pub fn fail_job(&self, vm: VmId, disk: &DiskTarget) {
        self.end_job(vm, disk, BlockJobOutcome::Failed);
    }

    /// The disk's job has copied all, and what it wrote is found damaged; the chain stays as it is.
    pub fn damage_job(&self, vm: VmId, disk: &DiskTarget) {
        self.end_job(vm, disk, BlockJobOutcome::Damaged);
    }

    /// Somebody cancels the disk's job, unless it has switched; the chain stays as it is.
    pub fn cancel_job(&self, vm: VmId, disk: &DiskTarget) {
        self.end_job(vm, disk, BlockJobOutcome::Cancelled);
    }

    fn end_job(&self, vm: VmId, disk: &DiskTarget, outcome: BlockJobOutcome) {
        let ended = self.with_disk(vm, disk, |disk, _| disk.end_job().then_some(outcome));
        self.tell_job(vm, disk, ended.flatten());
    }

    /// The next call of that name does nothing and answers this. Several are taken in turn.
    ///
    /// # Panics
    /// When the port has no call of that name.
    pub fn fail_next(&self, call: &str, error: HypervisorError) {
        self.host().script.plan(call, Fault::Fail(error));
    }

    /// The next call of that name does its work, and its reply is lost.
    ///
    /// # Panics
    /// When the port has no call of that name.
    pub fn lose_reply(&self, call: &str) {
        self.host().script.plan(call, Fault::LoseReply);
    }

    /// A machine as it is, also while nobody can ask for it. It is no call of the port.
    pub fn peek(&self, vm: VmId) -> Option<VmView> {
        let host = self.host();
        let machine = host.machines.get(&vm)?;
        Some(machine.view(&self.images))
    }

    /// The commit that runs on a disk, as it is.
    pub fn running_job(&self, vm: VmId, disk: &DiskTarget) -> Option<RunningJob> {
        self.with_disk(vm, disk, |disk, _| disk.running_job())?
    }

    /// How many bytes a second the guest may write to a disk; 0 for no limit.
    pub fn limited_to(&self, vm: VmId, disk: &DiskTarget) -> u64 {
        self.with_disk(vm, disk, |disk, _| disk.write_limit)
            .unwrap_or_default()
    }

    /// An intermediate commit comes to its end and QEMU dies: the overlay above names the base already,
    /// and what was committed is lost. False when there is no such job.
    pub fn dies_at_the_end(&self, vm: VmId, disk: &DiskTarget) -> bool {
        let unlinked = self.with_disk(vm, disk, |disk, images| disk.unlink(images));
        let dies = unlinked.unwrap_or_default();
        if dies {
            self.kill_vm(vm);
        }
        dies
    }

    /// Whether a start now would lack data that were copied: QEMU has died with them in its memory,
    /// and no image is made to name the layers that have them.
    pub fn lacks_data(&self, vm: VmId) -> bool {
        let host = self.host();
        let machine = host.machines.get(&vm);
        machine.is_some_and(|machine| machine.disks.iter().any(|disk| disk.lacks_data))
    }

    /// Every call since the start, the failed ones too.
    pub fn calls(&self) -> Vec<Call> {
        self.host().script.calls.clone()
    }

    /// Breaks the connection: calls are unknown and events are lost, while QEMU goes on.
    pub fn disconnect(&self) {
        self.host().connected = false;
        let _ = self.events.send(HypervisorEvent::Disconnected);
    }

    /// Brings the connection up again.
    pub fn connect(&self) {
        self.host().connected = true;
        self.tell(HypervisorEvent::Connected);
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_disk<T>(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        act: impl FnOnce(&mut Disk, &FakeImages) -> T,
    ) -> Option<T> {
        let mut host = self.host();
        let disk = host.machine(vm).ok()?.disk(disk).ok()?;
        Some(act(disk, &self.images))
    }

    fn tell(&self, event: HypervisorEvent) {
        if self.host().connected {
            let _ = self.events.send(event);
        }
    }

    fn tell_job(&self, vm: VmId, disk: &DiskTarget, outcome: Option<BlockJobOutcome>) {
        if let Some(outcome) = outcome {
            self.tell(HypervisorEvent::BlockJob {
                vm,
                disk: disk.clone(),
                outcome,
            });
        }
    }
}

impl Host {
    fn with_unsupported(&self, view: VmView) -> VmView {
        let unsupported = self.unsupported.get(&view.id).cloned().unwrap_or_default();
        VmView {
            unsupported,
            ..view
        }
    }

    fn machine(&mut self, vm: VmId) -> Result<&mut Machine, HypervisorError> {
        let missing = || HypervisorError::NotFound(format!("machine {vm}"));
        self.machines.get_mut(&vm).ok_or_else(missing)
    }
}
