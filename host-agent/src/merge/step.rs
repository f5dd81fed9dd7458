//! What to do next with a merge: a pure function of the record and what was just observed.
//!
//! Acting is left to the driver. Nothing here reads a clock, a file or a hypervisor.

use super::types::{MergeRecord, Phase, Window};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, DiskView, JobProgress, MirrorState, VmState,
};
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::failure::Failure;
use livemerge_proto::reason::Reason;
use std::time::Duration;

/// How often the block job is asked for again when nothing says what became of it.
const MAX_STARTS: u32 = 3;
/// The same action is asked for again when it has shown no effect for so long.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// The bounds that a merge keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether the guest's processors stand still while it is switched to the base.
    pub pivot: PivotMode,
    /// How long the processors may stand still before the pivot is called off and tried later.
    pub pause_limit: Duration,
    /// How long a pivot that was asked for may show no effect.
    pub pivot_limit: Duration,
    /// Time between two tries of the pivot.
    pub retry_after: Duration,
    /// How long an expected block job may be missing before it counts as gone: libvirt updates
    /// its definition a moment after QEMU has ended a job.
    pub settle: Duration,
    /// Time between two looks at a copy, for its progress. Its end is told by an event.
    pub look_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pivot: PivotMode::Suspended,
            pause_limit: Duration::from_millis(200),
            pivot_limit: Duration::from_secs(2),
            retry_after: Duration::from_secs(1),
            settle: Duration::from_secs(2),
            look_every: Duration::from_millis(500),
        }
    }
}

/// Whether the guest runs while it is switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PivotMode {
    /// Its processors stand still: if QEMU dies, there is no doubt which volume is the truth.
    Suspended,
    /// It runs: if QEMU dies within the window, the merge fails and both volumes are kept.
    Running,
}

/// What was seen just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The machine and its disk.
    pub machine: Machine,
    /// What an event or a refusal said since the last action.
    pub told: Option<Told>,
    /// How long this process has had the record in its present phase. Monotonic.
    pub in_phase: Duration,
    /// How long the expected block job has been missing. Zero when it is there.
    pub job_missing_for: Duration,
    /// Nothing was done since the record was read from the journal: an earlier process may have
    /// stopped anywhere.
    pub fresh_start: bool,
}

/// The machine as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// It cannot be told.
    Unknown,
    /// Certainly not defined.
    Gone,
    /// Seen.
    Seen {
        /// What it does.
        state: VmState,
        /// The disk, if the machine has it.
        disk: Option<DiskView>,
        /// The disk's block job.
        job: Option<JobProgress>,
    },
}

/// What was told beside the observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The block job's event.
    Job(BlockJobOutcome),
    /// The hypervisor understood the last action and said no.
    Refused(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the phase down, then act.
    Enter(Phase, Option<Action>),
    /// Look again after an event, or after this time.
    Wait(Duration),
    /// Write the end down.
    Finish(Outcome),
}

/// What the driver does. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the block job.
    StartCommit,
    /// Stop the guest's processors.
    Suspend,
    /// Switch the guest to the base.
    Pivot,
    /// Let the guest's processors run.
    Resume,
}

/// How a merge ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The chain no longer has `top`.
    Merged,
    /// It does, or it cannot be told.
    Failed(Failure),
}

/// Decides.
pub fn step(record: &MergeRecord, seen: &Observation, policy: &Policy, now: Timestamp) -> Step {
    let (state, disk, job) = match &seen.machine {
        Machine::Unknown => return Step::Wait(policy.look_every),
        Machine::Gone => {
            return fail(
                Reason::VmDied,
                record,
                "the virtual machine is no longer defined",
            );
        }
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
    if state == VmState::ShutOff {
        return look.shut_off();
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
        Phase::Verifying { suspended_at } => look.verifying(*suspended_at),
        Phase::Merged { .. } => Step::Finish(Outcome::Merged),
        Phase::Failed { failure, .. } => Step::Finish(Outcome::Failed(failure.clone())),
    }
}

/// A running machine whose disk could be read.
struct Look<'a> {
    record: &'a MergeRecord,
    seen: &'a Observation,
    policy: &'a Policy,
    now: Timestamp,
    state: VmState,
    disk: &'a DiskView,
    job: Option<JobProgress>,
}

