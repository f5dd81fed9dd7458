//! The way back.

use super::*;
use crate::merge::again::NO_MORE_STARTS;

#[test]
fn a_job_that_is_given_up_is_asked_to_end_until_it_has() {
    for case in cases() {
        let record = case.at(cancelling());
        let there = case.running(3);
        assert!(waits(&decide(&record, &there)));
        let refused = told(there.clone(), Told::Refused("not now".to_owned()));
        assert!(waits(&decide(&record, &refused)));
        let late = Observation {
            in_phase: settle(),
            ..there.clone()
        };
        assert_eq!(decide(&record, &late), gives_up());
        let fresh = Observation {
            fresh_start: true,
            ..there
        };
        assert_eq!(decide(&record, &fresh), gives_up());
    }
}

#[test]
fn cancelled_is_a_chain_as_before_that_no_job_works_on() {
    for case in cases() {
        let record = case.at(cancelling());
        let just_gone = case.quiet(case.before, Duration::ZERO);
        assert!(waits(&decide(&record, &just_gone)));
        let cancelled = Step::Finish(Outcome::Cancelled);
        assert_eq!(
            decide(&record, &case.quiet(case.before, settle())),
            cancelled
        );
        for outcome in [BlockJobOutcome::Cancelled, BlockJobOutcome::Failed] {
            let told = told(just_gone.clone(), Told::Job(outcome));
            assert_eq!(decide(&record, &told), cancelled);
        }
        // It has done its work, and the chain does not show it yet.
        let done = told(just_gone, Told::Job(BlockJobOutcome::Completed));
        assert!(waits(&decide(&record, &done)));
    }
}

#[test]
fn a_chain_that_has_become_another_one_meanwhile_is_not_called_cancelled() {
    for case in cases() {
        let record = case.at(cancelling());
        let other = &["one", "another"][..];
        let just_now = told(
            case.quiet(other, Duration::ZERO),
            Told::Job(BlockJobOutcome::Cancelled),
        );
        assert!(waits(&decide(&record, &just_now)));
        let next = decide(&record, &case.quiet(other, settle()));
        assert_eq!(failed_with(&next), Some(Reason::ChainDiverged));
    }
}

/// libvirt ends such a job by a pivot alone.
#[test]
fn a_job_without_its_mark_cannot_be_given_up() {
    let case = active_of_three();
    let unmarked = |cur, time| {
        let job = job(BlockJobKind::ActiveCommit, cur, 9);
        Observation {
            in_phase: time,
            ..seen(VmState::Running, disk(case.before), job)
        }
    };
    let record = case.at(cancelling());
    assert!(
        waits(&decide(&record, &unmarked(3, Duration::ZERO))),
        "it may be marked yet"
    );
    let goes_on = decide(&record, &unmarked(3, settle()));
    assert_eq!(goes_on, Step::Enter(copying(NO_MORE_STARTS), None));
    // And it is not given up again because of those that followed it.
    let next = decide(&case.at(copying(3)), &with(&unmarked(3, settle()), LOST));
    assert!(waits(&next), "{next:?}");
    let caught_up = with(&unmarked(9, settle()), LOST);
    assert_eq!(
        decide(&case.at(copying(3)), &caught_up),
        Step::Enter(ready(), None)
    );
    let next = decide(&case.at(ready()), &caught_up);
    assert!(
        matches!(next, Step::Enter(_, Some(Action::Suspend))),
        "{next:?}"
    );
}

#[test]
fn somebody_else_s_job_is_never_ended() {
    for case in cases() {
        let theirs = Observation {
            in_phase: settle(),
            fresh_start: true,
            peers: LOST,
            ..seen(
                VmState::Running,
                disk(case.before),
                job(BlockJobKind::Other, 1, 9),
            )
        };
        let for_long = Observation {
            of_no_kind_for: Duration::from_secs(5),
            ..theirs.clone()
        };
        for (phase, seen) in [
            (Phase::Pending, &theirs),
            (copying(1), &for_long),
            (ready(), &theirs),
        ] {
            let next = decide(&case.at(phase.clone()), seen);
            let reason = (failed_with(&next), phase);
            assert_eq!(reason.0, Some(Reason::ConcurrentChange), "{reason:?}");
        }
        // For a moment it may be ours that ends, and nothing is asked of it.
        let next = decide(&case.at(copying(1)), &theirs);
        let given_up = matches!(next, Step::Enter(Phase::Cancelling { .. }, None));
        assert!(given_up, "{next:?}");
        // It may be ours, which ends: its end is waited for, and nothing is said of the chain before.
        let next = decide(&case.at(cancelling()), &theirs);
        assert!(matches!(next, Step::Wait(_)), "{next:?}");
    }
}

/// Of a machine that is off nobody can tell whether the chain is as before: libvirt names its last
/// layer alone, and a commit or a pull may just have ended.
#[test]
fn a_machine_that_stops_while_its_merge_is_given_up_has_died() {
    for case in cases() {
        let last = case.before.last().expect("it has layers");
        for chain in [case.before, &[*last][..]] {
            if case.record.kind == MergeKind::Pull && chain.len() == 1 {
                // It is made whole first.
                continue;
            }
            let off = seen(VmState::ShutOff, disk(chain), None);
            for peers in [Peers::NONE, LOST, PASSED] {
                for phase in [Phase::Pending, copying(1), ready(), cancelling()] {
                    let next = decide(&case.at(phase), &with(&off, peers));
                    assert_eq!(failed_with(&next), Some(Reason::VmDied));
                }
            }
        }
    }
}
