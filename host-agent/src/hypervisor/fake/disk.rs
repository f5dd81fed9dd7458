//! A disk with its block job: plain state, changed by one event at a time.

use std::collections::BTreeSet;

use livemerge_proto::ids::{DiskTarget, MergeId};
use livemerge_storage::Locator;

use super::images::FakeImages;
use crate::hypervisor::{
    BlockJob, BlockJobKind, BlockJobOutcome, DiskView, HypervisorError, JobOrder, JobProgress,
    Layer, MirrorState,
};

/// A disk of a machine.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) target: DiskTarget,
    /// What QEMU has open, base first; of a machine that is off, what it will open first.
    pub(super) chain: Vec<Locator>,
    /// What the machine's definition names.
    pub(super) next_start: Locator,
    pub(super) job: Option<Job>,
    /// How many bytes a second the guest may write; 0 for no limit. Ends with QEMU.
    pub(super) write_limit: u64,
    /// The merge for which QEMU was last asked for an intermediate commit or a pull.
    pub(super) works_for: Option<MergeId>,
    /// Blocks that were pulled into the active layer, and of which only QEMU's memory knows where
    /// they are. The headers tell of the pull's end at once.
    pub(super) unflushed: BTreeSet<u64>,
    /// Some of them were lost with QEMU, and the image does not name yet where they came from.
    pub(super) lacks_data: bool,
    /// What the guest discards is given back.
    pub(super) discards: bool,
}

/// A job that runs.
#[derive(Debug)]
pub(super) struct Job {
    kind: BlockJobKind,
    /// What lies below afterwards; of a pull perhaps nothing.
    base: Option<Locator>,
    top: Locator,
    /// Blocks that the kept layer lacks.
    dirty: BTreeSet<u64>,
    copied: u64,
    stage: Stage,
    speed: u64,
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

/// A job that runs, for whoever looks behind the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// Which.
    pub kind: BlockJobKind,
    /// What lies below afterwards: of a commit what is kept and written.
    pub base: Option<Locator>,
    /// Where the data comes from first: of a pull what is kept and written.
    pub top: Locator,
    /// How many bytes a second it may copy; 0 for no limit.
    pub speed: u64,
    /// QEMU was asked to pivot, and has not switched.
    pub asked: bool,
    /// QEMU writes the base, and nobody knows it yet.
    pub switched: bool,
}

/// What one step of a job leads to.
pub(super) type Told = Option<BlockJobOutcome>;

impl Disk {
    pub(super) fn view(&self, chain: Vec<Locator>, images: &FakeImages) -> DiskView {
        let layer = |locator| Layer {
            format: images.format(&locator),
            locator,
        };
        DiskView {
            target: self.target.clone(),
            chain: chain.into_iter().map(layer).collect(),
            next_start: Some(self.next_start.clone()),
            mirror: self.job.as_ref().and_then(Job::mark),
            works_for: self.works_for,
            unflushed: vec![],
            astray: vec![],
            discards: self.discards,
        }
    }

    pub(super) fn active(&self) -> &Locator {
        self.chain.last().expect("a chain has at least one layer")
    }

