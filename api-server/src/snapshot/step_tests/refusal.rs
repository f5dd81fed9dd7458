//! What a delete that fails or is refused leaves of the snapshot.

use super::*;

#[test]
fn a_failed_merge_leaves_the_snapshot_in_the_list() {
    let snapshot = marked("s", &[("vda", "a", Some("b"))]);
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "a", &["b"], DiskState::Merging);
    let mut record = Record::of(of, disks(vec![task]));
    let lost = record.enter(merge(MergePhase::Failed(died())), None);
    assert_eq!(kinds(&lost), [EventKind::LiveMergeFailed]);
    assert_eq!(tasks(&lost)[0].state, DiskState::Failed(died()));
    assert_eq!(lost.operation.state, OperationState::Running);
    let failed = record.enter(MergeSight::Absent, None);
    assert_eq!(kinds(&failed), [EventKind::SnapshotDeleteFailed]);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    let left = record.snapshot("s").unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert_eq!(left.disks[0].merging, Some(merging("a", &["b"])));
}

#[test]
fn a_refusal_at_planning_leaves_the_snapshot_whole() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, planning());
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(surveyed(vec![chain("vda", &["x", "y"])]));
    let failed = change(seen.decide(&delete));
    assert!(
        matches!(failed.operation.state, OperationState::Failed(ref f) if f.reason == Reason::ChainDiverged)
    );
    let left = put(&failed, snapshot.id).unwrap();
    assert_eq!(left.state, SnapshotState::Ready);
    // Even one that has no disk: what has no plan is not done.
    let empty = self::snapshot("empty", &[]);
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        ..Seen::of(&empty)
    };
    let failed = change(seen.decide(&operation(&empty, planning())));
    assert!(put(&failed, empty.id).is_some());
}

/// A snapshot of these disks: target, volume, and the one that is being merged into it.
fn marked(name: &str, disks: &[(&str, &str, Option<&str>)]) -> Snapshot {
    let named: Vec<_> = disks.iter().map(|(disk, kept, _)| (*disk, *kept)).collect();
    let mut snapshot = snapshot(name, &named);
    for (disk, (_, kept, removed)) in snapshot.disks.iter_mut().zip(disks) {
        disk.merging = removed.map(|removed| merging(kept, &[removed]));
    }
    snapshot
}

/// What a refusal of the merges that are ordered now leaves of the snapshot.
fn left_by(
    snapshot: &Snapshot,
    tasks: Vec<DiskTask>,
    (reason, attempts): (Reason, u32),
) -> Snapshot {
    let mut record = Record::of(std::slice::from_ref(snapshot), disks(tasks));
    let refused_now = |record: &Record| {
        let seen = Seen {
            answer: Some(refused(reason)),
            attempts,
            ..record.seen()
        };
        change(seen.decide(&record.operation))
    };
    let ordered = record
        .tasks()
        .iter()
        .filter(|task| task.state == DiskState::Merging)
        .count();
    let lost = refused_now(&record);
    assert_eq!(kinds(&lost), vec![EventKind::LiveMergeFailed; ordered]);
    record.apply(&lost);
    let failed = record.enter(MergeSight::Absent, None);
    assert_eq!(kinds(&failed), [EventKind::SnapshotDeleteFailed]);
    record.snapshot("s").unwrap().clone()
}

#[test]
fn merges_that_were_refused_leave_the_snapshot_whole() {
    let snapshot = marked("s", &[("vda", "a", Some("b")), ("vdb", "c", Some("d"))]);
    let of = std::slice::from_ref(&snapshot);
    // Also after answers that were lost: no earlier copy of the order is carried out any more.
    for (second, attempts) in [
        (DiskState::Merging, 1),
        (DiskState::Pending, 1),
        (DiskState::Merging, 3),
    ] {
        let tasks = vec![
            task(of, "vda", "a", &["b"], DiskState::Merging),
            DiskTask {
                round: u32::from(second == DiskState::Pending),
                ..task(of, "vdb", "c", &["d"], second)
            },
        ];
        let left = left_by(&snapshot, tasks, (Reason::ConcurrentChange, attempts));
        assert_eq!(left.state, SnapshotState::Ready);
        assert!(left.disks.iter().all(|disk| disk.merging.is_none()));
        assert_eq!(left.disks.len(), 2);
    }
}

#[test]
fn a_refusal_after_another_disk_was_merged_unmarks_the_disk_alone() {
    let snapshot = marked("s", &[("vdb", "c", Some("d")), ("vdc", "e", Some("f"))]);
    let of = std::slice::from_ref(&snapshot);
    let tasks = vec![
        task(of, "vda", "a", &["b"], removed()),
        task(of, "vdb", "c", &["d"], DiskState::Merging),
        DiskTask {
            round: 1,
            ..task(of, "vdc", "e", &["f"], DiskState::Pending)
        },
    ];
    let left = left_by(&snapshot, tasks, (Reason::VmNotRunning, 1));
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert!(left.disks.iter().all(|disk| disk.merging.is_none()));
}

