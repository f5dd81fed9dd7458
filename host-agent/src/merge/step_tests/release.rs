//! Releasing and Verifying: the guest runs again, whatever has happened.

use super::*;

#[test]
fn a_guest_whose_disk_is_gone_runs_again_before_the_merge_fails() {
    let gone = |state| Observation {
        machine: Machine::Seen {
            state,
            disk: None,
            job: None,
        },
        ..late(stopped(MirrorState::Ready))
    };
    for window in [Window::Suspending, Window::Intent, Window::Releasing] {
        let record = at(pivoting(window));
        assert_eq!(decide(&record, &gone(VmState::Paused)), released());
        let running = decide(&record, &gone(VmState::Running));
        assert_eq!(failed_with(&running), Some(Reason::DiskNotFound));
    }
}

#[test]
fn a_restart_after_the_pivot_writes_it_down_before_the_guest_runs() {
    for window in [Window::Intent, Window::Releasing] {
        let done = seen(VmState::Paused, disk(&AFTER), None);
        let fresh = Observation {
            fresh_start: true,
            ..done
        };
        let next = decide(&at(pivoting(window)), &fresh);
        let verified = Phase::Verifying {
            suspended_at: Some(now()),
        };
        assert_eq!(
            next,
            Step::Enter(verified, Some(Action::Resume)),
            "{window:?}"
        );
    }
}

#[test]
fn a_refused_pivot_is_cleared_before_the_guest_runs() {
    let mut refused = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    refused.told = Some(Told::Refused("no".to_owned()));
    let next = decide(&at(pivoting(Window::Intent)), &refused);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
    );
}

/// Whoever called it off does not find it copying again.
#[test]
fn a_job_that_was_called_off_in_the_pivot_is_known_to_be_once_the_guest_runs() {
    use BlockJobOutcome::{Cancelled, Failed, Ready};
    let cancelled = Told::Job(Cancelled);
    let (ready, resumes) = (Phase::Ready { not_before: now() }, Some(Action::Resume));
    assert!(cancelled.outlives(&pivoting(Window::Releasing), resumes));
    assert!(cancelled.outlives(&ready, None));
    let suspends = Some(Action::Suspend);
    assert!(!cancelled.outlives(&pivoting(Window::Suspending), suspends));
    assert!(!cancelled.outlives(&copying(), Some(Action::StartJob)));
    let called_off = Observation {
        told: Some(cancelled),
        ..seen(VmState::Running, disk(&BEFORE), None)
    };
    let next = decide(&at(ready.clone()), &called_off);
    assert_eq!(failed_with(&next), Some(Reason::MergeIoError));
    // What failed is known until it is asked for again.
    let failed = Told::Job(Failed);
    assert!(failed.outlives(&copying(), None));
    assert!(!failed.outlives(&copying(), Some(Action::StartJob)));
    // A refusal says more than an event, but not than that one.
    let refused = Told::Refused("no".to_owned());
    assert!(!refused.outlives(&ready, None));
    assert!(refused.gives_way_to(Cancelled) && !refused.gives_way_to(Failed));
    assert!(Told::Job(Ready).gives_way_to(Failed));
}

#[test]
fn a_guest_that_does_not_run_again_is_asked_again() {
    let stopped = seen(VmState::Paused, disk(&AFTER), None);
    let record = at(Phase::Verifying {
        suspended_at: Some(now()),
    });
    assert!(matches!(decide(&record, &stopped), Step::Wait(_)));
    let late = Observation {
        in_phase: Duration::from_millis(100),
        ..stopped
    };
    assert!(matches!(
        decide(&record, &late),
        Step::Enter(_, Some(Action::Resume))
    ));
}

#[test]
fn a_dead_machine_fails_the_merge_in_every_phase_but_the_verified_one() {
    let mut off = disk(&["top"]);
    off.next_start = disk(&BEFORE).next_start;
    let off = seen(VmState::ShutOff, off, None);
    for phase in [
        Phase::Pending,
        copying(),
        Phase::Ready { not_before: now() },
        pivoting(Window::Suspending),
        pivoting(Window::Intent),
        pivoting(Window::Releasing),
        Phase::Verifying { suspended_at: None },
    ] {
        assert_eq!(
            failed_with(&decide(&at(phase.clone()), &off)),
            Some(Reason::VmDied),
            "{phase:?}"
        );
    }
    let base = seen(VmState::ShutOff, disk(&["base"]), None);
    let verified = at(Phase::Verifying { suspended_at: None });
    assert_eq!(decide(&verified, &base), Step::Finish(Outcome::Merged));
}
