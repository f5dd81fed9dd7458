//! Intent: what a restart and a pivot without effect lead to.

use super::*;
use crate::merge::types::Overlaying;

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

/// libvirt was killed between its two definitions. What the guest wrote from here on would be lost
/// at its next start.
#[test]
fn no_guest_runs_before_its_next_start_opens_what_it_writes() {
    let mut half = disk(&AFTER);
    half.next_start = disk(&BEFORE).next_start;
    let half = seen(VmState::Paused, half, None);
    let intent = at(pivoting(Window::Intent));
    assert!(matches!(decide(&intent, &half), Step::Wait(_)));
    let fresh = Observation {
        fresh_start: true,
        ..half.clone()
    };
    let told = Step::Enter(pivoting(Window::Intent), Some(Action::SetNextStart));
    for look in [late(half.clone()), fresh] {
        assert_eq!(decide(&intent, &look), told);
    }
    let verifying = Phase::Verifying {
        suspended_at: Some(now()),
    };
    let told = Step::Enter(verifying.clone(), Some(Action::SetNextStart));
    assert_eq!(decide(&at(verifying.clone()), &late(half)), told);
    let whole = seen(VmState::Paused, disk(&AFTER), None);
    let next = decide(&intent, &whole);
    assert_eq!(next, Step::Enter(verifying, Some(Action::Resume)));
}

/// libvirt was killed in the pivot, and its mark stays for ever: QEMU's locks tell.
#[test]
fn a_mark_without_a_job_is_not_waited_for() {
    let intent = at(pivoting(Window::Intent));
    let marked = |switched| {
        let mut stale = with_mirror(MirrorState::Pivoting);
        stale.mirror.as_mut().unwrap().switched = switched;
        seen(VmState::Paused, stale, None)
    };
    let switched = marked(Some(true));
    assert!(matches!(decide(&intent, &switched), Step::Wait(_)));
    let told = Step::Enter(pivoting(Window::Intent), Some(Action::SetNextStart));
    assert_eq!(decide(&intent, &late(switched)), told);
    let not = decide(&intent, &late(marked(Some(false))));
    let released = pivoting(Window::Releasing);
    assert_eq!(not, Step::Enter(released, Some(Action::Resume)));
    let unknown = decide(&intent, &late(marked(None)));
    assert!(matches!(unknown, Step::Wait(_)));
}

/// libvirt was away for longer than a pivot may take, and shows the mark as it was before: QEMU's
/// locks tell that there is no way back.
#[test]
fn a_guest_whose_qemu_has_switched_is_not_let_go_with_the_old_next_start() {
    let mut mark = with_mirror(MirrorState::Ready);
    mark.mirror.as_mut().unwrap().switched = Some(true);
    let intent = at(pivoting(Window::Intent));
    let away = seen(VmState::Paused, mark.clone(), None);
    assert!(matches!(decide(&intent, &away), Step::Wait(_)));
    let told = Step::Enter(pivoting(Window::Intent), Some(Action::SetNextStart));
    assert_eq!(decide(&intent, &late(away)), told);

    // It was called off, and has come about.
    let stands = seen(VmState::Paused, mark.clone(), None);
    assert_eq!(decide(&at(pivoting(Window::Releasing)), &stands), told);
    let called_off = [
        Phase::Ready { not_before: now() },
        Phase::Cancelling { since: now() },
        Phase::Overlaying {
            stage: Overlaying::Ending,
            since: now(),
        },
    ];
    let runs = seen(VmState::Running, mark, None);
    let told = Phase::Pivoting {
        window: Window::Intent,
        since: now(),
        suspended_at: None,
    };
    let told = Step::Enter(told, Some(Action::SetNextStart));
    for phase in called_off {
        assert_eq!(decide(&at(phase), &runs), told);
    }
}

/// libvirt lost the job and shows it still; whether QEMU has switched is not known yet.
#[test]
fn a_guest_stands_still_until_it_is_known_what_it_would_write() {
    for state in [MirrorState::Ready, MirrorState::Pivoting] {
        let shown = |switched| {
            let mut disk = with_mirror(state);
            disk.mirror.as_mut().unwrap().switched = switched;
            late(seen(VmState::Paused, disk, None))
        };
        for window in [Window::Intent, Window::Releasing] {
            let at = at(Phase::Pivoting {
                window,
                since: now(),
                suspended_at: Some(now()),
            });
            for fresh_start in [false, true] {
                let look = |switched| Observation {
                    fresh_start,
                    ..shown(switched)
                };
                let unknown = decide(&at, &look(None));
                assert!(matches!(unknown, Step::Wait(_)), "{window:?} {unknown:?}");
                let lets_go = |step: &Step| matches!(step, Step::Enter(_, Some(Action::Resume)));
                assert!(lets_go(&decide(&at, &look(Some(false)))), "{window:?}");
                assert!(!lets_go(&decide(&at, &look(Some(true)))), "{window:?}");
            }
        }
    }
}

