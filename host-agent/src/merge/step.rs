//! What to do next with a merge: a pure function of the record and what was just observed.
//!
//! Acting is left to the driver. Nothing here reads a clock, a file or a hypervisor.

use super::again::NO_MORE_STARTS;
use super::ladder;
pub(super) use super::look::job_of;
use super::look::{Look, REPEAT_AFTER};
pub use super::observation::{Machine, Observation, Peers, Told};
pub use super::policy::{PivotMode, Policy};
use super::restore::lacks_data;
use super::types::{Help, MergeKind, MergeRecord, Phase, Window};
use crate::hypervisor::{BlockJobKind, BlockJobOutcome, VmState};
use jiff::Timestamp;
use livemerge_proto::failure::Failure;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::time::Duration;
use tonic::Code;

/// Before storage is asked again for room for a job.
pub(super) const ROOM_AGAIN: Duration = Duration::from_secs(2);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the phase down, then act.
    Enter(Phase, Option<Action>),
    /// Help the copy so, or no longer; the phase stays.
    Help(Help),
    /// Look again after an event, or after this time.
    Wait(Duration),
    /// Write the end down.
    Finish(Outcome),
}

/// What the driver does. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the block job.
    StartJob,
    /// End the block job without its work.
    AbortJob,
    /// Stop the guest's processors.
    Suspend,
    /// Switch the guest to the base.
    Pivot,
    /// Let the guest's processors run.
    Resume,
    /// Let the machine start from the kept volume next time.
    SetNextStart,
    /// Let the layer above name the removed ones again.
    RestoreBacking,
    /// Make the spare overlay and put it on top.
    AddOverlay,
}

/// How a merge ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The chain no longer has the removed volumes.
    Merged,
    /// It has, and no job works on it.
    Cancelled,
    /// It does, or it cannot be told.
    Failed(Failure),
}

/// Decides.
pub fn step(record: &MergeRecord, seen: &Observation, policy: &Policy, now: Timestamp) -> Step {
    ladder::before_the_end(decide(record, seen, policy, now), record, seen)
}

fn decide(record: &MergeRecord, seen: &Observation, policy: &Policy, now: Timestamp) -> Step {
    let (state, disk, job) = match &seen.machine {
        Machine::Unknown => return Step::Wait(policy.look_every),
        Machine::Gone => return gone(record),
        Machine::Seen {
            state, disk: None, ..
        } => return without_disk(record, seen, *state, now),
        Machine::Seen {
            state,
            disk: Some(disk),
            job,
        } => (*state, disk, *job),
    };
    let look = Look {
        record,
        seen,
        policy,
        now,
        state,
        disk,
        job,
    };
    match (state, record.offline()) {
        (VmState::ShutOff, false) => return look.shut_off(),
        (VmState::Running | VmState::Paused, true) => return look.started(),
        _ => {}
    }
    if let Some(undo) = look.undo() {
        return undo;
    }
    match &record.phase {
        Phase::Pending => look.pending(),
        Phase::Copying { starts, .. } => look.copying(*starts),
        Phase::Ready { not_before } => look.ready(*not_before),
        Phase::Pivoting {
            window,
            suspended_at,
            ..
        } => look.pivoting(*window, *suspended_at),
        Phase::Overlaying { stage, .. } => look.overlaying(*stage),
        Phase::Cancelling { .. } => look.cancelling(),
        Phase::Restoring { .. } => look.restoring(),
        Phase::Verifying { suspended_at } => look.verifying(*suspended_at),
        Phase::Cancelled { .. } => Step::Finish(Outcome::Cancelled),
        Phase::Merged { .. } => Step::Finish(Outcome::Merged),
        Phase::Failed { failure, .. } => Step::Finish(Outcome::Failed(failure.clone())),
    }
}

