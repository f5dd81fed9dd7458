//! What a delete that fails or is refused leaves of the snapshot.

use super::*;

#[test]
fn a_failed_merge_leaves_the_snapshot_in_the_list() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let work = Work::Delete(DeletePhase::Disks(vec![task(
        "vda",
        "a",
        "b",
        DiskState::Merging,
    )]));
    let delete = operation(&snapshot, work);
    let failure = Failure::new(Reason::VmDied, "it died");
    let seen = Seen {
        merge: merge(MergePhase::Failed(failure.clone())),
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&delete));
    assert_eq!(failed.operation.state, OperationState::Failed(failure));
    assert_eq!(
        kinds(&failed),
        [EventKind::LiveMergeFailed, EventKind::SnapshotDeleteFailed]
    );
    assert_eq!(
        put(&failed, snapshot.id).unwrap().state,
        SnapshotState::Incomplete
    );
}

#[test]
fn a_refusal_at_planning_leaves_the_snapshot_whole() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(read(vec![chain("vda", &["x", "y"])]));
    let failed = change(seen.decide(&delete));
    assert!(
        matches!(failed.operation.state, OperationState::Failed(ref f) if f.reason == Reason::ChainDiverged)
    );
    assert_eq!(
        put(&failed, snapshot.id).unwrap().state,
        SnapshotState::Ready
    );
}

/// A delete with these disks.
fn disks(snapshot: &Snapshot, tasks: Vec<DiskTask>) -> Operation {
    operation(snapshot, Work::Delete(DeletePhase::Disks(tasks)))
}

fn marked(name: &str, disks: &[(&str, &str, Option<&str>)]) -> Snapshot {
    let named: Vec<_> = disks.iter().map(|(disk, base, _)| (*disk, *base)).collect();
    let mut snapshot = snapshot(name, &named);
    for (disk, (_, _, top)) in snapshot.disks.iter_mut().zip(disks) {
        disk.merging = top.map(mark);
    }
    snapshot
}

/// What a refusal of the merge that is ordered now leaves of the snapshot.
fn left_by(snapshot: &Snapshot, tasks: Vec<DiskTask>, reason: Reason) -> Snapshot {
    let seen = Seen {
        answer: Some(refused(reason)),
        attempts: 1,
        ..Seen::of(snapshot)
    };
    let failed = change(seen.decide(&disks(snapshot, tasks)));
    assert_eq!(
        kinds(&failed),
        [EventKind::LiveMergeFailed, EventKind::SnapshotDeleteFailed]
    );
    put(&failed, snapshot.id).unwrap().clone()
}

#[test]
fn a_merge_that_was_refused_leaves_the_snapshot_whole() {
    let snapshot = marked("s", &[("vda", "a", Some("b")), ("vdb", "c", Some("d"))]);
    let tasks = vec![
        task("vda", "a", "b", DiskState::Merging),
        task("vdb", "c", "d", DiskState::Pending),
    ];
    let left = left_by(&snapshot, tasks, Reason::ConcurrentChange);
    assert_eq!(left.state, SnapshotState::Ready);
    assert!(left.disks.iter().all(|disk| disk.merging.is_none()));
    assert_eq!(left.disks.len(), 2);
}

#[test]
fn a_refusal_after_another_disk_was_merged_unmarks_the_disk_alone() {
    let snapshot = marked("s", &[("vdb", "c", Some("d")), ("vdc", "e", Some("f"))]);
    let removed = DiskState::Removed {
        copied_bytes: 1,
        longest_pause: Duration::ZERO,
        freed_bytes: 1,
    };
    let tasks = vec![
        task("vda", "a", "b", removed),
        task("vdb", "c", "d", DiskState::Merging),
        task("vdc", "e", "f", DiskState::Pending),
    ];
    let left = left_by(&snapshot, tasks, Reason::VmNotRunning);
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert!(left.disks.iter().all(|disk| disk.merging.is_none()));
}

#[test]
fn a_refusal_gives_back_what_an_earlier_delete_had_marked() {
    let mut snapshot = marked("s", &[("vda", "a", Some("b")), ("vdb", "c", Some("d"))]);
    snapshot.was_incomplete = true;
    let mut begun = task("vda", "a", "b", DiskState::Merging);
    begun.earlier = Some(mark("b"));
    let tasks = vec![begun, task("vdb", "c", "d", DiskState::Pending)];
    let left = left_by(&snapshot, tasks, Reason::SnapshotSharedBase);
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert_eq!(left.disks[0].merging, Some(mark("b")));
    assert_eq!(left.disks[1].merging, None);
}

#[test]
fn a_refusal_is_no_proof_when_the_merge_may_have_begun() {
    let snapshot = marked("s", &[("vda", "a", Some("b"))]);
    let tasks = || vec![task("vda", "a", "b", DiskState::Merging)];
    let whole = disks(&snapshot, tasks());
    let old = Operation {
        started_at: Some(now() - jiff::SignedDuration::from_hours(25)),
        ..whole.clone()
    };
    // A lost answer before; a journal that has forgotten; one that has another merge of that id;
    // one that was damaged after the order was accepted.
    let cases = [
        (&whole, 2, Reason::ChainDiverged, false),
        (&old, 1, Reason::ChainDiverged, false),
        (&whole, 1, Reason::MergeIdConflict, false),
        (&whole, 1, Reason::ConcurrentChange, true),
    ];
    for (operation, attempts, reason, begun) in cases {
        let seen = Seen {
            answer: Some(refused(reason)),
            attempts,
            begun,
            ..Seen::of(&snapshot)
        };
        let failed = change(seen.decide(operation));
        let left = put(&failed, snapshot.id).unwrap();
        assert_eq!(left.state, SnapshotState::Incomplete, "{attempts} {reason}");
        assert_eq!(left.disks[0].merging, Some(mark("b")));
    }
}

#[test]
fn a_snapshot_that_was_incomplete_is_never_ready_again() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.was_incomplete = true;
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&delete));
    let left = put(&failed, snapshot.id).unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
}
