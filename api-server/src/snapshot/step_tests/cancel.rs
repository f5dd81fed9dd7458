//! A delete whose end was asked for: what is still done, and what is left.

use super::*;

/// A delete of one snapshot, at this merge.
fn cancelled_at(kind: MergeKind, state: DiskState) -> Record {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    let of = std::slice::from_ref(&snapshot);
    let task = DiskTask {
        kind,
        ..task(of, "vda", "a", &["b"], state)
    };
    let mut record = Record::of(of, disks(vec![task]));
    record.operation.cancel_requested = true;
    record
}

fn decide(record: &Record, merge: MergeSight, answer: Option<Answer>) -> Step {
    let seen = Seen {
        merge,
        answer,
        begun: true,
        ..record.seen()
    };
    seen.decide(&record.operation)
}

#[test]
fn in_planning_nothing_is_looked_at_any_more() {
    let mut record = Record::of(&[snapshot("s", &[("vda", "a")])], planning());
    record.operation.cancel_requested = true;
    let chains = surveyed(vec![chain("vda", &["a", "b"])]);
    for answer in [None, Some(chains)] {
        let mut record = record.clone();
        let ended = record.enter(MergeSight::Absent, answer);
        assert_eq!(kinds(&ended), [EventKind::OperationCancelled]);
        assert_eq!(record.operation.state, OperationState::Cancelled);
        assert!(record.operation.ended_at.is_some());
        let left = record.snapshot("s").unwrap();
        assert_eq!(left.state, SnapshotState::Ready);
    }
}

#[test]
fn a_merge_that_was_never_ordered_is_not() {
    let mut record = cancelled_at(MergeKind::ActiveCommit, DiskState::Merging);
    // Not even the host has to be there.
    record.enter(MergeSight::Unknown, None);
    record.enter(MergeSight::Unknown, None);
    assert_eq!(record.operation.state, OperationState::Cancelled);
    let left = record.snapshot("s").unwrap();
    assert_eq!(left.state, SnapshotState::Ready);
    assert_eq!(left.disks[0].merging, None);
}

#[test]
fn a_merge_that_may_have_been_ordered_is_ordered_again_to_be_cancelled() {
    // The journal cannot tell a merge that never came from one that is on its way.
    let record = cancelled_at(MergeKind::ActiveCommit, DiskState::Merging);
    let ids: Vec<_> = orders(decide(&record, MergeSight::Absent, None))
        .iter()
        .map(|order| order.id)
        .collect();
    assert_eq!(ids, [record.tasks()[0].merge]);
    let seen = Seen {
        attempts: 1,
        ..record.seen()
    };
    assert_eq!(orders(seen.decide(&record.operation)).len(), 1);
    // A host that is silent says nothing.
    let silent = decide(&record, MergeSight::Unknown, None);
    assert!(wait(silent).cause.is_some());
}

#[test]
fn a_merge_under_way_is_cancelled_until_the_host_shows_it() {
    let record = cancelled_at(MergeKind::ActiveCommit, DiskState::Merging);
    let cancel = Ask::Cancel(record.tasks()[0].merge);
    for phase in [MergePhase::Pending, MergePhase::Copying] {
        let asked = ask(decide(&record, merge(phase.clone()), None));
        assert_eq!(asked, cancel, "{phase:?}");
        let accepted = decide(&record, merge(phase.clone()), Some(Answer::MergesAccepted));
        assert_eq!(ask(accepted), cancel, "{phase:?}");
        wait(decide(&record, merge(phase.clone()), Some(Answer::Heard)));
        // A refusal decides nothing: what comes of the merge will be seen.
        let refused = Some(refused(Reason::PointOfNoReturn));
        wait(decide(&record, merge(phase), refused));
    }
    for past in [
        MergePhase::Pivoting,
        MergePhase::Verifying,
        MergePhase::Cancelling,
    ] {
        wait(decide(&record, merge(past), None));
    }
}