impl Look<'_> {
    pub(super) fn pending(&self) -> Step {
        if self.merged() {
            return self.verify();
        }
        if self.job_present() {
            let text = "another block job runs on the disk";
            return fail(Reason::ConcurrentChange, self.record, text);
        }
        if !self.neighbours() {
            return self.diverged();
        }
        if self.given_up() {
            return Step::Finish(Outcome::Cancelled);
        }
        self.start_job(1)
    }

    pub(super) fn copying(&self, starts: u32) -> Step {
        if self.merged() {
            return self.verify();
        }
        if let Some(Told::Refused(text)) = &self.seen.told
            && !self.refused_for_now(starts)
        {
            return fail(Reason::MergeIoError, self.record, text);
        }
        if self.ends_at_once() {
            return self.wait_for_its_end();
        }
        if self.foreign_job() {
            return self.disk_taken();
        }
        if self.given_up() {
            return self.cancel();
        }
        if self.mirror_ready() || (self.unmarked_ready() && self.settled_in_phase()) {
            return Step::Enter(
                Phase::Ready {
                    not_before: self.now,
                },
                None,
            );
        }
        if self.stale_mark() {
            return self.lost_by_libvirt();
        }
        if self.job_present() {
            let wait = Step::Wait(self.policy.look_every);
            return self.help().unwrap_or(wait);
        }
        if let Some(Told::NotStarted(problem)) = &self.seen.told {
            return self.without_room(starts, problem);
        }
        self.start_again(starts)
    }

    /// Storage that does not answer is asked again, as often as it takes: no job has failed.
    fn without_room(&self, starts: u32, problem: &Problem) -> Step {
        if problem.reason.code() != Code::Unavailable {
            return fail(problem.reason, self.record, &problem.message);
        }
        // To ask may have taken longer than the pause.
        match ROOM_AGAIN.saturating_sub(self.seen.told_for) {
            Duration::ZERO if !self.neighbours() => self.diverged(),
            Duration::ZERO => self.start_job(starts),
            left => Step::Wait(left),
        }
    }

    /// The chain is as it must be. After a pull QEMU may still have the tables of the kept volume in
    /// its memory alone, while no header names any more where the data came from; after a commit as long
    /// as it has that volume open for writing, as an earlier job may have left it. It writes them out
    /// when the guest's processors are stopped; a guest that stands still already waits.
    pub(super) fn verify(&self) -> Step {
        if self.may_lack_data() {
            return self.runs_without_data();
        }
        let unflushed = match self.record.kind {
            MergeKind::Pull => true,
            MergeKind::Commit => self.disk.unflushed.contains(&self.record.kept),
            MergeKind::ActiveCommit | MergeKind::OfflineCommit => false,
        };
        match (unflushed, self.state) {
            (true, VmState::Running) => {
                self.enter(Window::Suspending, Some(self.now), Some(Action::Suspend))
            }
            (true, _) => Step::Wait(self.policy.look_every),
            (false, _) => Step::Enter(Phase::Verifying { suspended_at: None }, None),
        }
    }

    /// Nothing is taken for cancelled while a job may still work on the chain.
    pub(super) fn cancelling(&self) -> Step {
        if self.merged() {
            return self.verify();
        }
        if let Some(on) = self.late_pivot() {
            return on;
        }
        if self.ending_job() {
            return Step::Wait(REPEAT_AFTER);
        }
        if self.stale_mark() {
            return self.lost_by_libvirt();
        }
        if self.foreign_job() {
            return if self.seen.fresh_start || self.settled_in_phase() {
                self.disk_taken()
            } else {
                Step::Wait(REPEAT_AFTER)
            };
        }
        if self.unmarked() && self.settled_in_phase() {
            // libvirt cannot end such a job but by a pivot: the merge goes on.
            return self.copies();
        }
        if self.job_present() {
            return if self.seen.fresh_start || self.settled_in_phase() {
                self.cancel()
            } else {
                Step::Wait(REPEAT_AFTER)
            };
        }
        if !self.settled() && self.job_failed().is_none() {
            return Step::Wait(REPEAT_AFTER);
        }
        if self.neighbours() {
            Step::Finish(Outcome::Cancelled)
        } else if self.settled() {
            self.diverged()
        } else {
            Step::Wait(REPEAT_AFTER)
        }
    }

    pub(super) fn cancel(&self) -> Step {
        let since = self.now;
        Step::Enter(Phase::Cancelling { since }, Some(Action::AbortJob))
    }

    pub(super) fn copies(&self) -> Step {
        let since = self.now;
        Step::Enter(
            Phase::Copying {
                starts: NO_MORE_STARTS,
                since,
            },
            None,
        )
    }

    pub(super) fn verifying(&self, suspended_at: Option<Timestamp>) -> Step {
        if !self.removed_seen() && self.would_start_from_removed() && self.repeat() {
            let again = Phase::Verifying { suspended_at };
            return Step::Enter(again, Some(Action::SetNextStart));
        }
        if suspended_at.is_some() && self.state == VmState::Paused && !self.may_run() {
            return if self.repeat() {
                Step::Enter(Phase::Verifying { suspended_at }, Some(Action::Resume))
            } else {
                Step::Wait(REPEAT_AFTER)
            };
        }
        if self.merged() {
            Step::Finish(Outcome::Merged)
        } else if !self.settled_in_phase() || self.switched_unnoticed() {
            Step::Wait(REPEAT_AFTER)
        } else {
            self.diverged()
        }
    }

    /// QEMU has ended. What was verified before stays true; anything else has failed.
    pub(super) fn shut_off(&self) -> Step {
        let verified = matches!(self.record.phase, Phase::Verifying { .. });
        let next_without = self.disk.next_start.as_ref();
        let next_without = next_without.is_some_and(|next| !self.record.removed.contains(next));
        if verified && next_without && !self.removed_seen() {
            return Step::Finish(Outcome::Merged);
        }
        if self.lost_the_copied() {
            return self.restore();
        }
        self.died()
    }

    /// It was shut off with the removed layers out of the chain, and runs again.
    pub(super) fn restoring(&self) -> Step {
        if self.removed_seen() {
            self.died()
        } else {
            self.runs_without_data()
        }
    }

    fn died(&self) -> Step {
        fail(
            Reason::VmDied,
            self.record,
            "the virtual machine stopped during the merge",
        )
    }

    /// Somebody has started a machine whose disk is merged while it is shut off. Who holds the
    /// images' locks goes on: while our job is there, QEMU is about to be refused.
    pub(super) fn started(&self) -> Step {
        if self.merged() {
            return Step::Finish(Outcome::Merged);
        }
        if self
            .job
            .is_some_and(|job| job.kind == BlockJobKind::Offline)
        {
            return Step::Wait(self.policy.look_every);
        }
        if matches!(self.record.phase, Phase::Cancelling { .. }) && self.neighbours() {
            return Step::Finish(Outcome::Cancelled);
        }
        let text = "the virtual machine was started: delete again";
        fail(Reason::ConcurrentChange, self.record, text)
    }

    pub(super) fn start_job(&self, starts: u32) -> Step {
        Step::Enter(
            Phase::Copying {
                starts,
                since: self.now,
            },
            Some(Action::StartJob),
        )
    }

    pub(super) fn disk_taken(&self) -> Step {
        let text = "another block job has taken the disk";
        fail(Reason::ConcurrentChange, self.record, text)
    }

    pub(super) fn lost_by_libvirt(&self) -> Step {
        let text =
            "libvirt shows a block job that QEMU has no more, until the machine starts again";
        fail(Reason::MergeIoError, self.record, text)
    }

    pub(super) fn diverged(&self) -> Step {
        let text = "the chain is no longer the one that the merge was ordered for";
        fail(Reason::ChainDiverged, self.record, text)
    }

    pub(super) fn job_failed(&self) -> Option<Step> {
        let io = Reason::MergeIoError;
        let (reason, text) = match self.seen.told.as_ref()? {
            Told::Job(BlockJobOutcome::Failed) => (io, "the block job failed"),
            Told::Job(BlockJobOutcome::Cancelled) => {
                (io, "the block job was cancelled from outside")
            }
            Told::Job(BlockJobOutcome::Damaged) => (
                Reason::ChainCorrupt,
                "qemu-img check finds the kept volume damaged after the copy: the chain is as it was, and \
                 nothing is removed",
            ),
            Told::Job(BlockJobOutcome::Ready | BlockJobOutcome::Completed)
            | Told::Refused(_)
            | Told::NotStarted(_) => return None,
        };
        Some(fail(reason, self.record, text))
    }
}