#[test]
fn a_refusal_gives_back_what_an_earlier_delete_had_marked() {
    let mut snapshot = marked("s", &[("vda", "a", Some("b")), ("vdb", "c", Some("d"))]);
    snapshot.was_incomplete = true;
    let of = std::slice::from_ref(&snapshot);
    let mut begun = task(of, "vda", "a", &["b"], DiskState::Merging);
    begun.deletes[0].earlier = Some(merging("a", &["b", "x"]));
    let tasks = vec![begun, task(of, "vdb", "c", &["d"], DiskState::Merging)];
    let left = left_by(&snapshot, tasks, (Reason::SnapshotSharedBase, 1));
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert_eq!(left.disks[0].merging, Some(merging("a", &["b", "x"])));
    assert_eq!(left.disks[1].merging, None);
}

#[test]
fn a_refusal_is_no_proof_when_the_merge_may_have_begun() {
    let snapshot = marked("s", &[("vda", "a", Some("b"))]);
    let of = std::slice::from_ref(&snapshot);
    let begin = || vec![task(of, "vda", "a", &["b"], DiskState::Merging)];
    let whole = operation(&snapshot, disks(begin()));
    let old = Operation {
        started_at: Some(now() - jiff::SignedDuration::from_hours(25)),
        ..whole.clone()
    };
    // A journal that has forgotten; one that has another merge of that id; who does not understand the order,
    // while an earlier try is on its way; a journal that was damaged after the order was accepted.
    let cases = [
        (&old, 1, Reason::ChainDiverged, false),
        (&whole, 1, Reason::MergeIdConflict, false),
        (&whole, 2, Reason::AgentIncompatible, false),
        (&whole, 2, Reason::FieldInvalid, false),
        (&whole, 1, Reason::ConcurrentChange, true),
    ];
    for (operation, attempts, reason, begun) in cases {
        let seen = Seen {
            answer: Some(refused(reason)),
            attempts,
            begun,
            ..Seen::of(&snapshot)
        };
        let lost = change(seen.decide(operation));
        assert!(matches!(tasks(&lost)[0].state, DiskState::Failed(_)));
        let failed = change(Seen::of(&snapshot).decide(&lost.operation));
        let left = put(&failed, snapshot.id).unwrap();
        assert_eq!(left.state, SnapshotState::Incomplete, "{attempts} {reason}");
        assert_eq!(left.disks[0].merging, Some(merging("a", &["b"])));
    }
}

#[test]
fn a_snapshot_that_was_incomplete_is_never_ready_again() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.was_incomplete = true;
    let delete = operation(&snapshot, planning());
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&delete));
    let left = put(&failed, snapshot.id).unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
}

#[test]
fn a_volume_that_stays_in_use_is_waited_for_until_it_is_cancelled_and_a_later_delete_goes_on() {
    let snapshot = marked("s", &[("vda", "a", Some("b"))]);
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "a", &["b"], removing());
    let mut record = Record::of(of, disks(vec![task]));
    let tried = |record: &Record, attempts| {
        let seen = Seen {
            answer: Some(refused(Reason::VolumeInUse)),
            attempts,
            ..record.seen()
        };
        seen.decide(&record.operation)
    };
    record.apply(&note(tried(&record, 1)));
    for attempts in [12, 1000, u32::MAX] {
        let waits = wait(tried(&record, attempts));
        assert_eq!(waits.cause.unwrap().reason, Reason::VolumeInUse);
        assert!(waits.time <= Duration::from_secs(60));
        assert!(attempts == 12 || waits.time >= Duration::from_secs(30));
    }
    assert!(record.operation.may_turn_back());
    record.operation.cancel_requested = true;
    // What is gone by then is no longer waited for.
    let late = record
        .clone()
        .enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(late.operation.state, OperationState::Succeeded);
    let cancelled = change(tried(&record, 2000));
    assert_eq!(kinds(&cancelled), [EventKind::OperationCancelled]);
    assert_eq!(cancelled.operation.state, OperationState::Cancelled);
    record.apply(&cancelled);
    let left = record.snapshot("s").unwrap().clone();
    assert_eq!(left.state, SnapshotState::Incomplete);
    let mut second = Record::of(&[left.deleting()], planning());
    second.enter(
        MergeSight::Absent,
        Some(surveyed(vec![chain("vda", &["a", "c"])])),
    );
    let order = removal(second.decide(MergeSight::Absent, None));
    assert_eq!(order.volume, mark("b"));
}
