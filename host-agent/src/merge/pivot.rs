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
        if self.seen.lacks_room {
            // Whoever gives it room lets it run, whatever is being pivoted.
            return Step::Wait(self.policy.look_every);
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
            Window::Releasing if suspended_at.is_none() || self.state == VmState::Running => {
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
        let lost = mirror.is_some_and(|mirror| mirror.state == MirrorState::Pivoting)
            && self.job.is_none()
            && late;
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

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
