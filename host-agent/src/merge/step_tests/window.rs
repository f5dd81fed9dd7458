//! Intent: what a restart and a pivot without effect lead to.

use super::*;

#[test]
fn a_restart_before_the_intent_releases_the_guest_first_thing() {
    for window in [Window::Suspending, Window::Releasing] {
        let next = decide(&at(pivoting(window)), &fresh(stopped(MirrorState::Ready)));
        assert_eq!(next, released(), "{window:?}");
    }
}

#[test]
fn a_restart_after_the_intent_asks_for_the_same_pivot_again() {
    let intent = at(pivoting(Window::Intent));
    let next = decide(&intent, &fresh(stopped(MirrorState::Ready)));
    let again = Step::Enter(pivoting(Window::Intent), Some(Action::Pivot));
    assert_eq!(next, again);
    // Somebody has let the guest write meanwhile: the volumes differ, and no pivot is on its way.
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    assert_eq!(decide(&intent, &fresh(running)), released());
}

#[test]
fn a_pivot_on_its_way_is_never_called_off() {
    let intent = at(pivoting(Window::Intent));
    let mut on_its_way = fresh(late(stopped(MirrorState::Pivoting)));
    on_its_way.told = Some(Told::Refused("a reply that was lost".to_owned()));
    assert!(matches!(decide(&intent, &on_its_way), Step::Wait(_)));
}

#[test]
fn a_pivot_without_effect_is_called_off() {
    let intent = at(pivoting(Window::Intent));
    for seen in [
        stopped(MirrorState::Ready),
        seen(VmState::Paused, disk(&BEFORE), None),
    ] {
        assert!(matches!(decide(&intent, &seen), Step::Wait(_)));
        assert_eq!(decide(&intent, &late(seen)), released());
    }
}

#[test]
fn a_switch_that_the_next_start_does_not_know_of_goes_forward_only() {
    let mut half = disk(&AFTER);
    half.next_start = disk(&BEFORE).next_start;
    let half = seen(VmState::Paused, half, None);
    let intent = at(pivoting(Window::Intent));
    assert!(matches!(decide(&intent, &half), Step::Wait(_)));
    let verifying = Phase::Verifying {
        suspended_at: Some(now()),
    };
    let next = decide(&intent, &late(half.clone()));
    assert_eq!(next, Step::Enter(verifying.clone(), Some(Action::Resume)));
    let resumed = Observation {
        machine: match half.machine {
            Machine::Seen { disk, job, .. } => Machine::Seen {
                state: VmState::Running,
                disk,
                job,
            },
            other => other,
        },
        ..half
    };
    assert!(matches!(
        decide(&at(verifying.clone()), &resumed),
        Step::Wait(_)
    ));
    let given_up = decide(&at(verifying), &late(resumed));
    assert_eq!(failed_with(&given_up), Some(Reason::ChainDiverged));
}