    /// A write that the guest gets acknowledged.
    pub(super) fn write(&mut self, images: &FakeImages, block: u64, value: u64) {
        self.unflushed.remove(&block);
        match &mut self.job {
            Some(job) if job.stage == Stage::Switched => images.write(job.target(), block, value),
            Some(job) if job.kind == BlockJobKind::Pull => {
                // What the guest writes need not be pulled any more.
                job.dirty.remove(&block);
                images.write(self.chain.last().expect("it has layers"), block, value);
            }
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
                images.read_chain(&self.chain[..=self.place(job.target())], block)
            }
            _ => images.read_chain(&self.chain, block),
        }
    }

    pub(super) fn push(&mut self, overlay: &Locator) {
        // Before the layer is only read QEMU writes everything out.
        self.unflushed.clear();
        self.chain.push(overlay.clone());
        self.next_start = overlay.clone();
    }

    pub(super) fn start_job(
        &mut self,
        order: &JobOrder,
        images: &FakeImages,
    ) -> Result<(), HypervisorError> {
        let refused = |why: &str| HypervisorError::Refused(format!("disk {}: {why}", order.disk));
        if self.job.is_some() {
            return Err(refused("a block job runs already"));
        }
        let place = |locator| self.chain.iter().position(|layer| layer == locator);
        let Some(top) = place(&order.top) else {
            return Err(refused("not a layer of the chain"));
        };
        let base = order.base.as_ref().map(place);
        // Where the layers above the base begin.
        let above = match base {
            Some(None) => return Err(refused("not a layer of the chain")),
            Some(Some(base)) => base + 1,
            None => 0,
        };
        let at_the_end = top + 1 == self.chain.len();
        let wanted_at_the_end = match order.kind {
            BlockJobKind::Offline => at_the_end,
            kind => kind != BlockJobKind::Commit,
        };
        if above > top || at_the_end != wanted_at_the_end {
            return Err(refused("the layers are in another order"));
        }
        let dirty = match order.kind {
            BlockJobKind::Pull => {
                let own = images.allocated(&self.chain[top..]);
                let below = images.allocated(&self.chain[above..top]);
                below.difference(&own).copied().collect()
            }
            _ => images.allocated(&self.chain[above..=top]),
        };
        // Before it copies, QEMU makes what it writes as large as what it reads.
        if let (Some(base), Some(bytes)) = (&order.base, images.bytes(&order.top))
            && order.kind != BlockJobKind::Pull
        {
            images.grow(base, bytes);
        }
        if matches!(order.kind, BlockJobKind::Commit | BlockJobKind::Pull) {
            self.works_for = order.merge;
        }
        self.job = Some(Job {
            kind: order.kind,
            base: order.base.clone(),
            top: order.top.clone(),
            dirty,
            copied: 0,
            stage: Stage::Copying,
            speed: order.bytes_per_second,
        });
        Ok(())
    }

    /// Copies up to so many blocks; a copy that has caught up says so once.
    pub(super) fn copy(&mut self, images: &FakeImages, blocks: usize) -> Told {
        let job = self.job.as_ref()?;
        let (above, top) = (self.above_base(job), self.place(&job.top));
        let from = self.chain[above..=top].to_vec();
        let job = self.job.as_mut()?;
        for _ in 0..blocks {
            let Some(block) = job.dirty.pop_first() else {
                break;
            };
            let value = images.read_chain(&from, block);
            images.write(job.target(), block, value);
            if job.kind == BlockJobKind::Pull {
                self.unflushed.insert(block);
            }
            job.copied += 1;
        }
        if job.stage != Stage::Copying || !job.dirty.is_empty() {
            return None;
        }
        match job.kind {
            BlockJobKind::ActiveCommit => {
                job.stage = Stage::Ready;
                return Some(BlockJobOutcome::Ready);
            }
            BlockJobKind::Pull => {
                images.rebase(
                    &self.chain[top],
                    above.checked_sub(1).map(|base| &self.chain[base]),
                );
                self.chain.drain(above..top);
            }
            _ => {
                let base = self.chain[above - 1].clone();
                match self.chain.get(top + 1) {
                    Some(overlay) => images.rebase(overlay, Some(&base)),
                    None => self.next_start = base,
                }
                self.chain.drain(above..=top);
            }
        }
        self.job = None;
        Some(BlockJobOutcome::Completed)
    }

    /// An intermediate commit is at its end: the overlay above names the base, which has nothing of
    /// it yet but in QEMU's memory. False when there is no such job.
    pub(super) fn unlink(&mut self, images: &FakeImages) -> bool {
        let Some(job) = self.job.take_if(|job| job.kind == BlockJobKind::Commit) else {
            return false;
        };
        let overlay = &self.chain[self.place(&job.top) + 1];
        images.rebase(overlay, job.base.as_ref());
        self.lacks_data = true;
        true
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
        let base = self.place(job.target());
        self.chain.truncate(base + 1);
        self.next_start = job.target().clone();
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
            kind: job.kind,
            speed: job.speed,
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

    /// As the hypervisor is asked for it.
    pub(super) fn abort_job(&mut self) -> Result<(), HypervisorError> {
        if self.end_job() {
            return Ok(());
        }
        Err(HypervisorError::Refused("no block job runs".to_owned()))
    }

    pub(super) fn set_speed(&mut self, speed: u64) -> Result<(), HypervisorError> {
        let none = || HypervisorError::Refused("no block job runs".to_owned());
        self.job.as_mut().ok_or_else(none)?.speed = speed;
        Ok(())
    }

    /// The place of the oldest layer above the job's base.
    fn above_base(&self, job: &Job) -> usize {
        job.base.as_ref().map_or(0, |base| self.place(base) + 1)
    }

    fn place(&self, locator: &Locator) -> usize {
        let place = self.chain.iter().position(|layer| layer == locator);
        place.expect("the layers of a running job are in the chain")
    }
}

impl Job {
    /// The layer that it writes.
    fn target(&self) -> &Locator {
        match (&self.base, self.kind) {
            (Some(base), kind) if kind != BlockJobKind::Pull => base,
            _ => &self.top,
        }
    }

    fn mark(&self) -> Option<BlockJob> {
        (self.kind == BlockJobKind::ActiveCommit).then(|| BlockJob {
            kind: self.kind,
            target: self.base.clone(),
            state: match self.stage {
                Stage::Ready => MirrorState::Ready,
                Stage::Asked | Stage::Switched => MirrorState::Pivoting,
                _ => MirrorState::Copying,
            },
            switched: Some(self.stage == Stage::Switched),
        })
    }
}
