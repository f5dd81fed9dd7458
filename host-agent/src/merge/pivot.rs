//! The decisions from a copy that has caught up to the guest on the kept volume. Pure.
//!
//! Which volume is the truth if QEMU dies is never in doubt: see [`Window`].

use super::ladder::tries_since_help;
use super::look::{Look, REPEAT_AFTER};
use super::policy::PivotMode;
use super::step::{Action, Step};
use super::types::{Phase, Window};
use crate::hypervisor::{MirrorState, VmState};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

impl Look<'_> {
    pub(super) fn ready(&self, not_before: Timestamp) -> Step {
        if self.merged() {
            return self.put_off(not_before).unwrap_or_else(|| self.verify());
        }
        if let Some(on) = self.late_pivot() {
            return on;
        }
        if self.foreign_job() {
            return self.disk_taken();
        }
        if self.given_up() {
            return self.cancel();
        }
        if !self.mirror_ready() && !self.unmarked_ready() {
            if self.stale_mark() {
                return self.lost_by_libvirt();
            }
            if self.job_present() {
                return Step::Wait(self.policy.look_every);
            }
            return self.copy_again();
        }
        if !self.seen.peers.ready {
            return Step::Wait(self.policy.look_every);
        }
        if let Some(help) = self.help() {
            return help;
        }
        if let Some(wait) = self.put_off(not_before) {
            return wait;
        }
        match self.policy.pivot {
            PivotMode::Running => self.enter(Window::Intent, None, Some(Action::Pivot)),
            // For want of room too: the kept volume has it, so the pivot is what lets it go on. Told to
            // stand still, it is let run by nobody else meanwhile.
            PivotMode::Suspended if self.may_run() => {
                self.enter(Window::Suspending, Some(self.now), Some(Action::Suspend))
            }
            // Somebody else had stopped the processors: they stay as they are.
            PivotMode::Suspended => self.enter(Window::Suspending, None, None),
        }
    }

    pub(super) fn put_off(&self, not_before: Timestamp) -> Option<Step> {
        let left = until(self.now, not_before);
        // More is left than there ever was when the clock was set back since.
        (left > Duration::ZERO && left <= self.policy.retry.most()).then_some(Step::Wait(left))
    }

    pub(super) fn pivoting(&self, window: Window, suspended_at: Option<Timestamp>) -> Step {
        let resume = suspended_at.map(|_| Action::Resume);
        let done = if self.record.pivots() {
            window != Window::Suspending
        } else {
            self.state == VmState::Paused && !self.may_lack_data()
        };
        if self.merged() && done {
            return Step::Enter(Phase::Verifying { suspended_at }, resume);
        }
        let release = || self.enter(Window::Releasing, suspended_at, resume);
        match window {
            // Somebody else has asked for it. What holds after the intent holds for that one, too.
            Window::Suspending if self.pivot_asked() && self.removed_seen() => {
                self.intent(suspended_at, resume).unwrap_or_else(release)
            }
            Window::Suspending if self.seen.fresh_start || self.refused() => release(),
            Window::Suspending if self.record.pivots() && !self.may_pivot() => release(),
            Window::Suspending | Window::Intent if self.may_lack_data() => release(),
            Window::Suspending if self.both_read_the_same() => {
                self.enter(Window::Intent, suspended_at, Some(Action::Pivot))
            }
            Window::Suspending if self.seen.in_phase >= self.policy.pause_limit => release(),
            Window::Suspending => Step::Wait(Duration::from_millis(2)),
            Window::Intent => self.intent(suspended_at, resume).unwrap_or_else(release),
            Window::Releasing if self.switched() == Some(true) => {
                self.enter(Window::Intent, suspended_at, Some(Action::SetNextStart))
            }
            Window::Releasing if self.cannot_be_told() => Step::Wait(REPEAT_AFTER),
            Window::Releasing if suspended_at.is_none() || self.may_run() => {
                let tries = tries_since_help(self.record);
                let pause = self.policy.retry.after(tries, self.record.order.id);
                let not_before = later(self.now, pause);
                Step::Enter(Phase::Ready { not_before }, None)
            }
            Window::Releasing if self.repeat() => release(),
            Window::Releasing => Step::Wait(REPEAT_AFTER),
        }
    }

    /// A pivot may have been asked for. It is called off (`None`) only when none can be on its way:
    /// a guest that writes again while QEMU switches could die with its writes in either volume.
    pub(super) fn intent(
        &self,
        suspended_at: Option<Timestamp>,
        resume: Option<Action>,
    ) -> Option<Step> {
        let wait = Some(Step::Wait(Duration::from_millis(10)));
        let late = self.seen.in_phase >= self.policy.pivot_limit;
        let mirror = self.disk.mirror.as_ref();
        let lost = self.pivot_asked() && self.job.is_none() && late;
        let switched = self.switched();
        // Whatever the mark says: a libvirt that was away meanwhile may show it as it was.
        if !self.removed_seen() || late && switched == Some(true) {
            // QEMU has switched. The guest writes nothing before the next start would read it.
            if !self.seen.fresh_start && !late {
                return wait;
            }
            return Some(if self.would_start_from_removed() {
                self.enter(Window::Intent, suspended_at, Some(Action::SetNextStart))
            } else {
                Step::Enter(Phase::Verifying { suspended_at }, resume)
            });
        }
        if self.cannot_be_told() {
            return wait;
        }
        match mirror.map(|mirror| mirror.state) {
            // libvirt waits for a job that QEMU has no more.
            Some(MirrorState::Pivoting) if lost && switched == Some(false) => None,
            Some(MirrorState::Pivoting) => wait,
            _ if switched == Some(true) => wait,
            _ if self.refused() => None,
            // An earlier process stopped here. Nobody has written since, so it is asked for again.
            Some(MirrorState::Ready) if self.seen.fresh_start => self
                .both_read_the_same()
                .then(|| self.enter(Window::Intent, suspended_at, Some(Action::Pivot))),
            _ if late => None,
            _ => wait,
        }
    }

    /// libvirt shows that a pivot was asked for: QEMU may switch at any time, however long that takes.
    fn pivot_asked(&self) -> bool {
        let mirror = self.disk.mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.state == MirrorState::Pivoting)
    }

    /// On with a pivot that was called off and has come about all the same: there is no way back.
    pub(super) fn late_pivot(&self) -> Option<Step> {
        let switched = self.record.pivots() && self.switched() == Some(true);
        switched.then(|| self.enter(Window::Intent, None, Some(Action::SetNextStart)))
    }

    /// QEMU writes the kept volume alone and still has the job, of whose end libvirt has not heard yet.
    pub(super) fn switched_unnoticed(&self) -> bool {
        self.job.is_some() && !self.foreign_job() && self.switched() == Some(true)
    }

    /// Whether QEMU writes the kept volume alone, whatever libvirt's mark says.
    fn switched(&self) -> Option<bool> {
        self.disk.mirror.as_ref()?.switched
    }

    /// The job is gone and libvirt still shows it: whichever volume QEMU writes now, the guest shall
    /// not, before that is known.
    fn cannot_be_told(&self) -> bool {
        self.job.is_none() && self.disk.mirror.is_some() && self.switched().is_none()
    }

    pub(super) fn enter(
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
}

/// Whether a guest that stands still is let run although the journal cannot be written, and says what it
/// said. The way back from the intent must stand there first: the guest would write the overlay, and
/// whoever starts again would ask for the same pivot. Everywhere else what the next start would open
/// is what the guest writes, whatever comes.
pub fn runs_unwritten(written: &Phase, next: &Phase, action: Option<Action>) -> bool {
    let window = |phase: &Phase| match phase {
        Phase::Pivoting { window, .. } => Some(*window),
        _ => None,
    };
    written.suspended()
        && match (window(written), window(next)) {
            // No pivot was asked for, but by somebody else: QEMU has switched then, and the definition names
            // what the guest does not write, until the next start is set.
            (Some(Window::Suspending), _) => action != Some(Action::SetNextStart),
            (Some(Window::Intent), Some(Window::Releasing)) => false,
            _ => action == Some(Action::Resume),
        }
}

/// Whether a pivot that was tried is put off with this step.
pub(super) fn is_put_off(before: &Phase, next: &Phase) -> bool {
    matches!(
        (before, next),
        (Phase::Pivoting { .. }, Phase::Ready { .. })
    )
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