#[test]
fn a_merge_that_has_caught_up_is_cancelled_too() {
    let mut record = cancelled_at(MergeKind::ActiveCommit, DiskState::Merging);
    let told = note(decide(&record, merge(MergePhase::Ready), None));
    record.apply(&told);
    let cancel = Ask::Cancel(record.tasks()[0].merge);
    assert_eq!(ask(decide(&record, merge(MergePhase::Ready), None)), cancel);
}

#[test]
fn a_cancelled_pull_has_touched_nothing_and_a_commit_may_have() {
    let kinds_left = [
        (MergeKind::Pull, SnapshotState::Ready, None),
        (
            MergeKind::ActiveCommit,
            SnapshotState::Incomplete,
            Some(merging("a", &["b"])),
        ),
        (
            MergeKind::Commit,
            SnapshotState::Incomplete,
            Some(merging("a", &["b"])),
        ),
        (
            MergeKind::OfflineCommit,
            SnapshotState::Incomplete,
            Some(merging("a", &["b"])),
        ),
    ];
    for (kind, state, left_merging) in kinds_left {
        let mut record = cancelled_at(kind, DiskState::Merging);
        let lost = record.enter(merge(MergePhase::Cancelled), None);
        assert_eq!(kinds(&lost), [EventKind::LiveMergeCancelled]);
        assert_eq!(lost.events[0].severity, Severity::Warning);
        let ended = record.enter(MergeSight::Absent, None);
        assert_eq!(kinds(&ended), [EventKind::OperationCancelled]);
        assert_eq!(record.operation.state, OperationState::Cancelled);
        let left = record.snapshot("s").unwrap();
        assert_eq!(
            (left.state, &left.disks[0].merging),
            (state, &left_merging),
            "{kind:?}"
        );
        assert_eq!(left.disks[0].volume, volume("a"));
    }
}

#[test]
fn a_pull_that_failed_is_not_believed_to_have_touched_nothing() {
    let mut record = cancelled_at(MergeKind::Pull, DiskState::Merging);
    record.enter(merge(MergePhase::Failed(died())), None);
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    let left = record.snapshot("s").unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
}

#[test]
fn past_the_point_of_no_return_the_delete_goes_on_to_its_end() {
    let mut record = cancelled_at(MergeKind::ActiveCommit, DiskState::Merging);
    assert!(record.operation.may_turn_back());
    record.enter(merge(MergePhase::Merged), None);
    assert!(!record.operation.may_turn_back());
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(record.operation.state, OperationState::Succeeded);
    assert!(record.snapshots.is_empty());
}

#[test]
fn between_rounds_what_is_merged_is_removed_and_the_rest_is_left() {
    let both = [
        snapshot("s1", &[("vda", "a")]),
        snapshot("s2", &[("vda", "c")]),
    ];
    let mut record = Record::of(&both, planning());
    let chains = vec![chain("vda", &["a", "b", "c", "d"])];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    record.enter(merge(MergePhase::Merged), None);
    assert!(record.operation.may_turn_back(), "a round has not begun");
    record.operation.cancel_requested = true;
    let removed = record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(kinds(&removed), [EventKind::VolumeRemoved]);
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Cancelled);
    assert!(record.snapshot("s1").is_none(), "all of it is done");
    let left = record.snapshot("s2").unwrap();
    assert_eq!(left.state, SnapshotState::Ready);
    assert_eq!(left.disks[0].merging, None);
}

#[test]
fn a_removal_that_an_earlier_delete_has_left_is_done_before_the_end() {
    let mut old = snapshot("old", &[("vda", "a")]);
    old.disks[0].merging = Some(merging("a", &["b"]));
    old.was_incomplete = true;
    let both = [old, snapshot("new", &[("vda", "c")])];
    let mut record = Record::of(&both, planning());
    let chains = vec![chain("vda", &["a", "c", "d", "e"])];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    record.operation.cancel_requested = true;
    record.enter(MergeSight::Absent, None);
    assert_eq!(
        removal(record.decide(MergeSight::Absent, None)).volume,
        mark("b")
    );
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Cancelled);
    assert!(record.snapshot("old").is_none());
    let left = record.snapshot("new").unwrap();
    assert_eq!(left.state, SnapshotState::Ready);
}
