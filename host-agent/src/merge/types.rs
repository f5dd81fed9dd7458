//! The merge of one disk, as the journal keeps it.

use super::check::Fit;
use super::elsewhere::Elsewhere;
use super::room::Promise;
use jiff::Timestamp;
use livemerge_proto::failure::Failure;
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_runtime::DurableSpan;
use livemerge_storage::{Format, Identity, Locator, Profile, VolumeRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// Which way the data goes.
    pub direction: Direction,
    /// The volume that is kept and written.
    pub kept: VolumeMark,
    /// The volumes that leave the chain, oldest first: direct neighbours, and the last one (pull)
    /// or the first one (commit) of `kept`. At least one.
    pub removed: Vec<VolumeMark>,
    /// The merges that go together, on one disk each, this one among them: before the first pivot
    /// all have caught up, or none is done.
    pub together: Vec<MergeId>,
    /// How many bytes a second its job may copy at first; 0 for no limit.
    pub bytes_per_second: u64,
    /// The name of a volume that is made and put on top of an active commit that nothing else lets
    /// end; `None`: such a one waits.
    #[serde(default)]
    pub spare: Option<VolumeRef>,
}

/// Which way the data of a merge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Down, from the younger volumes into the oldest one, which is kept.
    Commit,
    /// Up, from the older volumes into the youngest one, which is kept. It is the active one:
    /// libvirt pulls into no other.
    Pull,
}

impl MergeOrder {
    /// Whether both ask for the same, whichever server asked.
    pub fn same_payload(&self, other: &Self) -> bool {
        let payload = |order: &Self| {
            let order = order.clone();
            let volumes = (order.direction, order.kept, order.removed);
            let together: BTreeSet<MergeId> = order.together.into_iter().collect();
            (order.vm, order.disk, volumes, together)
        };
        payload(self) == payload(other)
    }

    /// The volumes of the merge as they must lie on one another, oldest first.
    pub fn layers(&self) -> Vec<&VolumeMark> {
        in_order(self.direction, &self.kept, &self.removed)
    }
}

fn in_order<'a, T>(direction: Direction, kept: &'a T, removed: &'a [T]) -> Vec<&'a T> {
    match direction {
        Direction::Commit => std::iter::once(kept).chain(removed).collect(),
        Direction::Pull => removed.iter().chain([kept]).collect(),
    }
}

/// The merge of one disk: the order, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeRecord {
    /// What was asked for.
    pub order: MergeOrder,
    /// What block job does it.
    pub kind: MergeKind,
    /// What QEMU opens for the volume that is kept, unlike libvirt's indexes, which start again
    /// with the machine.
    pub kept: Locator,
    /// What QEMU opens for the volumes that leave the chain, oldest first.
    pub removed: Vec<Locator>,
    /// The layer below the removed ones, which a pull leaves below the kept one; `None` when there
    /// is none. Of a commit always `None`.
    pub below: Option<Locator>,
    /// The layer whose header QEMU changes at the end of the job, before all data are where it says:
    /// of a pull the kept one, of an intermediate commit the one above the removed ones.
    #[serde(default)]
    pub relinked: Option<Locator>,
    /// Format of the youngest removed volume, which such a layer names until then, when the
    /// definition said it.
    #[serde(default)]
    pub backing_format: Option<Format>,
    /// Bytes that the job had to copy when the order was accepted, without what the guest writes
    /// meanwhile.
    pub copy_bytes: u64,
    /// The room in the kept volume's domain that it was promised.
    #[serde(default)]
    pub promise: Promise,
    /// The kept volume has only the room that it is given, and its job may fail for want of more.
    #[serde(default)]
    pub given_room: bool,
    /// What merges of other hosts were promised in that domain by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    /// Where on the disk they lay then. `None` when that could not be read.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// What its job has copied, and how long that took.
    #[serde(default)]
    pub copied: Copied,
    /// How many bytes a second its job may copy now; 0 for no limit.
    pub bytes_per_second: u64,
    /// What is done so that the copy catches up with the guest.
    #[serde(default)]
    pub help: Help,
    /// The spare overlay lies on top, and stays: what was an active commit is one below it.
    #[serde(default)]
    pub overlaid: bool,
    /// Where it stands.
    pub phase: Phase,
    /// How often the job was asked for by the time that it had caught up.
    #[serde(default)]
    pub starts: u32,
    /// How often the pivot was tried.
    pub pivot_attempts: u32,
    /// The longest time that the guest's processors stood still for a pivot.
    pub longest_pause: Duration,
    /// Its span in the trace of who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<DurableSpan>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Counts the changes of this record.
    pub revision: u64,
}

/// What a job has copied. Nothing until it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes; known once the merge is done.
    pub bytes: u64,
    /// From the job's start until it had caught up or ended.
    pub took: Duration,
}

/// What is done so that a copy catches up with a guest that writes faster than it is copied. It is
/// written down before it is done, and undone when the copy has ended or the agent has restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Help {
    /// The job copies without its limit.
    pub unlimited: bool,
    /// The guest's writes to the disk are limited.
    pub throttle: Option<Throttle>,
}

/// A limit of a guest's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The limit that it had before, in bytes a second; 0 for none.
    pub before: u64,
    /// The limit that it has now, in bytes a second.
    pub bytes_per_second: u64,
}

