//! A machine with its disks and block jobs: plain state, changed by one event at a time.

use std::collections::BTreeSet;

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::{Format, Locator};

use super::images::FakeImages;
use crate::hypervisor::{
    BlockJob, BlockJobKind, BlockJobOutcome, CommitOrder, DiskView, HypervisorError, JobProgress,
    Layer, MirrorState, VmState, VmView,
};

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: VmId,
    pub(super) name: String,
    pub(super) state: VmState,
    pub(super) disks: Vec<Disk>,
}

/// A disk of a machine.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) target: DiskTarget,
    /// What QEMU has open, base first; of a machine that is off, what it will open first.
    pub(super) chain: Vec<Locator>,
    /// What the machine's definition names.
    pub(super) next_start: Locator,
    pub(super) job: Option<Job>,
}

/// A commit that runs.
#[derive(Debug)]
pub(super) struct Job {
    kind: BlockJobKind,
    base: Locator,
    top: Locator,
    /// Blocks that the base lacks.
    dirty: BTreeSet<u64>,
    copied: u64,
    stage: Stage,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    /// Caught up once; goes on copying what the guest writes.
    Ready,
    /// QEMU was asked to pivot.
    Asked,
    /// QEMU writes the base now, and nobody knows it yet.
    Switched,
}

/// A commit that runs, for whoever looks behind the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// What is kept and written.
    pub base: Locator,
    /// What is merged into it.
    pub top: Locator,
    /// QEMU was asked to pivot, and has not switched.
    pub asked: bool,
    /// QEMU writes the base, and nobody knows it yet.
    pub switched: bool,
}

/// What one step of a job leads to.
pub(super) type Told = Option<BlockJobOutcome>;

impl Machine {
    pub(super) fn view(&self) -> VmView {
        let disks = self.disks.iter().map(Disk::view).collect();
        VmView {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            disks,
        }
    }

    pub(super) fn disk(&mut self, target: &DiskTarget) -> Result<&mut Disk, HypervisorError> {
        let missing = || HypervisorError::NotFound(format!("disk {target}"));
        self.disks
            .iter_mut()
            .find(|disk| disk.target == *target)
            .ok_or_else(missing)
    }

    /// QEMU is gone: its jobs with it, and what it knew of the chains.
    pub(super) fn stop(&mut self) {
        self.state = VmState::ShutOff;
        for disk in &mut self.disks {
            disk.job = None;
            disk.chain = vec![disk.next_start.clone()];
        }
    }

    /// Opens the chains as the headers have them.
    pub(super) fn start(&mut self, images: &FakeImages) -> Result<(), HypervisorError> {
        for disk in &mut self.disks {
            let broken =
                || HypervisorError::Refused(format!("disk {} cannot be opened", disk.target));
            disk.chain = images.chain(&disk.next_start).ok_or_else(broken)?;
        }
        self.state = VmState::Running;
        Ok(())
    }
}

impl Disk {
    pub(super) fn view(&self) -> DiskView {
        let layer = |locator: &Locator| Layer {
            locator: locator.clone(),
            format: Some(Format::Qcow2),
        };
        DiskView {
            target: self.target.clone(),
            chain: self.chain.iter().map(layer).collect(),
            next_start: Some(self.next_start.clone()),
            mirror: self.job.as_ref().and_then(Job::mark),
        }
    }

    pub(super) fn active(&self) -> &Locator {
        self.chain.last().expect("a chain has at least one layer")
    }

    /// A write that the guest gets acknowledged.
    pub(super) fn write(&mut self, images: &FakeImages, block: u64, value: u64) {
        match &mut self.job {
            Some(job) if job.stage == Stage::Switched => images.write(&job.base, block, value),
            Some(job) if job.kind == BlockJobKind::ActiveCommit => {
                job.dirty.insert(block);
                images.write(self.active(), block, value);
            }
            _ => images.write(self.active(), block, value),
        }
    }

    pub(super) fn read(&self, images: &FakeImages, block: u64) -> u64 {
        match &self.job {
            Some(job) if job.stage == Stage::Switched => {
                images.read_chain(&self.chain[..=self.place(&job.base)], block)
            }
            _ => images.read_chain(&self.chain, block),
        }
    }

    pub(super) fn push(&mut self, overlay: &Locator) {
        self.chain.push(overlay.clone());
        self.next_start = overlay.clone();
    }

