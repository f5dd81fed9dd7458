//! Ready and Suspending: when the pivot is asked for.

use super::*;

#[test]
fn the_pivot_stops_the_guest_first() {
    let ready = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let next = decide(&at(Phase::Ready { not_before: now() }), &ready);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Suspending), Some(Action::Suspend))
    );
}

/// Who gives it room lets it run, and would do so in the middle of the pivot.
#[test]
fn a_guest_that_stands_still_for_want_of_room_is_not_pivoted() {
    let stands = stopped(MirrorState::Ready);
    let lacks_room = Observation {
        lacks_room: true,
        ..stands.clone()
    };
    let ready = at(Phase::Ready { not_before: now() });
    assert!(matches!(decide(&ready, &lacks_room), Step::Wait(_)));
    assert!(matches!(
        decide(&ready, &stands),
        Step::Enter(Phase::Pivoting { .. }, None)
    ));
    // It had stopped for that before it was asked to stand still.
    let suspending = at(pivoting(Window::Suspending));
    assert!(matches!(decide(&suspending, &lacks_room), Step::Wait(_)));
    assert_eq!(decide(&suspending, &late(lacks_room.clone())), released());
    let intent = Step::Enter(pivoting(Window::Intent), Some(Action::Pivot));
    assert_eq!(decide(&suspending, &stands), intent);
    let again = decide(&at(pivoting(Window::Intent)), &fresh(lacks_room));
    assert_eq!(again, released());
}

#[test]
fn a_clock_that_was_set_back_does_not_put_the_pivot_off() {
    let ready = seen(VmState::Running, with_mirror(MirrorState::Ready), None);
    let after = |seconds| Phase::Ready {
        not_before: now() + jiff::SignedDuration::from_secs(seconds),
    };
    let next = decide(&at(after(1)), &ready);
    assert_eq!(next, Step::Wait(Duration::from_secs(1)), "not yet");
    for earlier in [-86_400, 0, 86_400] {
        let next = decide(&at(after(earlier)), &ready);
        assert!(
            matches!(
                next,
                Step::Enter(Phase::Pivoting { .. }, Some(Action::Suspend))
            ),
            "{earlier} s: {next:?}"
        );
    }
}

/// When the pivot is tried again after so many tries.
fn put_off_for(pivot_attempts: u32, help: Help) -> Duration {
    let record = MergeRecord {
        pivot_attempts,
        help,
        ..at(pivoting(Window::Releasing))
    };
    let runs = seen(VmState::Running, with_mirror(MirrorState::Ready), None);
    let Step::Enter(Phase::Ready { not_before }, None) = decide(&record, &runs) else {
        panic!("it is put off");
    };
    not_before.duration_since(now()).try_into().unwrap()
}

#[test]
fn a_pivot_that_is_put_off_is_tried_later_each_time_and_sooner_once_it_is_helped() {
    let none = Help::default();
    let mut before = Duration::ZERO;
    for attempts in 1..=3 {
        let pause = put_off_for(attempts, none);
        assert!(pause > before, "{attempts}: {pause:?}");
        before = pause;
    }
    let most = Policy::default().retry.most();
    for attempts in [10, 1000] {
        let pause = put_off_for(attempts, none);
        assert!(pause >= most / 2 && pause <= most, "{pause:?}");
    }
    let helped = Help {
        throttle: Some(Throttle {
            before: 0,
            bytes_per_second: 32 << 20,
        }),
        ..none
    };
    assert!(put_off_for(4, helped) <= Duration::from_secs(1));
}

#[test]
fn a_guest_that_stood_still_before_is_left_so() {
    let ready = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let Step::Enter(phase, None) = decide(&at(Phase::Ready { not_before: now() }), &ready) else {
        panic!("nothing is to be done to the guest");
    };
    let Step::Enter(phase, Some(Action::Pivot)) = decide(&at(phase), &ready) else {
        panic!("pivots")
    };
    let done = seen(VmState::Paused, disk(&AFTER), None);
    let Step::Enter(phase, None) = decide(&at(phase), &done) else {
        panic!("does not resume")
    };
    assert_eq!(decide(&at(phase), &done), Step::Finish(Outcome::Merged));
}

#[test]
fn no_pivot_before_both_read_the_same() {
    let behind = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    assert!(matches!(
        decide(&at(pivoting(Window::Suspending)), &behind),
        Step::Wait(_)
    ));
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    assert!(matches!(
        decide(&at(pivoting(Window::Suspending)), &running),
        Step::Wait(_)
    ));
    let same = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let next = decide(&at(pivoting(Window::Suspending)), &same);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Intent), Some(Action::Pivot))
    );
}

#[test]
fn a_pause_that_is_too_long_is_called_off_and_tried_later() {
    let behind = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let late = Observation {
        in_phase: Policy::default().pause_limit,
        ..behind
    };
    let next = decide(&at(pivoting(Window::Suspending)), &late);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
    );
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let Step::Enter(Phase::Ready { not_before }, None) =
        decide(&at(pivoting(Window::Releasing)), &running)
    else {
        panic!("it is tried again");
    };
    assert!(not_before > now());
}

#[test]
fn running_mode_does_not_stop_the_guest() {
    let policy = Policy {
        pivot: PivotMode::Running,
        ..Policy::default()
    };
    let ready = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let record = at(Phase::Ready { not_before: now() });
    let Step::Enter(phase, Some(Action::Pivot)) = step(&record, &ready, &policy, now()) else {
        panic!("pivots at once");
    };
    assert!(matches!(
        phase,
        Phase::Pivoting {
            suspended_at: None,
            ..
        }
    ));
}
