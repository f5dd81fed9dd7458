//! What a merge waits for outside itself, with the cause and the next try: shown on the board, never
//! written down.
//!
//! | waits for | until |
//! |---|---|
//! | the journal, which cannot be written | a write succeeds |
//! | libvirt, which does not answer | the machine is seen |
//! | a guest that stands still for want of room, before its pivot | it runs, or is switched |
//! | a pivot that was asked for, and whose end is not seen | it is seen |
//! | a pivot that was put off | the guest is switched |
//! | a job that has failed, or lacks room, and is started again | it runs |
//!
//! A copy that runs, and a merge whose turn has not come, wait for nothing that is in their way.

use super::again::most_starts;
use super::board::Waiting;
use super::step::{Machine, Observation, Told};
use super::types::{MergeRecord, Phase, Window};
use crate::hypervisor::{BlockJobOutcome, MirrorState};
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::failure::Failure;
use livemerge_proto::ids::MergeId;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Backoff, Tries};
use std::time::Duration;

/// Between two tries to write the journal. A guest may stand still until it can be written.
const JOURNAL: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// Between two calls of a libvirt that does not answer.
const HYPERVISOR: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// The tries of one merge that have failed in a row.
pub(super) struct Waits {
    journal: Tries,
    hypervisor: Tries,
    /// Looks at a guest that stands still for want of room.
    without_room: u32,
    /// A pivot whose end is not seen, as it was told of last.
    unended: Option<Waiting>,
}

impl Waits {
    pub(super) fn new(merge: MergeId) -> Self {
        Self {
            journal: Tries::new(JOURNAL, (merge, "journal")),
            hypervisor: Tries::new(HYPERVISOR, (merge, "hypervisor")),
            without_room: 0,
            unended: None,
        }
    }

    /// The journal could not be written. Gives the pause before the next try.
    pub(super) fn journal_failed(&mut self, now: Timestamp) -> (Waiting, Duration) {
        let pause = self.journal.failed();
        let text = "the agent's journal cannot be written";
        let cause = Failure::new(Reason::StoreUnavailable, text);
        (waiting(cause, now, pause, self.journal.count()), pause)
    }

    /// It was written.
    pub(super) fn journal_written(&mut self) {
        self.journal.succeeded();
    }

    /// libvirt did not answer. Gives the pause before the next try, which is no longer than this.
    pub(super) fn unanswered(&mut self, now: Timestamp, most: Duration) -> (Waiting, Duration) {
        let pause = self.hypervisor.failed().min(most);
        let cause = Failure::new(Reason::HypervisorUnreachable, "libvirt does not answer");
        (waiting(cause, now, pause, self.hypervisor.count()), pause)
    }

    /// Whether the guest stands still for want of room, and is not switched yet. Each look counts as
    /// a try, so that one that stays so is told of.
    pub(super) fn lacks_room(
        &mut self,
        record: &MergeRecord,
        seen: &Observation,
        now: Timestamp,
        pause: Duration,
    ) -> Option<Waiting> {
        if !seen.lacks_room || !matches!(record.phase, Phase::Ready { .. }) {
            self.without_room = 0;
            return None;
        }
        self.without_room = self.without_room.saturating_add(1);
        let text = "the guest stands still because a disk has no room, until it has some or is \
                    switched; free some in its storage domain, or add to it";
        let cause = Failure::new(Reason::InsufficientSpace, text);
        let cause = cause.with("vm", record.order.vm);
        Some(waiting(cause, now, pause, self.without_room))
    }

    /// Whether a pivot was asked for longer ago than `limit`, and its end is not seen. There is nothing to
    /// do but to wait: QEMU may switch at any time. Each further such time counts as a try.
    pub(super) fn pivot_unended(
        &mut self,
        record: &MergeRecord,
        seen: &Observation,
        limit: Duration,
        now: Timestamp,
    ) -> Option<Waiting> {
        let limit = limit.max(Duration::from_millis(1));
        let times = seen.in_phase.as_millis() / limit.as_millis();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        if times == 0 || !asked_to_pivot(record, seen) {
            self.unended = None;
            return None;
        }
        if self
            .unended
            .as_ref()
            .is_none_or(|told| told.attempts < times)
        {
            let cause = pivot_has_no_end(record);
            tracing::warn!(merge = %record.order.id, vm = %record.order.vm, disk = %record.order.disk, since = ?seen.in_phase, "{}", cause.message);
            self.unended = Some(waiting(cause, now, limit, times));
        }
        self.unended.clone()
    }

    /// It answered.
    pub(super) fn answered(&mut self) {
        self.hypervisor.succeeded();
    }
}

/// By this merge, or by somebody else while it holds the guest.
fn asked_to_pivot(record: &MergeRecord, seen: &Observation) -> bool {
    let Phase::Pivoting { window, .. } = record.phase else {
        return false;
    };
    let Machine::Seen {
        disk: Some(disk), ..
    } = &seen.machine
    else {
        return false;
    };
    let mirror = disk.mirror.as_ref();
    window != Window::Suspending || mirror.is_some_and(|it| it.state == MirrorState::Pivoting)
}

