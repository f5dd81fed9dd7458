//! What the hypervisor port speaks of.

use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_storage::{Format, Locator};

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// The guest's processors run.
    Running,
    /// QEMU lives, the guest's processors stand still.
    Paused,
    /// Defined, no QEMU.
    ShutOff,
}

/// A machine as it was read just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmView {
    /// Its UUID.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: VmState,
    /// It stands still because a disk had no room for a write, and not because somebody wished it: who
    /// gives it room lets it run. Not once it was suspended. Of a machine that was asked for by itself.
    pub lacks_room: bool,
    /// Its disks, in the order of the definition, without CD-ROMs and floppies.
    pub disks: Vec<DiskView>,
    /// The rest of its disks, which can be neither merged nor given an overlay.
    pub unsupported: Vec<UnsupportedDisk>,
}

/// A disk that can be neither merged nor given an overlay: its chain is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedDisk {
    /// Target name, for example `vda`.
    pub target: DiskTarget,
    /// Why, as it goes on after the disk's name.
    pub why: String,
    /// What is known of what it has open, base first.
    pub layers: Vec<Locator>,
}

impl VmView {
    /// The disk of that target name.
    pub fn disk(&self, target: &DiskTarget) -> Option<&DiskView> {
        self.disks.iter().find(|disk| disk.target == *target)
    }
}

/// One disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    /// Target name, for example `vda`.
    pub target: DiskTarget,
    /// The chain, base first, active layer last. Of a machine that is shut off: what it would open,
    /// as the inactive definition and the images' headers say.
    pub chain: Vec<Layer>,
    /// The source that the machine would start with next time: of the inactive definition.
    /// `None` when the machine is transient or the disk is not in that definition.
    pub next_start: Option<Locator>,
    /// The mark of a running active commit or copy (`<mirror>`), if any.
    pub mirror: Option<BlockJob>,
    /// The merge for which this very QEMU was last asked for an intermediate commit or a pull. It ends
    /// with QEMU: another one that runs from the same images does not say so.
    pub works_for: Option<MergeId>,
    /// Layers below the active one that such a QEMU has open for writing: what it has written there may
    /// be in its memory alone.
    pub unflushed: Vec<Locator>,
    /// Of a machine that is shut off: layers whose headers name other images than the definition has
    /// below them. Whoever opens them without the definition reads something else.
    pub astray: Vec<Locator>,
    /// Whether what the guest discards is given back by the images.
    pub discards: bool,
}

impl DiskView {
    /// Where the locator stands in the chain, counted from the base.
    pub fn position(&self, locator: &Locator) -> Option<usize> {
        self.chain
            .iter()
            .position(|layer| layer.locator == *locator)
    }

    /// The layer that the guest writes, or would.
    pub fn active(&self) -> Option<&Layer> {
        self.chain.last()
    }
}

/// One layer of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What QEMU has open.
    pub locator: Locator,
    /// Its format, when the definition says it.
    pub format: Option<Format>,
}

/// The mark of a mirror job in a machine's live definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockJob {
    /// What kind of job.
    pub kind: BlockJobKind,
    /// Where it copies to.
    pub target: Option<Locator>,
    /// How far it is.
    pub state: MirrorState,
    /// Whether QEMU writes the target and no longer the layer that is copied from: it has switched,
    /// whatever the mark says. `None` when that cannot be told.
    pub switched: Option<bool>,
}

/// How far a mirror job is, as the definition's mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorState {
    /// It copies, or is being given up.
    Copying,
    /// It can be ended by a pivot now; none was asked for.
    Ready,
    /// A pivot was asked for and accepted: it is on its way.
    Pivoting,
}

/// Kinds of block jobs, as far as a merge must tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockJobKind {
    /// Active commit: ends by a pivot.
    ActiveCommit,
    /// Intermediate commit: ends by itself.
    Commit,
    /// Pull into the active layer: ends by itself.
    Pull,
    /// Commit in the chain of a machine that is shut off: ends by itself, and dies with the agent.
    Offline,
    /// Anything else: a copy, a backup.
    Other,
}

/// How far a block job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobProgress {
    /// What kind of job.
    pub kind: BlockJobKind,
    /// Bytes done, in the job's own terms.
    pub cur: u64,
    /// Bytes to do, in the job's own terms: dirty bytes of an active commit, the virtual size of
    /// the others. Both may be 0 before the job has begun.
    pub end: u64,
}

