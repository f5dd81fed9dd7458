//! What an observation says of a merge: questions with one answer each, for [`step`](super::step).

use super::observation::{Observation, Told};
use super::policy::Policy;
use super::types::{MergeKind, MergeRecord, Phase};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, DiskView, JobProgress, MirrorState, VmState,
};
use jiff::Timestamp;
use std::time::Duration;

/// The same action is asked for again when it has shown no effect for so long.
pub(super) const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// A machine whose disk could be read.
pub(super) struct Look<'a> {
    pub(super) record: &'a MergeRecord,
    pub(super) seen: &'a Observation,
    pub(super) policy: &'a Policy,
    pub(super) now: Timestamp,
    pub(super) state: VmState,
    pub(super) disk: &'a DiskView,
    pub(super) job: Option<JobProgress>,
}

impl Look<'_> {
    /// The chain has lost the removed layers and kept the other one, no job is left, and the
    /// next start of the machine would open none of them either.
    pub(super) fn merged(&self) -> bool {
        let next = self.disk.next_start.as_ref();
        !self.removed_seen()
            && self.disk.position(&self.record.kept).is_some()
            && self.disk.mirror.is_none()
            && !next.is_some_and(|next| self.record.removed.contains(next))
    }

    /// The machine's next start would open a layer that shall leave the chain.
    pub(super) fn would_start_from_removed(&self) -> bool {
        let next = self.disk.next_start.as_ref();
        next.is_some_and(|next| self.record.removed.contains(next))
    }

    /// The chain has one of the layers that shall leave it.
    pub(super) fn removed_seen(&self) -> bool {
        let mut removed = self.record.removed.iter();
        removed.any(|layer| self.disk.position(layer).is_some())
    }

    /// The layers lie on one another as when the order was accepted.
    pub(super) fn neighbours(&self) -> bool {
        let layers = self.record.layers();
        let Some(first) = self.disk.position(layers[0]) else {
            return false;
        };
        let last = first + layers.len();
        let Some(found) = self.disk.chain.get(first..last) else {
            return false;
        };
        let at_the_end = last == self.disk.chain.len();
        let below = first
            .checked_sub(1)
            .map(|below| &self.disk.chain[below].locator);
        let below_fits = match self.record.kind {
            MergeKind::Pull => below == self.record.below.as_ref(),
            MergeKind::ActiveCommit | MergeKind::Commit | MergeKind::OfflineCommit => true,
        };
        let end_fits = match self.record.kind {
            MergeKind::ActiveCommit | MergeKind::Pull => at_the_end,
            MergeKind::Commit => !at_the_end,
            MergeKind::OfflineCommit => true,
        };
        found.iter().map(|layer| &layer.locator).eq(layers) && end_fits && below_fits
    }

    /// The guest's processors stand still, and it was this merge that stopped them.
    pub(super) fn stands_still_for_us(&self) -> bool {
        let stopped = matches!(
            self.record.phase,
            Phase::Pivoting {
                suspended_at: Some(_),
                ..
            } | Phase::Verifying {
                suspended_at: Some(_)
            }
        );
        stopped && self.state == VmState::Paused
    }

    pub(super) fn job_present(&self) -> bool {
        self.job.is_some() || self.disk.mirror.is_some()
    }

    /// libvirt shows a job that QEMU has no more, and that came to nothing: it shows it until the
    /// machine starts again.
    pub(super) fn stale_mark(&self) -> bool {
        let mirror = self.disk.mirror.as_ref();
        self.seen.mark_alone_for >= self.policy.settle
            && mirror.is_some_and(|mirror| mirror.switched == Some(false))
    }

    /// A job that cannot be the one asked for.
    pub(super) fn foreign_job(&self) -> bool {
        let wanted = job_of(self.record.kind);
        let mirror = self.disk.mirror.as_ref();
        let elsewhere = mirror
            .and_then(|m| m.target.as_ref())
            .is_some_and(|to| *to != self.record.kept);
        elsewhere
            || mirror.is_some_and(|m| m.kind != wanted)
            || self.job.is_some_and(|j| j.kind != wanted)
    }

    /// As libvirt shows a job of ours while it ends, for as long as its storage takes to end what is in
    /// flight: the job of no kind, or gone and its mark of no kind. Whatever else it may be, its end is
    /// waited for.
    pub(super) fn ending_job(&self) -> bool {
        let (wanted, none) = (job_of(self.record.kind), BlockJobKind::Other);
        let mirror = self.disk.mirror.as_ref();
        let mark = mirror.map(|mirror| mirror.kind);
        let job = self.job.map(|job| job.kind);
        let target = mirror.and_then(|mirror| mirror.target.as_ref());
        let ours =
            |kind: Option<BlockJobKind>| kind.is_none_or(|kind| [wanted, none].contains(&kind));
        let elsewhere = match (target, mark) {
            (Some(target), _) => *target != self.record.kept,
            (None, mark) => mark == Some(none),
        };
        ours(mark) && ours(job) && !elsewhere && [mark, job].contains(&Some(none))
    }

    pub(super) fn mirror_ready(&self) -> bool {
        let mirror = self.disk.mirror.as_ref();
        self.record.pivots() && mirror.is_some_and(|mirror| mirror.state == MirrorState::Ready)
    }

    /// A libvirt that was killed while it started the job has a job without its mark in the
    /// definition, and will never mark it. It can be ended by a pivot all the same once it has
    /// caught up; if QEMU knows better, the pivot is refused and tried again.
    pub(super) fn unmarked_ready(&self) -> bool {
        self.unmarked()
            && self
                .job
                .is_some_and(|job| job.end > 0 && job.cur == job.end)
    }

    pub(super) fn unmarked(&self) -> bool {
        let is_one = |job: JobProgress| job.kind == BlockJobKind::ActiveCommit;
        self.record.pivots() && self.disk.mirror.is_none() && self.job.is_some_and(is_one)
    }

    /// A job that was just started has its mark within this time.
    pub(super) fn settled_in_phase(&self) -> bool {
        self.seen.in_phase >= self.policy.settle
    }

    pub(super) fn refused(&self) -> bool {
        use BlockJobOutcome::{Cancelled, Failed};
        matches!(
            self.seen.told,
            Some(Told::Refused(_) | Told::Job(Failed | Cancelled))
        )
    }

    /// The guest cannot write and nothing is left to copy. One that stands still for want of room may be
    /// let run at any time by who gives it room.
    pub(super) fn both_read_the_same(&self) -> bool {
        self.state == VmState::Paused
            && !self.seen.lacks_room
            && (self.mirror_ready() || self.unmarked_ready())
            && self.job.is_some_and(|job| job.cur == job.end)
    }

    /// The merge comes to nothing because another one did that goes together with it. Only as long
    /// as none of them has pivoted, and unless the job can only be ended by a pivot.
    pub(super) fn given_up(&self) -> bool {
        self.seen.peers.lost && !self.seen.peers.passed && !self.unmarked()
    }

    /// None of the merges that go together with it is in the way of a pivot.
    pub(super) fn may_pivot(&self) -> bool {
        self.seen.peers.ready && !self.given_up()
    }

    pub(super) fn settled(&self) -> bool {
        self.seen.job_missing_for >= self.policy.settle
    }

    pub(super) fn repeat(&self) -> bool {
        self.seen.fresh_start || self.seen.in_phase >= REPEAT_AFTER
    }
}

/// The block job of a kind of merge.
pub(super) fn job_of(kind: MergeKind) -> BlockJobKind {
    match kind {
        MergeKind::ActiveCommit => BlockJobKind::ActiveCommit,
        MergeKind::Commit => BlockJobKind::Commit,
        MergeKind::Pull => BlockJobKind::Pull,
        MergeKind::OfflineCommit => BlockJobKind::Offline,
    }
}
