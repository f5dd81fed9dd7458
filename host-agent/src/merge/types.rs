//! The merge of one disk, as the journal keeps it.

use jiff::Timestamp;
use livemerge_proto::failure::Failure;
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_storage::{Identity, Locator, VolumeRef};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A very volume: its name, and what tells it from another volume of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMark {
    /// Storage domain and name.
    pub volume: VolumeRef,
    /// Its identity.
    pub identity: Identity,
}

/// What the API server asked for. Repeating it under the same id changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOrder {
    /// The request's id, and the merge's.
    pub id: MergeId,
    /// Generation of the server that ordered it.
    pub generation: u64,
    /// The machine.
    pub vm: VmId,
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The volume that is kept and written.
    pub base: VolumeMark,
    /// The volume that is merged into `base`: its direct neighbour above.
    pub top: VolumeMark,
}

impl MergeOrder {
    /// Whether both ask for the same, whichever server asked.
    pub fn same_payload(&self, other: &Self) -> bool {
        (self.vm, &self.disk, &self.base, &self.top)
            == (other.vm, &other.disk, &other.base, &other.top)
    }
}

/// The merge of one disk: the order, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeRecord {
    /// What was asked for.
    pub order: MergeOrder,
    /// What QEMU opens for the base. Kept, unlike libvirt's indexes, which start again with the
    /// machine.
    pub base: Locator,
    /// What QEMU opens for the top.
    pub top: Locator,
    /// Whether `top` is the layer that the guest writes, so that the merge ends in a pivot.
    pub active: bool,
    /// Bytes that `top` had allocated when the order was accepted: what the commit has to copy,
    /// without what the guest writes meanwhile.
    pub top_bytes: u64,
    /// Where it stands.
    pub phase: Phase,
    /// How often the pivot was tried.
    pub pivot_attempts: u32,
    /// The longest time that the guest's processors stood still for a pivot.
    pub longest_pause: Duration,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Counts the changes of this record.
    pub revision: u64,
}

/// Where a merge stands. The journal has the phase *before* anything of it is done.
///
/// ```text
/// Pending ─▶ Copying ─▶ Ready ─▶ Pivoting(Suspending ─▶ Intent) ─▶ Verifying ─▶ Merged
///               │         ▲                    │           │            ▲
///               │         └──── Releasing ◀────┴───────────┘            │
///               └───────────────── intermediate commit ────────────────┘
/// any phase but Merged ─▶ Failed
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted; nothing is touched.
    Pending,
    /// The block job was asked for, and may run.
    Copying {
        /// How often it was asked for.
        starts: u32,
        /// When it was asked for last.
        since: Timestamp,
    },
    /// An active commit has caught up; the guest's writes go to both volumes.
    Ready {
        /// The pivot is not tried before.
        not_before: Timestamp,
    },
    /// The guest is being switched to the base.
    Pivoting {
        /// How far that is.
        window: Window,
        /// When this step of it was entered.
        since: Timestamp,
        /// When the processors were asked to stand still; `None` when they need not be (they stood
        /// still before, or the configuration skips it). Then nothing is resumed either.
        suspended_at: Option<Timestamp>,
    },
    /// The chain is as it must be. The guest may still stand still.
    Verifying {
        /// As in `Pivoting`.
        suspended_at: Option<Timestamp>,
    },
    /// Done. The chain no longer has `top`.
    Merged {
        /// When.
        at: Timestamp,
    },
    /// Ended without the merge; the chain reads the same for the guest.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
    },
}

impl Phase {
    /// Whether nothing will change any more.
    pub fn ended(&self) -> bool {
        self.ended_at().is_some()
    }

    /// When that came to be so.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Merged { at } | Self::Failed { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// The steps of the pivot. Which volume is the truth if QEMU dies is never in doubt: before
/// `Intent` the overlay, from `Intent` on the base, and while it is `Intent` nobody writes.
/// `Intent` is left only forward, or when no pivot can be on its way any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The processors are asked to stand still, until both volumes read the same.
    Suspending,
    /// The pivot may have been asked for.
    Intent,
    /// The pivot is called off; the processors are asked to run again.
    Releasing,
}