fn pivot_has_no_end(record: &MergeRecord) -> Failure {
    let text = "a pivot was asked for, and its end is not seen: QEMU may wait for the storage of the \
                volume that is kept";
    let stands = if record.phase.suspended() {
        "; the guest stands still until then"
    } else {
        ""
    };
    let cause = Failure::new(Reason::StorageUnreachable, format!("{text}{stands}"));
    cause
        .with("vm", record.order.vm)
        .with("disk", &record.order.disk)
        .with("kept", &record.order.kept.volume)
}

/// That the pivot was put off, and has not been done since. While one is tried that is shown still.
pub(super) fn put_off(record: &MergeRecord, now: Timestamp) -> Option<Waiting> {
    let begun = record.pivot_attempts;
    let (next_try_at, put_off) = match record.phase {
        Phase::Ready { not_before } => (not_before.max(now), begun),
        Phase::Pivoting { since, .. } => (since, begun.saturating_sub(1)),
        _ => return None,
    };
    let text =
        format!("the pivot was put off {put_off} times: the guest is to stand still no longer");
    let cause = Failure::new(Reason::PivotPutOff, text).with("pivots", put_off);
    (put_off > 0).then_some(Waiting {
        cause,
        next_try_at,
        attempts: put_off,
    })
}

/// That the job has failed, or was not given room, and is started again after a pause. Not while it is
/// there, nor when it is given up after that.
pub(super) fn job_failed(
    record: &MergeRecord,
    seen: &Observation,
    now: Timestamp,
    pause: Duration,
) -> Option<Waiting> {
    let Machine::Seen {
        job: None,
        disk: Some(disk),
        ..
    } = &seen.machine
    else {
        return None;
    };
    let told = seen.told.as_ref().filter(|_| disk.mirror.is_none())?;
    again_for(record, told, now, pause)
}

/// The same of a job that is known not to be there.
pub(super) fn again_for(
    record: &MergeRecord,
    told: &Told,
    now: Timestamp,
    pause: Duration,
) -> Option<Waiting> {
    let starts = match record.phase {
        Phase::Copying { starts, .. } => starts,
        Phase::Ready { .. } => record.starts.max(1),
        _ => return None,
    };
    let is_left = starts < most_starts(record);
    let again = |why: &str| {
        let text = format!("{why}: it is started again, in case the storage was away or full");
        Failure::new(Reason::MergeIoError, text)
    };
    let cause = match told {
        Told::Job(BlockJobOutcome::Failed) if is_left => again("the block job failed"),
        Told::Refused(why) if is_left => again(why),
        Told::NotStarted(problem) => Failure::new(problem.reason, &problem.message),
        Told::Refused(_) | Told::Job(_) => return None,
    };
    let cause = cause.with("starts", starts);
    Some(waiting(cause, now, pause, starts))
}

