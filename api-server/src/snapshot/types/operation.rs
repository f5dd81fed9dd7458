//! The records of operations: what is to be done, and how far it is.

use super::{Mark, Merging};
use crate::snapshot::foreseen::Foreseen;
use jiff::Timestamp;
use livemerge_proto::failure::Failure;
use livemerge_proto::ids::{
    DiskTarget, HostId, MergeId, OperationId, RequestId, SnapshotId, SnapshotName, VmId,
};
use livemerge_runtime::DurableSpan;
use livemerge_storage::{RemovalId, VolumeRef};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Work that was accepted durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id; ids grow with time, which is the order of work on one machine.
    pub id: OperationId,
    /// The machine.
    pub vm: VmId,
    /// The snapshot; of a batch the oldest.
    pub snapshot: SnapshotId,
    /// The snapshot's name when the operation was accepted.
    pub snapshot_name: SnapshotName,
    /// The other snapshots of a batch, oldest first.
    #[serde(default)]
    pub batch: Vec<SnapshotId>,
    /// How its data are merged.
    #[serde(default)]
    pub options: MergeOptions,
    /// Whether the guest is frozen for the snapshot that it takes.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// Whether its end was asked for.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Where it stands.
    pub state: OperationState,
    /// What it does, and how far it is.
    pub work: Work,
    /// The host that it was planned on, and that alone is asked from then on: on another one the
    /// same machine has another chain, and the same name may be another volume.
    pub host: Option<HostId>,
    /// The request that asked for it.
    pub request: RequestId,
    /// Who asked: the caller's address.
    pub requested_by: String,
    /// Its span in the trace of who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<DurableSpan>,
    /// What is in its way, once that stands in the audit log; `None` while it goes on.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Counts its durable changes. Set by the store.
    pub revision: u64,
}

impl Operation {
    /// Whether it orders this removal.
    pub(crate) fn removes(&self, removal: RemovalId) -> bool {
        let Work::Delete(DeletePhase::Disks(tasks)) = &self.work else {
            return false;
        };
        let mut leaving = tasks.iter().flat_map(|task| &task.removed);
        leaving.any(|leaving| leaving.removal == removal)
    }

    /// All its snapshots, oldest first.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotId> {
        std::iter::once(self.snapshot).chain(self.batch.iter().copied())
    }

    /// Whether something is left that need not be done: a merge that is not won, a round that has
    /// not begun, or a removal that waits.
    pub fn may_turn_back(&self) -> bool {
        let Work::Delete(DeletePhase::Disks(tasks)) = &self.work else {
            return true;
        };
        let open = |task: &DiskTask| matches!(task.state, DiskState::Pending | DiskState::Merging);
        tasks.iter().any(open) || self.obstacle.is_some()
    }

    /// Of one whose merges are over: whether its removals wait, and its end was asked for.
    pub fn removal_is_given_up(&self) -> bool {
        self.cancel_requested && self.obstacle.is_some()
    }
}

/// Whether a guest's file systems are frozen while a snapshot is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiesce {
    /// When its agent answers in time.
    #[default]
    IfPossible,
    /// Or there is no snapshot.
    Required,
    /// Its agent is not asked.
    Never,
}

/// How data are merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOptions {
    /// Which way; `None` for the cheaper one that is possible.
    pub direction: Option<Direction>,
    /// The limit of all block jobs together, in bytes a second; 0 for none.
    pub bytes_per_second: u64,
}

/// Which way the data of a merge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Down, into the oldest volume.
    Commit,
    /// Up, into the youngest volume, which is the active one.
    Pull,
}

/// The block job that does a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeKind {
    /// A commit of the layer that the guest writes: ends in a pivot.
    ActiveCommit,
    /// A commit below that layer.
    Commit,
    /// A pull into that layer.
    Pull,
    /// A commit while the machine is off.
    OfflineCommit,
}

impl MergeKind {
    /// Which way the data goes.
    pub fn direction(self) -> Direction {
        match self {
            Self::Pull => Direction::Pull,
            Self::ActiveCommit | Self::Commit | Self::OfflineCommit => Direction::Commit,
        }
    }
}

/// What stands in an operation's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// As it was when it was told; it is told again when its reason changes.
    pub cause: Failure,
    /// Since when it is this reason.
    pub since: Timestamp,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Its turn has not come: an earlier operation on the same machine goes first, or as much merges
    /// on its host or in its storage domain as may at once.
    Queued,
    /// Under way.
    Running,
    /// Done, wholly.
    Succeeded,
    /// Ended without success.
    Failed(Failure),
    /// Ended before it was done, as asked for.
    Cancelled,
}

impl OperationState {
    /// Whether nothing will change any more.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed(_) | Self::Cancelled)
    }
}

/// What an operation does, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Takes a snapshot.
    Create(CreatePhase),
    /// Deletes one.
    Delete(DeletePhase),
}

/// How far the taking of a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreatePhase {
    /// The chains are not yet read.
    Planning,
    /// These overlays are asked for; the host may have put them on.
    Overlaying(Vec<NewOverlay>),
    /// These overlays were refused for this; the chains are read before that is believed.
    Refused(Vec<NewOverlay>, Failure),
}

