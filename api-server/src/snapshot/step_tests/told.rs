//! What the audit log is told, and that it is told once.

use super::*;

fn merging(snapshot: &Snapshot) -> Operation {
    let of = std::slice::from_ref(snapshot);
    let task = task(of, "vda", "a", &["b"], DiskState::Merging);
    operation(snapshot, disks(vec![task]))
}

fn to_remove(snapshot: &Snapshot) -> Operation {
    let of = std::slice::from_ref(snapshot);
    let task = task(of, "vda", "a", &["b"], removing());
    operation(snapshot, disks(vec![task]))
}

#[test]
fn a_cause_is_told_once_and_again_when_it_is_another() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = to_remove(&snapshot);
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(unknown());
    seen.attempts = 1;
    assert!(
        matches!(seen.decide(&delete), Step::Wait(wait) if wait.cause.is_some()),
        "shown at once, not told: nobody was heard yet"
    );
    seen.unseen = Duration::from_secs(5);
    let waits = note(seen.decide(&delete));
    assert_eq!(kinds(&waits), [EventKind::OperationWaiting]);
    assert_eq!(waits.events[0].severity, Severity::Warning);
    for attempts in 2..9 {
        seen.attempts = attempts;
        assert!(matches!(seen.decide(&waits.operation), Step::Wait(_)));
    }
    seen.unseen = Duration::ZERO;
    seen.answer = Some(refused(Reason::VolumeInUse));
    let refused = note(seen.decide(&waits.operation));
    assert_eq!(kinds(&refused), [EventKind::VolumeRemovalRefused]);
    let details = &refused.events[0].details;
    assert_eq!(details["reason"], "VOLUME_IN_USE");
    assert_eq!(details["removed"], volume("b").to_string());
    assert_eq!(refused.operation.work, delete.work, "nothing has moved");
    assert!(matches!(seen.decide(&refused.operation), Step::Wait(_)));
    // The next question is asked as it would have been.
    seen.answer = None;
    assert!(matches!(
        seen.decide(&refused.operation),
        Step::Ask(Ask::Removals(_))
    ));
}

#[test]
fn what_goes_on_has_recovered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let waits = hindered(&to_remove(&snapshot), Reason::VolumeInUse);
    let mut seen = Seen::of(&snapshot);
    let id = next_removals(&waits)[0].removal;
    let gone = |gone| Answer::Removals(Removals::from([(id, Ok(Removed { gone, ..is_gone() }))]));
    seen.answer = Some(gone(false));
    let goes_on = note(seen.decide(&waits));
    assert_eq!(kinds(&goes_on), [EventKind::OperationRecovered]);
    assert_eq!(goes_on.operation.obstacle, None);
    assert!(matches!(seen.decide(&goes_on.operation), Step::Wait(_)));
    seen.answer = Some(gone(true));
    let done = change(seen.decide(&waits));
    let told = [
        EventKind::OperationRecovered,
        EventKind::VolumeRemoved,
        EventKind::SnapshotDeleted,
    ];
    assert_eq!(kinds(&done), told);
    assert_eq!(done.operation.obstacle, None);
}

#[test]
fn what_failed_has_not_recovered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, planning());
    let waits = hindered(&delete, Reason::HostUnreachable);
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        attempts: 12,
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&waits));
    assert_eq!(kinds(&failed), [EventKind::SnapshotDeleteFailed]);
    assert_eq!(failed.operation.obstacle, None);
}

#[test]
fn what_was_cancelled_has_not_recovered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let mut waits = hindered(&operation(&snapshot, planning()), Reason::HostUnreachable);
    waits.cancel_requested = true;
    let cancelled = change(Seen::of(&snapshot).decide(&waits));
    assert_eq!(kinds(&cancelled), [EventKind::OperationCancelled]);
    assert_eq!(cancelled.operation.obstacle, None);
}

#[test]
fn a_host_that_is_not_seen_is_told_of_when_it_lasts() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = merging(&snapshot);
    let mut seen = Seen {
        merge: MergeSight::Unknown,
        ..Seen::of(&snapshot)
    };
    assert!(
        matches!(seen.decide(&delete), Step::Wait(wait) if wait.cause.is_some()),
        "shown at once, not told"
    );
    seen.unseen = Duration::from_secs(5);
    let waits = note(seen.decide(&delete));
    assert_eq!(kinds(&waits), [EventKind::OperationWaiting]);
    // A break of the line that follows is the same one as long as the merge was not seen.
    seen.unseen = Duration::ZERO;
    assert!(matches!(seen.decide(&waits.operation), Step::Wait(_)));
    seen.merge = merge(MergePhase::Copying);
    let seen_again = note(seen.decide(&waits.operation));
    assert_eq!(kinds(&seen_again), [EventKind::OperationRecovered]);
}

