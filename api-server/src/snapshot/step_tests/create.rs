//! Taking a snapshot.

use super::*;

#[test]
fn taking_a_snapshot_repeats_the_same_overlays_until_they_are_on() {
    let mut snapshot = snapshot("s", &[]);
    snapshot.state = SnapshotState::Creating;
    let create = operation(&snapshot, Work::Create(CreatePhase::Planning));
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(read(vec![chain("vda", &["a"])]));
    let planned = change(seen.decide(&create));
    let frozen = put(&planned, snapshot.id).unwrap().clone();
    assert_eq!(frozen.disks[0].volume, volume("a"));
    let seen = Seen::of(&frozen);
    let asked = |step| match step {
        Step::Ask(Ask::Overlays(order)) => order,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        asked(seen.decide(&planned.operation)),
        asked(seen.decide(&planned.operation))
    );
    let seen = Seen {
        answer: Some(Answer::OverlaysOn(Consistency::Frozen)),
        ..Seen::of(&frozen)
    };
    let done = change(seen.decide(&planned.operation));
    assert_eq!(done.operation.state, OperationState::Succeeded);
    let taken = put(&done, snapshot.id).unwrap();
    assert_eq!(taken.state, SnapshotState::Ready);
    assert_eq!(taken.consistency, Consistency::Frozen);
}

/// The event says what the snapshot is of, and warns when that is not what was asked for.
#[test]
fn a_snapshot_says_whether_the_guest_was_frozen() {
    use Consistency::{Crash, Frozen, Off, Unknown};
    use Quiesce::{IfPossible, Never, Required};
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.state = SnapshotState::Creating;
    for (wished, consistency, severity) in [
        (IfPossible, Frozen, Severity::Info),
        (IfPossible, Crash, Severity::Info),
        (IfPossible, Unknown, Severity::Info),
        (Never, Crash, Severity::Info),
        (Required, Frozen, Severity::Info),
        (Required, Off, Severity::Info),
        (Required, Crash, Severity::Warning),
        (Required, Unknown, Severity::Warning),
    ] {
        let overlay = NewOverlay {
            disk: "vda".parse().unwrap(),
            below: volume("a"),
            overlay: volume("b"),
        };
        let work = Work::Create(CreatePhase::Overlaying(vec![overlay]));
        let create = Operation {
            quiesce: wished,
            ..operation(&snapshot, work)
        };
        let mut seen = Seen::of(&snapshot);
        match seen.decide(&create) {
            Step::Ask(Ask::Overlays(order)) => assert_eq!(order.quiesce, wished),
            other => panic!("{other:?}"),
        }
        seen.answer = Some(Answer::OverlaysOn(consistency));
        let done = change(seen.decide(&create));
        let taken = put(&done, snapshot.id).unwrap();
        assert_eq!(taken.consistency, consistency);
        assert_eq!(kinds(&done), [EventKind::SnapshotCreated]);
        assert_eq!(
            done.events[0].severity, severity,
            "{wished:?} {consistency:?}"
        );
    }
}

#[test]
fn a_snapshot_of_some_disks_only_is_not_taken() {
    let snapshot = snapshot("s", &[]);
    let create = operation(&snapshot, Work::Create(CreatePhase::Planning));
    let mut chains = running(vec![chain("vda", &["a"])]);
    chains.unsupported = vec![UnsupportedDisk {
        disk: "vdb".parse().unwrap(),
        why: "has a layer of the kind rbd".to_owned(),
        locators: vec![],
    }];
    let seen = Seen {
        answer: Some(Answer::Chains(chains)),
        ..Seen::of(&snapshot)
    };
    let done = change(seen.decide(&create));
    let OperationState::Failed(failure) = &done.operation.state else {
        panic!("{:?}", done.operation.state);
    };
    assert_eq!(failure.reason, Reason::StrategyUnsupported);
    assert_eq!(failure.message, "disk vdb has a layer of the kind rbd");
    assert_eq!(put(&done, snapshot.id), None);
}

#[test]
fn a_snapshot_that_was_refused_leaves_nothing() {
    let snapshot = snapshot("s", &[]);
    let create = operation(&snapshot, Work::Create(CreatePhase::Planning));
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&create));
    assert!(deletes(&failed, snapshot.id));
    assert_eq!(kinds(&failed), [EventKind::SnapshotCreateFailed]);
}

/// Overlays that the host has refused, and what its chains say then.
fn after_a_refusal(layers: &[&str]) -> (Snapshot, Change) {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.state = SnapshotState::Creating;
    let overlay = NewOverlay {
        disk: "vda".parse().unwrap(),
        below: volume("a"),
        overlay: volume("b"),
    };
    let work = Work::Create(CreatePhase::Overlaying(vec![overlay]));
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(refused(Reason::VmNotRunning));
    let doubted = change(seen.decide(&operation(&snapshot, work)));
    assert_eq!(doubted.operation.state, OperationState::Running);
    seen.answer = None;
    let asked = seen.decide(&doubted.operation);
    assert!(matches!(asked, Step::Ask(Ask::Chains(_))), "{asked:?}");
    seen.answer = Some(read(vec![chain("vda", layers)]));
    let ended = change(seen.decide(&doubted.operation));
    (snapshot, ended)
}

#[test]
fn overlays_that_are_on_are_the_snapshot_whatever_the_host_has_said() {
    let (snapshot, ended) = after_a_refusal(&["a", "b"]);
    assert_eq!(ended.operation.state, OperationState::Succeeded);
    assert_eq!(
        put(&ended, snapshot.id).unwrap().state,
        SnapshotState::Ready
    );
}

#[test]
fn overlays_that_are_not_on_were_refused_for_the_first_reason() {
    let (snapshot, ended) = after_a_refusal(&["a"]);
    assert!(
        matches!(&ended.operation.state, OperationState::Failed(f) if f.reason == Reason::VmNotRunning)
    );
    assert!(deletes(&ended, snapshot.id));
}