/// An overlay that a snapshot puts on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOverlay {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The active volume, which the snapshot freezes.
    pub below: VolumeRef,
    /// The volume to create on top of it.
    pub overlay: VolumeRef,
}

/// How far the deletion of a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletePhase {
    /// The chains are not yet read, nothing is decided.
    Planning,
    /// What is done disk by disk, in this order.
    Disks(Vec<DiskTask>),
}

/// A merge of one disk, which deletes one or several neighbouring snapshots on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTask {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The merges of one round are ordered together; rounds follow one another.
    pub round: u32,
    /// What block job does it.
    pub kind: MergeKind,
    /// The volume that is kept and written.
    pub kept: Mark,
    /// The volumes that are merged into it and then removed, oldest first. At least one.
    pub removed: Vec<Leaving>,
    /// The snapshots that go with it, oldest first.
    pub deletes: Vec<Deleted>,
    /// The merge's id on its host, also after a restart.
    pub merge: MergeId,
    /// Bytes to copy, as far as was known when it was planned.
    pub planned_bytes: u64,
    /// What else was known of it then.
    #[serde(default)]
    pub foreseen: Foreseen,
    /// Where it stands.
    pub state: DiskState,
    /// What the audit log has of the merge already.
    #[serde(default)]
    pub told: Told,
}

/// A volume that leaves a chain, and then storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The volume.
    pub volume: Mark,
    /// Its removal's id.
    pub removal: RemovalId,
}

/// A snapshot that goes with a merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Which.
    pub snapshot: SnapshotId,
    /// What it said of the disk before: so it is again if this merge touches nothing.
    pub earlier: Option<Merging>,
}

impl DiskTask {
    /// Whether nothing is left to do.
    pub fn is_removed(&self) -> bool {
        matches!(self.state, DiskState::Removed { .. })
    }

    /// Whether nothing was done to the disk that a snapshot could miss: a pull that is given up
    /// leaves every volume as it was.
    pub fn is_untouched(&self) -> bool {
        match self.state {
            DiskState::Pending | DiskState::Refused(_) => true,
            DiskState::Cancelled => self.kind == MergeKind::Pull,
            _ => false,
        }
    }

    /// What it does to the chain.
    pub fn merging(&self) -> Merging {
        let removed = self.removed.iter().map(|leaving| leaving.volume.clone());
        let whole = matches!(
            self.kind,
            MergeKind::ActiveCommit | MergeKind::OfflineCommit
        );
        let told = matches!(
            self.state,
            DiskState::Removing { .. } | DiskState::Removed { .. }
        );
        Merging {
            kept: self.kept.clone(),
            removed: removed.collect(),
            chain_tells: (whole && !self.told.overlaid) || told,
        }
    }

    /// The volume that is removed after so many: the youngest first, because the younger ones are
    /// built on the older ones.
    pub fn leaving(&self, gone: usize) -> &Leaving {
        &self.removed[self.removed.len() - 1 - gone]
    }

    /// Whether the volume leaves the chain with it.
    pub fn removes(&self, volume: &VolumeRef) -> bool {
        let mut removed = self.removed.iter();
        removed.any(|leaving| leaving.volume.volume == *volume)
    }
}

/// What the host has shown of a merge and the audit log has, so that each is told once, also over
/// restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// It has caught up.
    pub ready: bool,
    /// A pivot has begun.
    pub pivoting: bool,
    /// A pivot was called off.
    pub put_off: bool,
    /// The limit of its job was lifted.
    #[serde(default)]
    pub lifted: bool,
    /// The guest was held back.
    #[serde(default)]
    pub throttled: bool,
    /// The guest was given a fresh overlay, for which a snapshot is listed.
    #[serde(default)]
    pub overlaid: bool,
}

/// Where the deletion of a snapshot stands on one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Its turn has not come.
    Pending,
    /// The merge was ordered; the host may have begun.
    Merging,
    /// The chain no longer has the removed volumes; they are being removed from storage.
    Removing {
        /// Bytes that the merge copied.
        copied_bytes: u64,
        /// The longest time that the guest's processors were stopped.
        longest_pause: Duration,
        /// How many of the volumes are gone from storage, youngest first.
        #[serde(default)]
        gone: usize,
        /// Bytes that their removals gave back.
        #[serde(default)]
        freed_bytes: u64,
        /// How long the merge copied.
        #[serde(default)]
        copy_time: Duration,
    },
    /// They are gone from storage.
    Removed {
        /// Bytes that the merge copied.
        copied_bytes: u64,
        /// The longest time that the guest's processors were stopped.
        longest_pause: Duration,
        /// Bytes that the removals gave back.
        freed_bytes: u64,
        /// How long the merge copied.
        #[serde(default)]
        copy_time: Duration,
    },
    /// The merge failed; it may have begun to write.
    Failed(Failure),
    /// The merge was refused and never began.
    Refused(Failure),
    /// The merge was given up before the guest was switched; a commit may have begun to write.
    Cancelled,
}
