//! The records: what the store keeps of hosts, machines, snapshots, operations and events.

mod event;
mod operation;

pub use event::{Event, EventKind, NewEvent, Severity};
pub use livemerge_proto::failure::Failure;
pub use operation::{
    CreatePhase, DeletePhase, Deleted, Direction, DiskState, DiskTask, Leaving, MergeKind,
    MergeOptions, NewOverlay, Obstacle, Operation, OperationState, Quiesce, Told, Work,
};

use jiff::Timestamp;
use livemerge_proto::ids::{DiskTarget, HostId, SnapshotId, SnapshotName, VmId};
use livemerge_storage::{Identity, VolumeRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A very volume: its name and the mark that tells it from another one of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Storage domain and name.
    pub volume: VolumeRef,
    /// What a removal must find under that name.
    pub identity: Identity,
}

/// A host that was registered or configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord {
    /// Its id.
    pub id: HostId,
    /// Where its agent listens.
    pub endpoint: String,
    /// The newest generation of its agent that was seen; 0 before.
    pub generation: u64,
    /// That agent's version.
    pub version: String,
}

/// Where a virtual machine was last seen. What it does is never stored: that is observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    /// Its UUID.
    pub id: VmId,
    /// Its name then.
    pub name: String,
    /// Its host then.
    pub host: HostId,
}

/// Whether a snapshot can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Being taken.
    Creating,
    /// Reads as it was.
    Ready,
    /// A delete is accepted; its point in time may be gone.
    Deleting,
    /// A delete began to write and failed.
    Incomplete,
}

/// How a snapshot came to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody asked for it here.
    #[default]
    Requested,
    /// Somebody else froze the layer; it was found in the chain.
    Discovered,
    /// A delete froze the layer: its guest wrote faster than could be copied, and was given an overlay.
    LeftByMerge,
}

/// What a guest finds that starts from a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Not known.
    #[default]
    Unknown,
    /// What a power cut would have left.
    Crash,
    /// Frozen file systems.
    Frozen,
    /// What the machine had while it was off.
    Off,
}

/// One disk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDisk {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The volume that holds this point in time; follows the data.
    pub volume: VolumeRef,
    /// The merge that a delete has begun. Set before the merge is ordered and kept until its volumes
    /// are gone from storage, so that a later delete knows what is left.
    pub merging: Option<Merging>,
}

/// What a merge does to a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merging {
    /// The volume that is kept and written.
    pub kept: Mark,
    /// The volumes that leave the chain, oldest first; without those that another merge has taken.
    pub removed: Vec<Mark>,
    /// Whether a chain without them shows that they are merged. Of an intermediate commit and a pull it
    /// does only once the host has said so: QEMU changes the chain before it has written all data, and
    /// may die in between.
    #[serde(default)]
    pub chain_tells: bool,
}

impl Merging {
    /// Whether the other one does the same to the chain, whatever is known of it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kept == other.kept && self.removed == other.removed
    }

    /// All its volumes.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.removed.iter().chain([&self.kept])
    }
}

/// A named point in time of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id; ids grow with time.
    pub id: SnapshotId,
    /// The machine.
    pub vm: VmId,
    /// Unique among the machine's snapshots.
    pub name: SnapshotName,
    /// Free text.
    pub description: String,
    /// How it came to be.
    #[serde(default)]
    pub origin: Origin,
    /// What its owner has noted of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether deletes are refused.
    #[serde(default)]
    pub deletion_protected: bool,
    /// What a guest finds that starts from it.
    #[serde(default)]
    pub consistency: Consistency,
    /// Whether it can be relied on.
    pub state: SnapshotState,
    /// Whether it was INCOMPLETE when its latest delete was accepted: then no refusal makes it READY.
    #[serde(default)]
    pub was_incomplete: bool,
    /// One a disk. A disk whose merge and removal are done leaves the list.
    pub disks: Vec<SnapshotDisk>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Counts its durable changes; the etag. Set by the store.
    pub revision: u64,
}

impl Snapshot {
    /// As it is once its deletion is accepted.
    #[must_use]
    pub fn deleting(self) -> Self {
        Self {
            was_incomplete: self.state == SnapshotState::Incomplete,
            state: SnapshotState::Deleting,
            ..self
        }
    }

    /// Whether it explains a layer of a disk: it is its point in time, or part of a merge that has
    /// begun.
    pub fn accounts_for(&self, disk: &DiskTarget, layer: &Mark) -> bool {
        let mut disks = self.disks.iter().filter(|own| own.disk == *disk);
        disks.any(|own| {
            let mut merging = own.merging.iter().flat_map(Merging::marks);
            own.volume == layer.volume || merging.any(|mark| mark == layer)
        })
    }
}