fn waiting(cause: Failure, now: Timestamp, pause: Duration, attempts: u32) -> Waiting {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    Waiting {
        cause,
        next_try_at: now.saturating_add(pause).unwrap_or(Timestamp::MAX),
        attempts,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{disk, job, mirror, now, record, seen};
    use super::*;
    use crate::hypervisor::{BlockJobKind, DiskView, VmState};
    use livemerge_proto::problem::Problem;

    #[test]
    fn a_pivot_that_was_put_off_is_shown_until_the_guest_is_switched() {
        let later = now() + SignedDuration::from_secs(1);
        let pivoting = |window| Phase::Pivoting {
            window,
            since: now(),
            suspended_at: Some(now()),
        };
        let of = |phase, pivot_attempts| {
            let record = MergeRecord {
                phase,
                pivot_attempts,
                ..record(true)
            };
            put_off(&record, now())
        };
        assert_eq!(of(Phase::Ready { not_before: later }, 0), None);
        assert_eq!(of(pivoting(Window::Suspending), 1), None, "the first one");
        let put_off = of(Phase::Ready { not_before: later }, 1).unwrap();
        assert_eq!(put_off.cause.reason, Reason::PivotPutOff);
        assert_eq!((put_off.next_try_at, put_off.attempts), (later, 1));
        let again = of(pivoting(Window::Intent), 3).unwrap();
        assert_eq!((again.next_try_at, again.attempts), (now(), 2));
        assert_eq!(of(Phase::Verifying { suspended_at: None }, 3), None);
    }

    #[test]
    fn a_guest_without_room_is_shown_with_its_cause_and_counted_until_it_has_some() {
        let mut waits = Waits::new(record(true).order.id);
        let pause = Duration::from_secs(2);
        let mut shown = |phase, lacks_room| {
            let record = MergeRecord {
                phase,
                ..record(true)
            };
            let seen = Observation {
                lacks_room,
                ..seen(VmState::Paused, disk(&["base", "top"]), None)
            };
            waits.lacks_room(&record, &seen, now(), pause)
        };
        let ready = || Phase::Ready { not_before: now() };
        for attempts in [1, 2, 3] {
            let shown = shown(ready(), true).unwrap();
            assert_eq!(shown.cause.reason, Reason::InsufficientSpace);
            assert_eq!(shown.attempts, attempts);
            assert_eq!(shown.next_try_at, now() + SignedDuration::from_secs(2));
        }
        assert_eq!(shown(ready(), false), None);
        assert_eq!(shown(ready(), true).unwrap().attempts, 1);
        assert_eq!(shown(Phase::Verifying { suspended_at: None }, true), None);
    }

    #[test]
    fn a_pivot_without_an_end_is_shown_from_its_limit_on_and_not_anew_with_each_look() {
        let limit = Duration::from_secs(2);
        let mut waits = Waits::new(record(true).order.id);
        let mut shown = |window, state, in_phase, suspended_at, now| {
            let phase = Phase::Pivoting {
                window,
                since: now,
                suspended_at,
            };
            let record = MergeRecord {
                phase,
                ..record(true)
            };
            let pivots = DiskView {
                mirror: mirror(state),
                ..disk(&["base", "top"])
            };
            let seen = Observation {
                in_phase: Duration::from_millis(in_phase),
                ..seen(VmState::Paused, pivots, None)
            };
            waits.pivot_unended(&record, &seen, limit, now)
        };
        let (asked, stopped) = (MirrorState::Pivoting, Some(now()));
        assert_eq!(shown(Window::Intent, asked, 1999, stopped, now()), None);
        let first = shown(Window::Intent, asked, 2000, stopped, now()).unwrap();
        assert_eq!(first.cause.reason, Reason::StorageUnreachable);
        assert!(first.cause.message.contains("the guest stands still"));
        assert_eq!(first.attempts, 1);
        let later = now() + SignedDuration::from_secs(1);
        let same = shown(Window::Intent, asked, 3000, stopped, later);
        assert_eq!(same, Some(first));
        let third = shown(Window::Intent, asked, 6500, stopped, later).unwrap();
        assert_eq!(third.attempts, 3);
        let runs = shown(Window::Intent, asked, 9000, None, later).unwrap();
        assert!(!runs.cause.message.contains("the guest stands still"));
        // Somebody else's, and none at all.
        let ready = MirrorState::Ready;
        assert!(shown(Window::Suspending, asked, 2000, stopped, later).is_some());
        assert_eq!(shown(Window::Suspending, ready, 9000, stopped, later), None);
    }

    #[test]
    fn a_job_that_has_failed_is_shown_until_it_is_started_again() {
        let of = |phase, told: &Told, job| {
            let record = MergeRecord {
                phase,
                starts: 1,
                ..record(true)
            };
            let seen = Observation {
                told: Some(told.clone()),
                ..seen(VmState::Running, disk(&["base", "top"]), job)
            };
            job_failed(&record, &seen, now(), Duration::from_secs(2))
        };
        let copying = |starts| Phase::Copying {
            starts,
            since: now(),
        };
        let failed = Told::Job(BlockJobOutcome::Failed);
        let shown = of(copying(2), &failed, None).unwrap();
        assert_eq!(shown.cause.reason, Reason::MergeIoError);
        let next = now() + SignedDuration::from_secs(2);
        assert_eq!((shown.next_try_at, shown.attempts), (next, 2));
        let caught_up = of(Phase::Ready { not_before: now() }, &failed, None);
        assert_eq!(caught_up.unwrap().cause.reason, Reason::MergeIoError);
        assert_eq!(
            of(copying(2), &Told::Job(BlockJobOutcome::Ready), None),
            None
        );
        let refused = Told::Refused("no".to_owned());
        let no_room = Told::NotStarted(Problem::new(Reason::StorageUnreachable, "away"));
        for told in [&failed, &refused] {
            assert_eq!(of(copying(3), told, None), None, "it is given up then");
        }
        assert!(
            of(copying(3), &no_room, None).is_some(),
            "no job has failed"
        );
        let runs = job(BlockJobKind::ActiveCommit, 5, 9);
        for told in [&failed, &refused, &no_room] {
            assert_eq!(of(copying(2), told, runs), None, "it runs");
        }
    }

    #[test]
    fn each_try_comes_later_until_one_succeeds() {
        let mut waits = Waits::new(record(true).order.id);
        let mut before = Duration::ZERO;
        for attempts in [1, 2] {
            let (shown, pause) = waits.journal_failed(now());
            assert_eq!(shown.cause.reason, Reason::StoreUnavailable);
            assert_eq!(shown.attempts, attempts);
            assert_eq!(
                shown.next_try_at.duration_since(now()),
                pause.try_into().unwrap()
            );
            assert!(pause > before);
            before = pause;
        }
        waits.journal_written();
        assert_eq!(waits.journal_failed(now()).0.attempts, 1);
        let (shown, pause) = waits.unanswered(now(), Duration::from_millis(10));
        assert_eq!(shown.cause.reason, Reason::HypervisorUnreachable);
        assert_eq!(pause, Duration::from_millis(10));
    }
}