/// The block job that does a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeKind {
    /// The guest writes the youngest removed volume: the commit ends in a pivot.
    ActiveCommit,
    /// The guest writes a younger volume than those: the commit ends by itself.
    Commit,
    /// The guest writes the kept volume: the pull ends by itself.
    Pull,
    /// There is no guest: the machine is shut off, and its definition and its images' headers are
    /// changed once the data are where they belong.
    OfflineCommit,
}

impl MergeRecord {
    /// A merge that was just accepted.
    pub fn new(order: MergeOrder, fit: Fit, now: Timestamp) -> Self {
        Self {
            bytes_per_second: order.bytes_per_second,
            order,
            kind: fit.kind,
            kept: fit.kept,
            removed: fit.removed,
            below: fit.below,
            relinked: fit.relinked,
            backing_format: fit.backing_format,
            copy_bytes: fit.copy_bytes,
            promise: Promise::default(),
            given_room: fit.given_room,
            elsewhere: vec![],
            profile: fit.profile,
            copied: Copied::default(),
            help: Help::default(),
            overlaid: false,
            phase: Phase::Pending,
            starts: 0,
            pivot_attempts: 0,
            longest_pause: Duration::ZERO,
            trace: DurableSpan::begin(),
            accepted_at: now,
            revision: 1,
        }
    }

    /// The layers of the merge as they must lie on one another, oldest first.
    pub fn layers(&self) -> Vec<&Locator> {
        in_order(self.order.direction, &self.kept, &self.removed)
    }

    /// Whether the merge is one of a machine that is shut off.
    pub fn offline(&self) -> bool {
        self.kind == MergeKind::OfflineCommit
    }

    /// Whether the merge ends in a pivot.
    pub fn pivots(&self) -> bool {
        self.kind == MergeKind::ActiveCommit
    }

    /// Whether the merges that go together with it may pivot: it has caught up, has ended, or
    /// was ordered as one that needs no pivot.
    pub(super) fn in_nobody_s_way(&self) -> bool {
        let needs_none = !self.pivots() && !self.overlaid;
        needs_none || self.phase.caught_up() || self.phase.ended()
    }
}

/// Where a merge stands. The journal has the phase *before* anything of it is done.
///
/// ```text
/// Pending ─▶ Copying ─▶ Ready ─▶ Pivoting(Suspending ─▶ Intent) ─▶ Verifying ─▶ Merged
///               │         ▲                    │           │            ▲
///               │         └──── Releasing ◀────┴───────────┘            │
///               └──────────────── intermediate commit ──────────────────┘
/// Pending, Copying, Ready ─▶ Cancelling ─▶ Cancelled
/// Copying, Ready of a copy that never ends ─▶ Overlaying(Ending ─▶ Adding) ─▶ Copying, below the
///     overlay now: an intermediate commit
/// a pull goes through Pivoting(Suspending), too: stopped, QEMU writes out what it has in memory
/// a pull or intermediate commit whose QEMU died before Verifying, or whose header alone was
///     written out ─▶ Restoring ─▶ Failed
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
    /// The copy does not catch up with the guest, whatever was done: its job ends, and the guest
    /// gets a fresh overlay to write, below which the layers are committed.
    Overlaying {
        /// How far that is.
        stage: Overlaying,
        /// When it was entered.
        since: Timestamp,
    },
    /// The block job is being given up. Nothing of it may be taken for merged.
    Cancelling {
        /// Since when.
        since: Timestamp,
    },
    /// QEMU has died at the end of a pull or an intermediate commit, perhaps with what it had copied
    /// in its memory alone. The layer above is made to name the removed ones again.
    Restoring {
        /// How often that was asked for.
        tries: u32,
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
    /// Given up before the pivot, as asked for, or because a merge of another disk that goes
    /// together with it came to nothing. The chain is as before and reads the same for the guest.
    Cancelled {
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

    /// Whether the guest may stand still because it was told to.
    pub fn suspended(&self) -> bool {
        let (Self::Pivoting { suspended_at, .. } | Self::Verifying { suspended_at }) = self else {
            return false;
        };
        suspended_at.is_some()
    }

    /// Whether an active commit in this phase has caught up once.
    pub(super) fn caught_up(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Pivoting { .. }) || self.passed()
    }

    /// Whether the way back is lost: the base is, or may soon be, what the guest writes.
    pub(super) fn passed(&self) -> bool {
        let intent = Window::Intent;
        matches!(self, Self::Pivoting { window, .. } if *window == intent)
            || matches!(self, Self::Verifying { .. } | Self::Merged { .. })
    }

    /// Whether the merge has come to nothing, or will.
    pub(super) fn lost(&self) -> bool {
        use Phase::{Cancelled, Cancelling, Failed, Restoring};
        matches!(
            self,
            Cancelling { .. } | Cancelled { .. } | Restoring { .. } | Failed { .. }
        )
    }

    /// When that came to be so.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Merged { at } | Self::Cancelled { at } | Self::Failed { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// The steps to an overlay on top. The chain that the guest has is whole in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlaying {
    /// The active commit is being given up.
    Ending,
    /// The overlay may have been made, and may be on.
    Adding,
}

/// The steps of the pivot. Which volume is the truth if QEMU dies is never in doubt: before
/// `Intent` the overlay, from `Intent` on the base, and while it is `Intent` nobody writes, unless a
/// pivot that was called off has come about all the same: then it is entered to go on with that.
/// `Intent` is left only forward, or when no pivot can be on its way any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The processors are asked to stand still, until both volumes read the same, or QEMU has
    /// written out what it pulled.
    Suspending,
    /// The pivot may have been asked for.
    Intent,
    /// The pivot is called off; the processors are asked to run again.
    Releasing,
}