impl Look<'_> {
    fn pending(&self) -> Step {
        if self.merged() {
            return Step::Enter(Phase::Verifying { suspended_at: None }, None);
        }
        if self.job_present() {
            let text = "another block job runs on the disk";
            return fail(Reason::ConcurrentChange, self.record, text);
        }
        if !self.neighbours() {
            return self.diverged();
        }
        self.start_commit(1)
    }

    fn copying(&self, starts: u32) -> Step {
        if self.merged() {
            return Step::Enter(Phase::Verifying { suspended_at: None }, None);
        }
        if let Some(Told::Refused(text)) = &self.seen.told {
            return fail(Reason::MergeIoError, self.record, text);
        }
        if self.foreign_job() {
            let text = "another block job has taken the disk";
            return fail(Reason::ConcurrentChange, self.record, text);
        }
        if self.mirror_ready() || (self.unmarked_ready() && self.settled_in_phase()) {
            return Step::Enter(
                Phase::Ready {
                    not_before: self.now,
                },
                None,
            );
        }
        if self.job_present() {
            return Step::Wait(self.policy.look_every);
        }
        if let Some(failed) = self.job_failed() {
            return failed;
        }
        if !self.settled() {
            return Step::Wait(self.policy.settle);
        }
        if !self.neighbours() {
            return self.diverged();
        }
        if starts < MAX_STARTS {
            return self.start_commit(starts + 1);
        }
        fail(
            Reason::MergeIoError,
            self.record,
            "the block job ended without a merge",
        )
    }

    fn ready(&self, not_before: Timestamp) -> Step {
        if self.merged() {
            return Step::Enter(Phase::Verifying { suspended_at: None }, None);
        }
        if !self.mirror_ready() && !self.unmarked_ready() {
            if self.job_present() {
                return Step::Wait(self.policy.look_every);
            }
            if let Some(failed) = self.job_failed() {
                return failed;
            }
            return if self.settled() {
                fail(
                    Reason::MergeIoError,
                    self.record,
                    "the block job ended before the pivot",
                )
            } else {
                Step::Wait(self.policy.settle)
            };
        }
        let left = until(self.now, not_before);
        // More is left than there ever was when the clock was set back since.
        if left > Duration::ZERO && left <= self.policy.retry_after {
            return Step::Wait(left);
        }
        match (self.policy.pivot, self.state) {
            (PivotMode::Running, _) => self.enter(Window::Intent, None, Some(Action::Pivot)),
            (PivotMode::Suspended, VmState::Running) => {
                self.enter(Window::Suspending, Some(self.now), Some(Action::Suspend))
            }
            // Somebody else had stopped the processors: they stay as they are.
            (PivotMode::Suspended, _) => self.enter(Window::Suspending, None, None),
        }
    }

    fn pivoting(&self, window: Window, suspended_at: Option<Timestamp>) -> Step {
        let resume = suspended_at.map(|_| Action::Resume);
        if self.merged() && window != Window::Suspending {
            return Step::Enter(Phase::Verifying { suspended_at }, resume);
        }
        let release = || self.enter(Window::Releasing, suspended_at, resume);
        match window {
            Window::Suspending if self.seen.fresh_start || self.refused() => release(),
            Window::Suspending if self.both_read_the_same() => {
                self.enter(Window::Intent, suspended_at, Some(Action::Pivot))
            }
            Window::Suspending if self.seen.in_phase >= self.policy.pause_limit => release(),
            Window::Suspending => Step::Wait(Duration::from_millis(2)),
            Window::Intent => self.intent(suspended_at, resume).unwrap_or_else(release),
            Window::Releasing if suspended_at.is_none() || self.state == VmState::Running => {
                let not_before = later(self.now, self.policy.retry_after);
                Step::Enter(Phase::Ready { not_before }, None)
            }
            Window::Releasing if self.repeat() => release(),
            Window::Releasing => Step::Wait(REPEAT_AFTER),
        }
    }

    /// A pivot may have been asked for. It is called off (`None`) only when none can be on its way:
    /// a guest that writes again while QEMU switches could die with its writes in either volume.
    fn intent(&self, suspended_at: Option<Timestamp>, resume: Option<Action>) -> Option<Step> {
        let wait = Some(Step::Wait(Duration::from_millis(10)));
        let late = self.seen.in_phase >= self.policy.pivot_limit;
        if self.disk.position(&self.record.top).is_none() {
            // QEMU has switched; the definition of the next start lags behind.
            let switched = Step::Enter(Phase::Verifying { suspended_at }, resume);
            return if late { Some(switched) } else { wait };
        }
        match self.disk.mirror.as_ref().map(|mirror| mirror.state) {
            Some(MirrorState::Pivoting) => wait,
            _ if self.refused() => None,
            // An earlier process stopped here. Nobody has written since, so it is asked for again.
            Some(MirrorState::Ready) if self.seen.fresh_start => self
                .both_read_the_same()
                .then(|| self.enter(Window::Intent, suspended_at, Some(Action::Pivot))),
            _ if late => None,
            _ => wait,
        }
    }

    fn verifying(&self, suspended_at: Option<Timestamp>) -> Step {
        if suspended_at.is_some() && self.state == VmState::Paused {
            return if self.repeat() {
                Step::Enter(Phase::Verifying { suspended_at }, Some(Action::Resume))
            } else {
                Step::Wait(REPEAT_AFTER)
            };
        }
        if self.merged() {
            Step::Finish(Outcome::Merged)
        } else if !self.settled_in_phase() {
            Step::Wait(REPEAT_AFTER)
        } else {
            self.diverged()
        }
    }

    /// QEMU has ended. What was verified before stays true; anything else has failed.
    fn shut_off(&self) -> Step {
        let verified = matches!(self.record.phase, Phase::Verifying { .. });
        let top = &self.record.top;
        let next_without_top = self
            .disk
            .next_start
            .as_ref()
            .is_some_and(|next| next != top);
        if verified && next_without_top && self.disk.position(top).is_none() {
            return Step::Finish(Outcome::Merged);
        }
        fail(
            Reason::VmDied,
            self.record,
            "the virtual machine stopped during the merge",
        )
    }

    fn start_commit(&self, starts: u32) -> Step {
        Step::Enter(
            Phase::Copying {
                starts,
                since: self.now,
            },
            Some(Action::StartCommit),
        )
    }

    fn enter(
        &self,
        window: Window,
        suspended_at: Option<Timestamp>,
        action: Option<Action>,
    ) -> Step {
        Step::Enter(
            Phase::Pivoting {
                window,
                since: self.now,
                suspended_at,
            },
            action,
        )
    }

    /// The live chain has lost `top` and kept `base`, no job is left, and the next start of the
    /// machine would not open `top` either.
    fn merged(&self) -> bool {
        self.disk.position(&self.record.top).is_none()
            && self.disk.position(&self.record.base).is_some()
            && self.disk.mirror.is_none()
            && self.disk.next_start.as_ref() != Some(&self.record.top)
    }

    fn neighbours(&self) -> bool {
        let base = self.disk.position(&self.record.base);
        let top = self.disk.position(&self.record.top);
        let at_the_end = top.is_some_and(|top| top + 1 == self.disk.chain.len());
        base.is_some() && base.map(|base| base + 1) == top && at_the_end == self.record.active
    }

    fn diverged(&self) -> Step {
        let text = "the chain is no longer the one that the merge was ordered for";
        fail(Reason::ChainDiverged, self.record, text)
    }

    fn job_present(&self) -> bool {
        self.job.is_some() || self.disk.mirror.is_some()
    }

    /// A job that cannot be the one asked for.
    fn foreign_job(&self) -> bool {
        let wanted = if self.record.active {
            BlockJobKind::ActiveCommit
        } else {
            BlockJobKind::Commit
        };
        let mirror = self.disk.mirror.as_ref();
        let base = &self.record.base;
        let elsewhere = mirror
            .and_then(|m| m.target.as_ref())
            .is_some_and(|to| to != base);
        elsewhere
            || mirror.is_some_and(|m| m.kind != wanted)
            || self.job.is_some_and(|j| j.kind != wanted)
    }

    fn mirror_ready(&self) -> bool {
        let mirror = self.disk.mirror.as_ref();
        self.record.active && mirror.is_some_and(|mirror| mirror.state == MirrorState::Ready)
    }

    /// A libvirt that was killed while it started the job has a job without its mark in the
    /// definition, and will never mark it. It can be ended by a pivot all the same once it has
    /// caught up; if QEMU knows better, the pivot is refused and tried again.
    fn unmarked_ready(&self) -> bool {
        let caught_up = |job: JobProgress| {
            job.kind == BlockJobKind::ActiveCommit && job.end > 0 && job.cur == job.end
        };
        self.record.active && self.disk.mirror.is_none() && self.job.is_some_and(caught_up)
    }

    /// A job that was just started has its mark within this time.
    fn settled_in_phase(&self) -> bool {
        self.seen.in_phase >= self.policy.settle
    }

    fn refused(&self) -> bool {
        use BlockJobOutcome::{Cancelled, Failed};
        matches!(
            self.seen.told,
            Some(Told::Refused(_) | Told::Job(Failed | Cancelled))
        )
    }

    /// The guest cannot write and nothing is left to copy.
    fn both_read_the_same(&self) -> bool {
        self.state == VmState::Paused
            && (self.mirror_ready() || self.unmarked_ready())
            && self.job.is_some_and(|job| job.cur == job.end)
    }

    fn job_failed(&self) -> Option<Step> {
        let text = match self.seen.told.as_ref()? {
            Told::Job(BlockJobOutcome::Failed) => "the block job failed",
            Told::Job(BlockJobOutcome::Cancelled) => "the block job was cancelled from outside",
            Told::Job(BlockJobOutcome::Ready | BlockJobOutcome::Completed) | Told::Refused(_) => {
                return None;
            }
        };
        Some(fail(Reason::MergeIoError, self.record, text))
    }

    fn settled(&self) -> bool {
        self.seen.job_missing_for >= self.policy.settle
    }

    fn repeat(&self) -> bool {
        self.seen.fresh_start || self.seen.in_phase >= REPEAT_AFTER
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
    if suspended_at.is_none() || state != VmState::Paused {
        let text = "the virtual machine no longer has the disk";
        return fail(Reason::DiskNotFound, record, text);
    }
    if seen.fresh_start || seen.in_phase >= REPEAT_AFTER {
        Step::Enter(phase, Some(Action::Resume))
    } else {
        Step::Wait(REPEAT_AFTER)
    }
}

fn fail(reason: Reason, record: &MergeRecord, text: &str) -> Step {
    let order = &record.order;
    let failure = Failure::new(reason, text)
        .with("vm", order.vm)
        .with("disk", &order.disk)
        .with("base", &order.base.volume)
        .with("top", &order.top.volume);
    Step::Finish(Outcome::Failed(failure))
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