#[test]
fn a_copy_that_does_not_catch_up_is_told_once() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let mut delete = merging(&snapshot);
    let sight = |limit_lifted, guest_bytes_per_second| match merge(MergePhase::Copying) {
        MergeSight::Seen(seen) => MergeSight::Seen(MergeSeen {
            limit_lifted,
            guest_bytes_per_second,
            ..seen
        }),
        other => other,
    };
    let mut seen = Seen::of(&snapshot);
    for (merge, kind) in [
        (sight(true, 0), EventKind::LiveMergeLimitLifted),
        (sight(true, 7), EventKind::LiveMergeGuestThrottled),
    ] {
        seen.merge = merge;
        let told = note(seen.decide(&delete));
        assert_eq!(kinds(&told), [kind]);
        assert_eq!(told.events[0].severity, Severity::Warning);
        delete = told.operation;
        wait(seen.decide(&delete));
    }
    seen.merge = sight(false, 0);
    wait(seen.decide(&delete));
    seen.merge = sight(true, 9);
    wait(seen.decide(&delete));
}

#[test]
fn of_several_disks_all_have_caught_up_before_one_is_switched() {
    let snapshot = snapshot("s", &[("vda", "a"), ("vdb", "m")]);
    let of = std::slice::from_ref(&snapshot);
    let first = task(of, "vda", "a", &["b"], DiskState::Merging);
    let second = task(of, "vdb", "m", &["n"], DiskState::Merging);
    let delete = operation(&snapshot, disks(vec![first.clone(), second]));
    let MergeSight::Seen(pivoting) = merge(MergePhase::Pivoting) else {
        unreachable!("it is seen");
    };
    let pivoting = MergeSight::Seen(MergeSeen {
        pivot_attempts: 1,
        ..pivoting
    });
    let seen = Seen {
        merge: merge(MergePhase::Ready),
        ..Seen::of(&snapshot)
    };
    let told = note(seen.but(&first, pivoting).decide(&delete));
    use EventKind::{LiveMergePivoting, LiveMergeReady};
    assert_eq!(
        kinds(&told),
        [LiveMergeReady, LiveMergeReady, LiveMergePivoting]
    );
}

#[test]
fn the_phases_of_a_merge_are_told_once() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = merging(&snapshot);
    let sight = |phase, pivot_attempts| match merge(phase) {
        MergeSight::Seen(seen) => MergeSight::Seen(MergeSeen {
            pivot_attempts,
            ..seen
        }),
        other => other,
    };
    let mut seen = Seen::of(&snapshot);
    seen.merge = sight(MergePhase::Ready, 0);
    let ready = note(seen.decide(&delete));
    assert_eq!(kinds(&ready), [EventKind::LiveMergeReady]);
    assert!(matches!(seen.decide(&ready.operation), Step::Wait(_)));
    seen.merge = sight(MergePhase::Ready, 1);
    let put_off = note(seen.decide(&ready.operation));
    let told = [
        EventKind::LiveMergePivoting,
        EventKind::LiveMergePivotPutOff,
    ];
    assert_eq!(kinds(&put_off), told);
    let event = &put_off.events[1];
    assert_eq!(event.severity, Severity::Warning);
    assert_eq!(event.details["pivot_attempts"], "1");
    assert_eq!(event.details["merge"], tasks(&put_off)[0].merge.to_string());
    // What ended while nobody looked is told before the end.
    for end in [
        MergePhase::Merged,
        MergePhase::Failed(Failure::new(Reason::VmDied, "it died")),
    ] {
        seen.merge = sight(end, 1);
        let late = note(seen.decide(&delete));
        let told = [EventKind::LiveMergeReady, EventKind::LiveMergePivoting];
        assert_eq!(kinds(&late), told);
        assert_ne!(
            tasks(&change(seen.decide(&late.operation)))[0].state,
            DiskState::Merging
        );
    }
    seen.merge = sight(MergePhase::Merged, 2);
    let merged = change(seen.decide(&put_off.operation));
    assert_eq!(kinds(&merged), [EventKind::LiveMergeCompleted]);
    let details = &merged.events[0].details;
    assert_eq!(details["pivot_attempts"], "2");
    assert_eq!(details["longest_pause_ms"], "7");
    assert_eq!(details["copied_bytes"], "5");
}