#[test]
fn a_job_that_libvirt_shows_and_qemu_has_not_is_not_waited_for() {
    let disk = with_mirror(MirrorState::Pivoting);
    let ready = at(Phase::Ready { not_before: now() });
    let cancelling = at(Phase::Cancelling { since: now() });
    let just_now = late(seen(VmState::Running, disk, None));
    let alone = Observation {
        mark_alone_for: Duration::from_secs(60),
        ..just_now.clone()
    };
    for record in [ready, cancelling] {
        let ended = decide(&record, &alone);
        assert_eq!(failed_with(&ended), Some(Reason::MergeIoError));
        assert_eq!(failed_with(&decide(&record, &just_now)), None);
    }
}

/// Its next start was set meanwhile, so the guest runs: the job is still ours until its end is noticed.
#[test]
fn a_switch_that_libvirt_notices_late_is_waited_for() {
    let mut disk = with_mirror(MirrorState::Pivoting);
    disk.mirror.as_mut().unwrap().switched = Some(true);
    disk.next_start = super::disk(&AFTER).next_start;
    let at_work = job(BlockJobKind::ActiveCommit, 9, 9);
    let unnoticed = late(seen(VmState::Running, disk.clone(), at_work));
    let verifying = at(Phase::Verifying {
        suspended_at: Some(now()),
    });
    assert!(matches!(decide(&verifying, &unnoticed), Step::Wait(_)));
    // Without the job nothing is left that would be noticed.
    let stale = late(seen(VmState::Running, disk, None));
    let ended = failed_with(&decide(&verifying, &stale));
    assert_eq!(ended, Some(Reason::ChainDiverged));
    let noticed = late(seen(VmState::Running, super::disk(&AFTER), None));
    let merged = Step::Finish(Outcome::Merged);
    assert_eq!(decide(&verifying, &noticed), merged);
}

/// Another agent of the host that is still at work, or a hand: QEMU may switch at any time.
#[test]
fn a_guest_is_not_let_run_while_anybodys_pivot_is_on_its_way() {
    let suspending = at(pivoting(Window::Suspending));
    let on_its_way = late(stopped(MirrorState::Pivoting));
    let refused = Observation {
        told: Some(Told::Refused("no".to_owned())),
        ..on_its_way.clone()
    };
    for look in [on_its_way.clone(), fresh(on_its_way), refused] {
        let next = decide(&suspending, &look);
        assert!(matches!(next, Step::Wait(_)), "{next:?}");
    }
    // It has come about, or has come to nothing.
    let merged = late(seen(VmState::Paused, disk(&AFTER), None));
    let not = late(stopped(MirrorState::Ready));
    let lost = late(seen(
        VmState::Paused,
        with_mirror(MirrorState::Pivoting),
        None,
    ));
    for look in [merged, fresh(not), lost.clone()] {
        assert_eq!(decide(&suspending, &look), released());
    }
    // It has come about, and libvirt will never notice.
    let mut switched = lost;
    if let Machine::Seen {
        disk: Some(disk), ..
    } = &mut switched.machine
    {
        disk.mirror.as_mut().unwrap().switched = Some(true);
    }
    let told = Step::Enter(pivoting(Window::Intent), Some(Action::SetNextStart));
    assert_eq!(decide(&suspending, &switched), told);
}

/// I7. But who starts again with the intent would ask for the pivot again: no way back without a word.
#[test]
fn without_the_journal_a_guest_runs_wherever_it_may_run_whatever_comes() {
    let [suspending, intent, releasing] =
        [Window::Suspending, Window::Intent, Window::Releasing].map(pivoting);
    let verifying = Phase::Verifying {
        suspended_at: Some(now()),
    };
    let resume = Some(Action::Resume);
    for (written, next, action) in [
        (&suspending, &intent, Some(Action::Pivot)),
        (&suspending, &releasing, resume),
        (&intent, &verifying, resume),
        (&releasing, &releasing, resume),
        (&releasing, &verifying, resume),
        (&verifying, &verifying, resume),
    ] {
        assert!(
            runs_unwritten(written, next, action),
            "{written:?} {next:?}"
        );
    }
    let next_start = Some(Action::SetNextStart);
    for (written, next, action) in [
        (&intent, &releasing, resume),
        (&intent, &intent, Some(Action::Pivot)),
        (&intent, &intent, next_start),
        // As after a pivot of somebody else.
        (&suspending, &intent, next_start),
        (&releasing, &intent, next_start),
        (&verifying, &verifying, next_start),
    ] {
        assert!(
            !runs_unwritten(written, next, action),
            "{written:?} {next:?}"
        );
    }
    let stopped_by_others = Phase::Pivoting {
        window: Window::Intent,
        since: now(),
        suspended_at: None,
    };
    let next = Phase::Verifying { suspended_at: None };
    assert!(!runs_unwritten(&stopped_by_others, &next, None));
}
