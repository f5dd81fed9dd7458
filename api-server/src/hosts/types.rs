//! What the server knows of hosts, and what it asks of them.

use crate::snapshot::{Direction, Failure, Mark, NewOverlay, Quiesce};
use jiff::Timestamp;
use livemerge_proto::ids::{DiskTarget, HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, StorageId, VolumeRef};
use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};

/// What a machine does, as its host's agent last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// The guest's processors run.
    Running,
    /// They stand still.
    Paused,
    /// Defined, not started.
    ShutOff,
}

/// A machine as its host's agent last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSeen {
    /// Its UUID.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: VmState,
    /// Its disks.
    pub disks: Vec<DiskSeen>,
    /// Whether its guest may be frozen although it should not be.
    pub still_frozen: bool,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSeen {
    /// Target name.
    pub target: DiskTarget,
    /// The volume that the guest writes, if it lies in a known domain.
    pub active: Option<VolumeRef>,
    /// What QEMU opens.
    pub locator: String,
}

/// Whether a host can be worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostStatus {
    /// Its agent answers.
    Up,
    /// It does not: nothing is known of its machines.
    Unresponsive,
    /// It answers, in a version that this server does not work with: as if nothing were known.
    Incompatible,
}

/// What is known of a host now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Whether its agent answers.
    pub status: HostStatus,
    /// When the agent was last heard by this server.
    pub last_seen_at: Option<Timestamp>,
    /// Whether the host's hypervisor answers its agent.
    pub hypervisor_connected: bool,
    /// Its machines; `None` while unknown.
    pub vms: Option<Arc<BTreeMap<VmId, VmSeen>>>,
    /// Its merges; `None` while unknown.
    pub merges: Option<Arc<BTreeMap<MergeId, MergeSeen>>>,
    /// Files of its agent's journal that were damaged, and of which the audit log tells.
    pub damaged_journals: BTreeSet<String>,
    /// Number of the contract that its agent speaks; `None` while it is not heard: it may have been replaced.
    pub api_version: Option<i32>,
}

impl HostView {
    /// Before the agent was heard.
    pub fn unheard() -> Self {
        Self {
            status: HostStatus::Unresponsive,
            last_seen_at: None,
            hypervisor_connected: false,
            vms: None,
            merges: None,
            damaged_journals: BTreeSet::new(),
            api_version: None,
        }
    }

    /// From now on another agent may answer, so that no version is known; whether it was one.
    pub(super) fn expect_another(&mut self) -> bool {
        let known = self.status != HostStatus::Incompatible && self.api_version.is_some();
        if known {
            self.api_version = None;
        }
        known
    }

    /// A merge as the host's journal has it.
    pub fn merge(&self, id: MergeId) -> MergeSight {
        match &self.merges {
            None => MergeSight::Unknown,
            Some(merges) => merges
                .get(&id)
                .cloned()
                .map_or(MergeSight::Absent, MergeSight::Seen),
        }
    }
}

/// What is known of one merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeSight {
    /// The host does not answer.
    Unknown,
    /// Its journal has no such merge.
    Absent,
    /// As it stands.
    Seen(MergeSeen),
}

/// A merge as its host reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeSeen {
    /// Where it stands.
    pub phase: MergePhase,
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes to copy; 0 while unknown.
    pub total_bytes: u64,
    /// How often the pivot was begun.
    pub pivot_attempts: u32,
    /// The longest time that the guest's processors stood still.
    pub longest_pause: Duration,
    /// How long its job copied; 0 until it has caught up or ended.
    pub copy_time: Duration,
    /// How many bytes a second its job may copy; 0 for no limit.
    pub bytes_per_second: u64,
    /// Whether that limit is lifted for now, because the copy does not catch up.
    pub limit_lifted: bool,
    /// What the guest may write for the same reason, in bytes a second; 0 for no limit.
    pub guest_bytes_per_second: u64,
    /// What it waits for on its host.
    pub waiting: Option<Box<MergeWaiting>>,
    /// The guest writes an overlay that it was given so that the merge ends; it stays.
    pub overlaid: bool,
    /// Grows with each change.
    pub revision: u64,
}

/// What a merge waits for on its host; it goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeWaiting {
    /// What is in the way.
    pub cause: Problem,
    /// When the host tries again at the latest.
    pub next_try_at: Timestamp,
    /// How often it has tried.
    pub attempts: u32,
}

/// Where a merge stands on its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergePhase {
    /// Accepted.
    Pending,
    /// Copies.
    Copying,
    /// Has caught up.
    Ready,
    /// Never catches up: the guest is given an overlay.
    Overlaying,
    /// Switches the guest.
    Pivoting,
    /// Looks at the chain.
    Verifying,
    /// Is being given up.
    Cancelling,
    /// Done.
    Merged,
    /// Was given up before the guest was switched.
    Cancelled,
    /// Ended without the merge.
    Failed(Failure),
}

/// The chains of a machine's disks, and what it did in the same look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmChains {
    /// What the machine did; `None` when an older agent does not say.
    pub state: Option<VmState>,
    /// One a disk that can be merged.
    pub chains: Vec<Chain>,
    /// Its other disks.
    pub unsupported: Vec<UnsupportedDisk>,
}

/// A disk that can be neither merged nor given an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedDisk {
    /// Target name of the disk.
    pub disk: DiskTarget,
    /// Why, as it goes on after the disk's name.
    pub why: String,
    /// What is known of what it has open.
    pub locators: Vec<String>,
}

