//! Who waits for whom, and who is given up for whom.

use super::*;

#[test]
fn who_has_caught_up_waits_for_the_others() {
    let case = active_of_three();
    let caught_up = case.running(0);
    let record = case.at(ready());
    assert!(waits(&decide(&record, &with(&caught_up, BEHIND))));
    let next = decide(&record, &caught_up);
    assert!(
        matches!(next, Step::Enter(_, Some(Action::Suspend))),
        "{next:?}"
    );
    // The others' state is no concern of a copy.
    let next = decide(&case.at(copying(1)), &with(&caught_up, BEHIND));
    assert_eq!(next, Step::Enter(ready(), None));
}

#[test]
fn peers_are_what_their_records_say() {
    let at = |phase| active_of_three().at(phase);
    let inner = |phase| inner_of_three().at(phase);
    let pivoting = |window| {
        at(Phase::Pivoting {
            window,
            since: now(),
            suspended_at: None,
        })
    };
    let verified = Phase::Verifying { suspended_at: None };
    let merged = Phase::Merged { at: now() };
    let cancelled = Phase::Cancelled { at: now() };
    let rows = [
        (vec![], Peers::NONE),
        (vec![at(Phase::Pending)], BEHIND),
        (vec![at(copying(1))], BEHIND),
        (vec![at(ready())], Peers::NONE),
        (vec![at(ready()), at(copying(1))], BEHIND),
        (vec![inner(Phase::Pending), inner(copying(1))], Peers::NONE),
        (vec![pivoting(Window::Suspending)], Peers::NONE),
        (vec![pivoting(Window::Releasing)], Peers::NONE),
        (
            vec![pivoting(Window::Intent)],
            Peers {
                lost: false,
                ..PASSED
            },
        ),
        (
            vec![at(verified)],
            Peers {
                lost: false,
                ..PASSED
            },
        ),
        (
            vec![at(merged.clone())],
            Peers {
                lost: false,
                ..PASSED
            },
        ),
        (
            vec![at(cancelling())],
            Peers {
                ready: false,
                ..LOST
            },
        ),
        (vec![at(cancelled.clone())], LOST),
        (vec![at(cancelled), at(merged)], PASSED),
    ];
    for (others, peers) in rows {
        assert_eq!(Peers::of(&others), peers, "{others:?}");
    }
}

#[test]
fn with_a_lost_one_the_others_are_given_up() {
    for case in cases() {
        let before = with(&case.quiet(case.before, Duration::ZERO), LOST);
        assert_eq!(
            decide(&case.record, &before),
            Step::Finish(Outcome::Cancelled)
        );
        let copies = with(&case.running(3), LOST);
        assert_eq!(decide(&case.at(copying(1)), &copies), gives_up());
    }
    let case = active_of_three();
    let caught_up = with(&case.running(0), LOST);
    assert_eq!(decide(&case.at(ready()), &caught_up), gives_up());
    assert_eq!(decide(&case.at(copying(1)), &caught_up), gives_up());
}

#[test]
fn once_one_has_passed_the_others_go_forward_whatever_is_lost() {
    for case in cases() {
        let before = with(&case.quiet(case.before, Duration::ZERO), PASSED);
        let starts = Step::Enter(copying(1), Some(Action::StartJob));
        assert_eq!(decide(&case.record, &before), starts);
        let copies = with(&case.running(3), PASSED);
        assert!(waits(&decide(&case.at(copying(1)), &copies)));
    }
    let case = active_of_three();
    let next = decide(&case.at(ready()), &with(&case.running(0), PASSED));
    assert!(
        matches!(next, Step::Enter(_, Some(Action::Suspend))),
        "{next:?}"
    );
}

#[test]
fn what_has_ended_by_itself_is_no_longer_given_up() {
    for case in cases() {
        let done = with(&case.quiet(case.after, Duration::ZERO), LOST);
        for phase in [Phase::Pending, copying(1), cancelling()] {
            assert_eq!(decide(&case.at(phase), &done), verifies(&case));
        }
    }
}