/// Nobody defines the machine any more. What was written out below another layer is merged for whoever
/// defines it again; what may not have been is told, because nobody can put the header right now.
fn gone(record: &MergeRecord) -> Step {
    let text = "the virtual machine is no longer defined";
    match (&record.relinked, &record.phase) {
        (Some(_), Phase::Verifying { .. }) => Step::Finish(Outcome::Merged),
        (Some(relinked), phase) if !matches!(phase, Phase::Pending) => {
            lacks_data(record, relinked, text)
        }
        _ => fail(Reason::VmDied, record, text),
    }
}

/// The disk is gone from the machine. A guest that stands still for its sake runs again first.
fn without_disk(record: &MergeRecord, seen: &Observation, state: VmState, now: Timestamp) -> Step {
    let (suspended_at, phase) = match &record.phase {
        Phase::Pivoting { suspended_at, .. } => {
            let released = Phase::Pivoting {
                window: Window::Releasing,
                since: now,
                suspended_at: *suspended_at,
            };
            (*suspended_at, released)
        }
        Phase::Verifying { suspended_at } => (*suspended_at, record.phase.clone()),
        _ => (None, record.phase.clone()),
    };
    if suspended_at.is_none() || state != VmState::Paused || seen.lacks_room {
        let text = "the virtual machine no longer has the disk";
        return fail(Reason::DiskNotFound, record, text);
    }
    if seen.fresh_start || seen.in_phase >= REPEAT_AFTER {
        Step::Enter(phase, Some(Action::Resume))
    } else {
        Step::Wait(REPEAT_AFTER)
    }
}

pub(super) fn fail(reason: Reason, record: &MergeRecord, text: &str) -> Step {
    let order = &record.order;
    let removed = order.removed.iter().map(|mark| mark.volume.to_string());
    let removed = removed.collect::<Vec<_>>().join(" ");
    let failure = Failure::new(reason, text)
        .with("vm", order.vm)
        .with("disk", &order.disk)
        .with("kept", &order.kept.volume)
        .with("removed", removed);
    Step::Finish(Outcome::Failed(failure))
}