impl UnsupportedDisk {
    /// Said to who wants it merged or frozen.
    pub fn refusal(&self) -> Problem {
        let text = format!("disk {} {}", self.disk, self.why);
        Problem::new(Reason::StrategyUnsupported, text).with("disk", &self.disk)
    }
}

/// One disk's chain, base first, active layer last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Target name of the disk.
    pub disk: DiskTarget,
    /// Its layers.
    pub layers: Vec<Layer>,
    /// Whether a block job runs on the disk.
    pub job_running: bool,
    /// libvirt's own snapshots whose metadata name a layer of it; none can be merged meanwhile.
    pub libvirt_snapshots: Vec<String>,
    /// Whether what the guest discards is given back by the images.
    pub guest_discards: bool,
}

/// One layer of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The volume, when it lies in a storage domain of the host and could be read.
    pub mark: Option<Mark>,
    /// What QEMU has open.
    pub locator: String,
    /// Its format as the contract numbers it.
    pub format: LayerFormat,
    /// Size that the guest sees.
    pub virtual_bytes: u64,
    /// Space taken in storage.
    pub allocated_bytes: u64,
    /// What outside this chain is built on it.
    pub shared_with: Vec<String>,
    /// Whether nobody reads its data without a key.
    pub encrypted: bool,
    /// The names of the dirty bitmaps that it keeps for backups.
    pub bitmaps: Vec<String>,
}

/// The format of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerFormat {
    /// Copy on write.
    Qcow2,
    /// Plain bytes.
    Raw,
    /// Not said.
    Unknown,
}

/// What a host is asked to say of itself, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// Whether its hypervisor answers; else its machines are not known.
    pub hypervisor_connected: bool,
    /// The storage domains that it sees.
    pub storages: Vec<StorageId>,
    /// Its machines.
    pub vms: Vec<VmSeen>,
    /// Files of its agent's journal that were damaged and set aside.
    pub damaged_journals: Vec<String>,
}

/// A storage domain as a host shows it to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSeen {
    /// Its id.
    pub id: StorageId,
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Of the free ones, those that open merges will take.
    pub promised_bytes: u64,
    /// Whether a volume takes only what was written.
    pub thin: bool,
    /// Whether volumes are given their room.
    pub provided: bool,
    /// How long a removed volume can be brought back.
    pub keep_for: Option<Duration>,
    /// Whether what it held is overwritten.
    pub wipe: bool,
    /// Whether the device below is told of what is freed.
    pub discard: bool,
    /// What is neither a volume nor ours.
    pub foreign: Vec<String>,
    /// Why it could not be looked at; empty when it could.
    pub problem: String,
}

/// A volume as its storage domain has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSeen {
    /// Its name and identity.
    pub mark: Mark,
    /// What QEMU opens.
    pub locator: String,
    /// Locator of the backing that its header names; `None` for a base.
    pub parent: Option<String>,
    /// Space taken in storage.
    pub allocated_bytes: u64,
}

/// A removal that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalSeen {
    /// Its id.
    pub id: RemovalId,
    /// The volume; its name may have been used again since.
    pub mark: Mark,
    /// When it was condemned.
    pub condemned_at: Option<Timestamp>,
    /// It can be restored until then; `None` when its space is being freed.
    pub keep_until: Option<Timestamp>,
}

/// Orders the merge of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOrder {
    /// The merge's id, the same at each repetition.
    pub id: MergeId,
    /// The machine.
    pub vm: VmId,
    /// The disk.
    pub disk: DiskTarget,
    /// Which way the data goes.
    pub direction: Direction,
    /// What is kept.
    pub kept: Mark,
    /// What is merged into it, oldest first.
    pub removed: Vec<Mark>,
    /// The name of an overlay for an active commit that does not catch up otherwise.
    pub spare: Option<VolumeRef>,
    /// How many bytes a second its job may copy; 0 for no limit.
    pub bytes_per_second: u64,
}

/// Orders overlays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayOrder {
    /// The operation's request, the same at each repetition.
    pub request: uuid::Uuid,
    /// The machine.
    pub vm: VmId,
    /// One a disk.
    pub overlays: Vec<NewOverlay>,
    /// Whether the guest is frozen meanwhile.
    pub quiesce: Quiesce,
}

/// Orders the removal of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalOrder {
    /// The removal's id, the same at each repetition.
    pub id: RemovalId,
    /// The volume.
    pub volume: Mark,
}

/// How far a removal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Whether nothing is left of the volume.
    pub gone: bool,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// It is out of every chain's reach, and can be brought back until then.
    pub kept_until: Option<Timestamp>,
    /// The host that has done it, where that is another one than was planned.
    pub by: Option<HostId>,
}

impl Removed {
    /// Whether nothing is left to be done by whoever ordered it.
    pub fn over(&self) -> bool {
        self.gone || self.kept_until.is_some()
    }
}

/// Why a host did not do what it was asked, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It understood and said no: nothing was done.
    #[error("{0}")]
    Refused(Problem),
    /// It did not answer, or could not: whether it was done cannot be told. Ask again.
    #[error("{0}")]
    Unknown(Problem),
}

impl HostError {
    /// Whether nothing was heard of it; otherwise it says what is in the way.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unknown(problem) if problem.reason == Reason::HostUnreachable)
    }

    /// The problem, for whoever asked.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) | Self::Unknown(problem) => problem,
        }
    }
}
