//! Several runs on one disk: each round is wholly done before the next begins.

use super::*;

/// Snapshots of `a` and of `d`: two runs on one disk, and the second's other disk in round 0.
fn planned() -> Record {
    let both = [
        snapshot("s1", &[("vda", "a")]),
        snapshot("s2", &[("vda", "d"), ("vdb", "m")]),
    ];
    let mut record = Record::of(&both, planning());
    let chains = vec![
        chain("vda", &["a", "b", "c", "d", "e", "f"]),
        chain("vdb", &["m", "n"]),
    ];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    record
}

fn phases(record: &Record) -> Vec<(u32, &'static str)> {
    let phase = |state: &DiskState| match state {
        DiskState::Pending => "pending",
        DiskState::Merging => "merging",
        DiskState::Removing { .. } => "removing",
        DiskState::Removed { .. } => "removed",
        DiskState::Cancelled => "cancelled",
        DiskState::Failed(_) | DiskState::Refused(_) => "lost",
    };
    let of = |task: &DiskTask| (task.round, phase(&task.state));
    record.tasks().iter().map(of).collect()
}

#[test]
fn the_next_round_begins_when_all_of_the_one_before_is_removed() {
    let mut record = planned();
    assert_eq!(
        phases(&record),
        [(0, "merging"), (0, "merging"), (1, "pending")]
    );
    for _ in 0..2 {
        record.enter(merge(MergePhase::Merged), None);
    }
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(
        phases(&record),
        [(0, "removed"), (0, "removing"), (1, "pending")]
    );
    let left = record.snapshot("s1").expect("rows go at the end");
    assert_eq!((left.state, left.disks.len()), (SnapshotState::Deleting, 0));
    let next = record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(
        kinds(&next),
        [EventKind::VolumeRemoved, EventKind::LiveMergeStarted]
    );
    let on = record.snapshot("s2").unwrap();
    assert_eq!(on.disks.len(), 1, "what is done leaves the snapshot");
    assert_eq!(on.disks[0].merging, Some(begun("d", &["e"])));
    let ordered = orders(record.decide(MergeSight::Absent, None));
    assert_eq!(ordered.len(), 1);
    assert_eq!(ordered[0].kept, mark("d"));
    record.enter(merge(MergePhase::Merged), None);
    let done = record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(record.operation.state, OperationState::Succeeded);
    assert!(record.snapshots.is_empty());
    let rows = [
        EventKind::VolumeRemoved,
        EventKind::SnapshotDeleted,
        EventKind::SnapshotDeleted,
    ];
    assert_eq!(kinds(&done), rows);
}

#[test]
fn no_round_follows_one_that_has_lost_a_disk() {
    let mut record = planned();
    let first = record.tasks()[0].clone();
    let seen = record.seen().but(&first, merge(MergePhase::Merged));
    let merged = change(seen.decide(&record.operation));
    record.apply(&merged);
    record.enter(merge(MergePhase::Failed(died())), None);
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(
        phases(&record),
        [(0, "removed"), (0, "lost"), (1, "pending")]
    );
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    assert!(record.snapshot("s1").is_none(), "all of it is done");
    let second = record.snapshot("s2").unwrap();
    assert_eq!(second.state, SnapshotState::Incomplete);
    assert_eq!(second.disks[0].merging, None, "its turn never came");
    assert_eq!(second.disks[1].merging, Some(merging("m", &["n"])));
}

#[test]
fn what_is_given_back_of_an_earlier_delete_follows_the_data_too() {
    let mut later = snapshot("s2", &[("vda", "c")]);
    later.was_incomplete = true;
    later.disks[0].merging = Some(merging("e", &["b", "c"]));
    let both = [snapshot("s1", &[("vda", "a")]), later];
    let mut record = Record::of(&both, planning());
    let chains = vec![chain("vda", &["a", "b", "c", "d", "e"])];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    record.enter(merge(MergePhase::Merged), None);
    record.operation.cancel_requested = true;
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    record.enter(MergeSight::Absent, None);
    let left = record.snapshot("s2").unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
    let wanted = merging("e", &["c"]);
    assert_eq!(left.disks[0].merging, Some(wanted), "b is in a now");
}

#[test]
fn a_snapshot_whose_turn_never_came_is_ready_again() {
    let both = [
        snapshot("s1", &[("vda", "a")]),
        snapshot("s2", &[("vda", "c")]),
    ];
    let mut record = Record::of(&both, planning());
    let chains = vec![chain("vda", &["a", "b", "c", "d"])];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    record.enter(merge(MergePhase::Failed(died())), None);
    record.enter(MergeSight::Absent, None);
    let state = |name| record.snapshot(name).unwrap().state;
    assert_eq!(state("s1"), SnapshotState::Incomplete);
    assert_eq!(state("s2"), SnapshotState::Ready);
}

#[test]
fn what_was_merged_before_is_removed_in_the_first_round() {
    let mut old = snapshot("old", &[("vda", "a")]);
    old.disks[0].merging = Some(merging("a", &["b"]));
    let both = [old, snapshot("new", &[("vda", "c")])];
    let mut record = Record::of(&both, planning());
    let chains = vec![chain("vda", &["a", "c", "d", "e"])];
    record.enter(MergeSight::Absent, Some(surveyed(chains)));
    assert_eq!(phases(&record), [(0, "removing"), (0, "merging")]);
    assert_eq!(orders(record.decide(MergeSight::Absent, None)).len(), 1);
    record.enter(merge(MergePhase::Merged), None);
    for name in ["b", "d"] {
        let order = removal(record.decide(MergeSight::Absent, None));
        assert_eq!(order.volume, mark(name));
        record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    }
    assert_eq!(record.operation.state, OperationState::Succeeded);
}