/// A fresh overlay for one disk; its volume exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Target name of the disk.
    pub disk: DiskTarget,
    /// The overlay's volume.
    pub locator: Locator,
}

/// Asks for a block job that merges layers of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOrder {
    /// Target name of the disk.
    pub disk: DiskTarget,
    /// Which job; never [`BlockJobKind::Other`].
    pub kind: BlockJobKind,
    /// The layer that lies below afterwards: of a commit the one that is written and kept; of a
    /// pull the one that is left as it is, `None` when nothing shall be left below.
    pub base: Option<Locator>,
    /// The layer that the data comes from first: of a commit the youngest that is removed; of a
    /// pull the active one, which is kept.
    pub top: Locator,
    /// How many bytes a second it may copy; 0 for no limit.
    pub bytes_per_second: u64,
    /// The merge that an intermediate commit or a pull is for: QEMU says so from then on, see
    /// [`DiskView::works_for`].
    pub merge: Option<MergeId>,
}

/// How a block job ended, as its event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockJobOutcome {
    /// An active commit has caught up.
    Ready,
    /// It ended well.
    Completed,
    /// It ended with an error.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It has copied all, and the tables of the image that it wrote are not whole; the chain is as it was.
    /// Of a machine that is shut off.
    Damaged,
}

/// What the hypervisor reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// A block job changed.
    BlockJob {
        /// The machine.
        vm: VmId,
        /// The disk's target name.
        disk: DiskTarget,
        /// What happened.
        outcome: BlockJobOutcome,
    },
    /// A machine started, stopped, paused, resumed, crashed, was defined or undefined.
    Lifecycle {
        /// The machine.
        vm: VmId,
    },
    /// A layer of a machine was written beyond what was watched, see
    /// [`super::Hypervisor::watch_fill`]; or it has a new one, which is not watched yet.
    Filling {
        /// The machine.
        vm: VmId,
    },
    /// The connection is up again: events before it may have been missed.
    Connected,
    /// The connection broke.
    Disconnected,
}

/// How full the layers of a running machine are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fill {
    /// Its layers, as far as they lie on this host.
    pub layers: Vec<LayerFill>,
    /// The disks that had no room for a write, when it stands still because of that.
    pub lacks_room: Vec<DiskTarget>,
}

/// How far a layer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFill {
    /// Target name of the disk.
    pub disk: DiskTarget,
    /// The layer.
    pub locator: Locator,
    /// The last byte that QEMU has written since it opened it; 0 when it wrote nothing. Of an image
    /// that lies on a block device.
    pub written_to: u64,
    /// Beyond which byte a write is told; 0 for none.
    pub watched_at: u64,
}

/// A snapshot of a machine that the hypervisor itself keeps metadata of. They name layers, and
/// whoever uses them counts on those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSnapshot {
    /// Its name.
    pub name: String,
    /// The target names of its disks; `None` when it is of all of them.
    pub disks: Option<Vec<String>>,
}

impl KeptSnapshot {
    /// Whether the disk belongs to it.
    pub fn is_of(&self, disk: &DiskTarget) -> bool {
        let named = |disks: &Vec<String>| disks.iter().any(|own| own == disk.as_str());
        self.disks.as_ref().is_none_or(named)
    }
}

/// A machine that names a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The machine.
    pub vm: VmId,
    /// Its name.
    pub name: String,
    /// The disk's target name.
    pub disk: DiskTarget,
}

/// What went wrong, by what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HypervisorError {
    /// Certainly no such machine or disk: stop asking.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The hypervisor understood and said no: nothing was done.
    #[error("{0}")]
    Refused(String),
    /// Nothing was done, because what it read or wrote for that failed: its storage may be away.
    #[error("{0}")]
    Storage(String),
    /// Nothing was done, because the machine is on its way to another host, or comes from one.
    #[error("the virtual machine is being migrated: {0}")]
    Migrating(String),
    /// It cannot be told whether it was done: look again later, assume nothing.
    #[error("the hypervisor does not answer: {0}")]
    Unknown(String),
}

impl HypervisorError {
    /// Whether it is certain that the machine, which is there, is as it was.
    pub fn says_that_nothing_was_done(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Storage(_) | Self::Migrating(_)
        )
    }
}
