//! What there is to know of a merge before it is begun, from what was foreseen of it. None of it refuses
//! the merge. Pure.

use super::types::{DiskState, DiskTask};

/// The kept volume grows a little with every merge: tables, and clusters that are not full.
const LITTLE: u64 = 16 << 20;

/// One thing to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The guest may discard while QEMU copies into a qcow2 volume. There are versions of QEMU in which
    /// that damages it.
    GuestDiscards,
    /// The kept volume takes more bytes than the removed ones give back.
    TakesRoom {
        /// What it takes.
        needed_bytes: u64,
        /// What they give back.
        freed_bytes: u64,
    },
    /// The bytes are what the volumes take in storage: their maps were not read.
    BytesGuessed,
    /// Nothing was ever measured that says how long it takes.
    TimeUnknown,
}

/// What there is to know of a merge, the worst first. Of one that is done, and whose volumes are only
/// left to be removed, nothing.
pub fn warnings(task: &DiskTask) -> Vec<Warning> {
    if matches!(task.state, DiskState::Removing { .. }) {
        return vec![];
    }
    let foreseen = &task.foreseen;
    let (needed_bytes, freed_bytes) = (foreseen.needed_bytes, foreseen.freed_bytes);
    let grows = !foreseen.guessed && needed_bytes > freed_bytes.saturating_add(LITTLE);
    let takes_room = Warning::TakesRoom {
        needed_bytes,
        freed_bytes,
    };
    let all = [
        (foreseen.guest_discards, Warning::GuestDiscards),
        (grows, takes_room),
        (foreseen.guessed, Warning::BytesGuessed),
        (foreseen.time.is_none(), Warning::TimeUnknown),
    ];
    let holds = all.into_iter().filter(|(holds, _)| *holds);
    holds.map(|(_, warning)| warning).collect()
}

#[cfg(test)]
mod tests;