    pub(super) fn start_commit(
        &mut self,
        order: &CommitOrder,
        images: &FakeImages,
    ) -> Result<(), HypervisorError> {
        let refused = |why: &str| HypervisorError::Refused(format!("disk {}: {why}", order.disk));
        if self.job.is_some() {
            return Err(refused("a block job runs already"));
        }
        let place = |locator| self.chain.iter().position(|layer| layer == locator);
        let (Some(base), Some(top)) = (place(&order.base), place(&order.top)) else {
            return Err(refused("not layers of the chain"));
        };
        if base >= top || order.active != (top + 1 == self.chain.len()) {
            return Err(refused("the layers are in another order"));
        }
        let kind = if order.active {
            BlockJobKind::ActiveCommit
        } else {
            BlockJobKind::Commit
        };
        self.job = Some(Job {
            kind,
            base: order.base.clone(),
            top: order.top.clone(),
            dirty: images.allocated(&self.chain[base + 1..=top]),
            copied: 0,
            stage: Stage::Copying,
        });
        Ok(())
    }

    /// Copies up to so many blocks; a copy that has caught up says so once.
    pub(super) fn copy(&mut self, images: &FakeImages, blocks: usize) -> Told {
        let (base, top) = {
            let job = self.job.as_ref()?;
            (self.place(&job.base), self.place(&job.top))
        };
        let job = self.job.as_mut()?;
        for _ in 0..blocks {
            let Some(block) = job.dirty.pop_first() else {
                break;
            };
            let value = images.read_chain(&self.chain[base + 1..=top], block);
            images.write(&job.base, block, value);
            job.copied += 1;
        }
        if job.stage != Stage::Copying || !job.dirty.is_empty() {
            return None;
        }
        if job.kind == BlockJobKind::ActiveCommit {
            job.stage = Stage::Ready;
            return Some(BlockJobOutcome::Ready);
        }
        images.set_backing(&self.chain[top + 1], &self.chain[base]);
        self.chain.drain(base + 1..=top);
        self.job = None;
        Some(BlockJobOutcome::Completed)
    }

    pub(super) fn ask_pivot(&mut self) -> Result<(), HypervisorError> {
        match &mut self.job {
            Some(job) if matches!(job.stage, Stage::Ready | Stage::Asked) => {
                job.stage = Stage::Asked;
                Ok(())
            }
            Some(_) => Err(HypervisorError::Refused(
                "the block job is not ready".to_owned(),
            )),
            None => Err(HypervisorError::Refused("no block job runs".to_owned())),
        }
    }

    /// Copies what is left and switches to the base, in one step, when a pivot was asked for.
    pub(super) fn switch(&mut self, images: &FakeImages) -> bool {
        self.copy(images, usize::MAX);
        match &mut self.job {
            Some(job) if job.stage == Stage::Asked => {
                job.stage = Stage::Switched;
                true
            }
            _ => false,
        }
    }

    /// The hypervisor learns of the switch.
    pub(super) fn notice(&mut self) -> Told {
        let job = self.job.take_if(|job| job.stage == Stage::Switched)?;
        let base = self.place(&job.base);
        self.chain.truncate(base + 1);
        self.next_start = job.base;
        Some(BlockJobOutcome::Completed)
    }

    pub(super) fn progress(&self) -> Option<JobProgress> {
        let job = self.job.as_ref()?;
        let end = job.copied + job.dirty.len() as u64;
        Some(JobProgress {
            kind: job.kind,
            cur: job.copied,
            end,
        })
    }

    pub(super) fn running_job(&self) -> Option<RunningJob> {
        let job = self.job.as_ref()?;
        Some(RunningJob {
            base: job.base.clone(),
            top: job.top.clone(),
            asked: job.stage == Stage::Asked,
            switched: job.stage == Stage::Switched,
        })
    }

    /// Ends the job without its work. True when there was one, and QEMU had not switched yet.
    pub(super) fn end_job(&mut self) -> bool {
        self.job
            .take_if(|job| job.stage != Stage::Switched)
            .is_some()
    }

    fn place(&self, locator: &Locator) -> usize {
        let place = self.chain.iter().position(|layer| layer == locator);
        place.expect("the layers of a running job are in the chain")
    }
}

impl Job {
    fn mark(&self) -> Option<BlockJob> {
        (self.kind == BlockJobKind::ActiveCommit).then(|| BlockJob {
            kind: self.kind,
            target: Some(self.base.clone()),
            state: match self.stage {
                Stage::Ready => MirrorState::Ready,
                Stage::Asked | Stage::Switched => MirrorState::Pivoting,
                _ => MirrorState::Copying,
            },
        })
    }
}
