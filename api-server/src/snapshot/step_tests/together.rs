//! Several disks in one round: ordered together, and each with its own end.

use super::*;

/// A snapshot of two disks, its merges ordered.
fn two_disks() -> (Record, [DiskTask; 2]) {
    let mut snapshot = snapshot("s", &[("vda", "a"), ("vdb", "m")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    snapshot.disks[1].merging = Some(merging("m", &["n"]));
    let of = std::slice::from_ref(&snapshot);
    let first = task(of, "vda", "a", &["b"], DiskState::Merging);
    let second = task(of, "vdb", "m", &["n"], DiskState::Merging);
    let record = Record::of(of, disks(vec![first.clone(), second.clone()]));
    (record, [first, second])
}

/// What is written down when the two merges are shown so.
fn shown(record: &mut Record, of: &[DiskTask; 2], sights: [MergeSight; 2]) -> Change {
    let [first, second] = sights;
    let seen = record.seen().but(&of[0], first).but(&of[1], second);
    let change = change(seen.decide(&record.operation));
    record.apply(&change);
    change
}

fn states(record: &Record) -> Vec<DiskState> {
    record
        .tasks()
        .iter()
        .map(|task| task.state.clone())
        .collect()
}

#[test]
fn all_merges_of_a_round_are_ordered_at_once() {
    let (mut record, [first, second]) = two_disks();
    let ordered = orders(record.decide(MergeSight::Absent, None));
    let ids: Vec<_> = ordered.iter().map(|order| order.id).collect();
    assert_eq!(ids, [first.merge, second.merge]);
    // A third disk, of the next round, is not among them; one that is merged already neither.
    let of = record.snapshots.clone();
    let later = DiskTask {
        round: 1,
        ..task(&of, "vdc", "x", &["y"], DiskState::Pending)
    };
    let merged = task(&of, "vdd", "p", &["q"], removing());
    record.operation.work = disks(vec![merged, first.clone(), second.clone(), later]);
    let ordered = orders(record.decide(MergeSight::Absent, None));
    let ids: Vec<_> = ordered.iter().map(|order| order.id).collect();
    assert_eq!(ids, [first.merge, second.merge]);
}

#[test]
fn nothing_is_ordered_while_one_of_them_cannot_be_seen() {
    let (record, of) = two_disks();
    let seen = record.seen().but(&of[0], MergeSight::Unknown);
    let cause = wait(seen.decide(&record.operation)).cause.unwrap();
    assert_eq!(cause.reason, Reason::HostUnreachable);
}

#[test]
fn a_host_that_has_half_of_them_is_asked_for_all_again() {
    let (record, of) = two_disks();
    let seen = record.seen().but(&of[0], merge(MergePhase::Pending));
    assert_eq!(orders(seen.decide(&record.operation)).len(), 2);
}

#[test]
fn a_lost_disk_waits_for_the_others_end_before_the_operation_ends() {
    let (mut record, of) = two_disks();
    let failed = || merge(MergePhase::Failed(died()));
    let lost = shown(&mut record, &of, [failed(), merge(MergePhase::Copying)]);
    assert_eq!(kinds(&lost), [EventKind::LiveMergeFailed]);
    assert_eq!(
        states(&record),
        [DiskState::Failed(died()), DiskState::Merging]
    );
    let copying = record.seen().but(&of[1], merge(MergePhase::Cancelling));
    wait(copying.decide(&record.operation));
    let given_up = shown(&mut record, &of, [failed(), merge(MergePhase::Cancelled)]);
    assert_eq!(kinds(&given_up), [EventKind::LiveMergeCancelled]);
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    assert_eq!(
        states(&record),
        [DiskState::Failed(died()), DiskState::Cancelled]
    );
    let left = record.snapshot("s").unwrap();
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert_eq!(left.disks[0].merging, Some(merging("a", &["b"])));
    assert_eq!(left.disks[1].merging, Some(merging("m", &["n"])));
}

#[test]
fn the_order_of_the_ends_makes_no_difference() {
    let (mut record, of) = two_disks();
    shown(
        &mut record,
        &of,
        [
            merge(MergePhase::Cancelling),
            merge(MergePhase::Failed(died())),
        ],
    );
    shown(
        &mut record,
        &of,
        [merge(MergePhase::Cancelled), MergeSight::Absent],
    );
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
}

#[test]
fn of_a_merged_and_a_failed_disk_a_second_delete_does_what_is_left() {
    let (mut record, of) = two_disks();
    record.others = vec![snapshot("young", &[("vda", "b"), ("vdb", "n")])];
    let merged = shown(
        &mut record,
        &of,
        [merge(MergePhase::Merged), merge(MergePhase::Copying)],
    );
    assert_eq!(kinds(&merged), [EventKind::LiveMergeCompleted]);
    // The removal waits: the other merge of the round is under way.
    let copying = record.seen().but(&of[1], merge(MergePhase::Copying));
    wait(copying.decide(&record.operation));
    shown(
        &mut record,
        &of,
        [MergeSight::Absent, merge(MergePhase::Failed(died()))],
    );
    assert_eq!(
        removal(record.decide(MergeSight::Absent, None)).volume,
        mark("b")
    );
    let one_gone = record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(kinds(&one_gone), [EventKind::VolumeRemoved]);
    record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    let left = record.snapshot("s").unwrap().clone();
    assert_eq!(left.state, SnapshotState::Incomplete);
    assert_eq!(left.disks.len(), 1, "{:?}", left.disks);
    assert_eq!(left.disks[0].merging, Some(merging("m", &["n"])));
    let young = record.snapshot("young").unwrap();
    assert_eq!(
        (&young.disks[0].volume, &young.disks[1].volume),
        (&volume("a"), &volume("n"))
    );

    let mut second = Record::of(&[left.deleting()], planning());
    second.others.clone_from(&record.others);
    let chains = vec![chain("vda", &["a", "c"]), chain("vdb", &["m", "n", "o"])];
    second.enter(MergeSight::Absent, Some(surveyed(chains)));
    let ordered = orders(second.decide(MergeSight::Absent, None));
    assert_eq!(ordered.len(), 1);
    assert_eq!(
        (&ordered[0].kept, &ordered[0].removed),
        (&mark("m"), &vec![mark("n")])
    );
    second.enter(merge(MergePhase::Merged), None);
    second.enter(MergeSight::Absent, Some(gone(&second.operation)));
    assert_eq!(second.operation.state, OperationState::Succeeded);
    assert!(second.snapshot("s").is_none());
    let young = second.snapshot("young").unwrap();
    assert_eq!(young.disks[1].volume, volume("m"));
}

#[test]
fn in_a_batch_each_snapshot_that_is_done_goes_whatever_became_of_another() {
    let mut done = snapshot("done", &[("vda", "a")]);
    let mut lost = snapshot("lost", &[("vdb", "m")]);
    done.disks[0].merging = Some(merging("a", &["b"]));
    lost.disks[0].merging = Some(merging("m", &["n"]));
    let both = [done, lost];
    let of = [
        task(&both[..1], "vda", "a", &["b"], DiskState::Merging),
        task(&both[1..], "vdb", "m", &["n"], DiskState::Merging),
    ];
    let mut record = Record::of(&both, disks(of.to_vec()));
    let failed = merge(MergePhase::Failed(died()));
    shown(
        &mut record,
        &of,
        [merge(MergePhase::Merged), failed.clone()],
    );
    shown(&mut record, &of, [MergeSight::Absent, failed]);
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    let ended = record.enter(MergeSight::Absent, None);
    assert_eq!(record.operation.state, OperationState::Failed(died()));
    assert_eq!(
        kinds(&ended),
        [EventKind::SnapshotDeleted, EventKind::SnapshotDeleteFailed]
    );
    assert_eq!(ended.events[0].snapshot, Some(both[0].id));
    assert!(record.snapshot("done").is_none());
    assert_eq!(
        record.snapshot("lost").unwrap().state,
        SnapshotState::Incomplete
    );
}

#[test]
fn all_snapshots_of_a_run_name_what_is_kept() {
    let mut first = snapshot("first", &[("vda", "a")]);
    let mut second = snapshot("second", &[("vda", "b")]);
    for snapshot in [&mut first, &mut second] {
        snapshot.disks[0].merging = Some(merging("d", &["a", "b"]));
    }
    let both = [first, second];
    let pull = DiskTask {
        kind: MergeKind::Pull,
        ..task(&both, "vda", "d", &["a", "b"], DiskState::Merging)
    };
    let mut record = Record::of(&both, disks(vec![pull]));
    record.others = vec![snapshot("older", &[("vda", "z")])];
    let order = orders(record.decide(MergeSight::Absent, None)).remove(0);
    assert_eq!(order.direction, Direction::Pull);
    record.enter(merge(MergePhase::Merged), None);
    for (name, now) in [("first", "d"), ("second", "d"), ("older", "z")] {
        let volume_now = &record.snapshot(name).unwrap().disks[0].volume;
        assert_eq!(*volume_now, volume(now), "{name}");
    }
}
