//! What merges cost, as their host has measured it, and the room that they are promised.

use crate::snapshot::{Direction, Failure, Mark};
use livemerge_proto::ids::DiskTarget;
use livemerge_storage::VolumeRef;

/// What merging neighbouring volumes of a disk costs, as its host has measured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The disk.
    pub disk: DiskTarget,
    /// The oldest of the volumes.
    pub oldest: VolumeRef,
    /// Each way that was looked at.
    pub ways: Vec<MeasuredWay>,
}

/// Room in a storage domain that a merge of another host was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// The volume that it writes.
    pub kept: Mark,
    /// Bytes that it takes in all.
    pub bytes: u64,
    /// Bytes that the volume took when that was foreseen; `None` when how it grows does not show what the
    /// merge takes.
    pub kept_bytes: Option<u64>,
    /// The same where the volume has only the room that it is given: there it always shows.
    pub kept_room_bytes: u64,
}

/// What merging costs one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredWay {
    /// Which.
    pub direction: Direction,
    /// What refuses it; `None` when it is possible.
    pub blocker: Option<Failure>,
    /// Bytes to copy.
    pub copy_bytes: u64,
    /// Bytes that the kept volume takes in addition.
    pub needed_bytes: u64,
    /// Bytes that its storage domain has free.
    pub free_bytes: u64,
    /// Bytes that the removed volumes give back.
    pub freed_bytes: u64,
    /// The maps could not be read in time: these are the bytes that the volumes take in storage.
    pub estimated: bool,
}

impl Measured {
    /// One way.
    pub fn way(&self, direction: Direction) -> Option<&MeasuredWay> {
        self.ways.iter().find(|way| way.direction == direction)
    }
}
