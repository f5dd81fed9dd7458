//! A delete of one snapshot, from its plan to the end of the row.

use super::*;

fn merging_delete() -> (Snapshot, Operation) {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "a", &["b"], DiskState::Merging);
    let delete = operation(&snapshot, disks(vec![task]));
    (snapshot, delete)
}

#[test]
fn the_plan_marks_the_snapshot_before_anything_is_ordered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, planning());
    let mut seen = Seen::of(&snapshot);
    assert_eq!(ask(seen.decide(&delete)), Ask::Survey(snapshot.vm));
    seen.answer = Some(surveyed(vec![chain("vda", &["a", "b", "c"])]));
    let planned = change(seen.decide(&delete));
    assert_eq!(
        kinds(&planned),
        [EventKind::LiveMergePlanned, EventKind::LiveMergeStarted]
    );
    let marked = put(&planned, snapshot.id).unwrap();
    assert_eq!(marked.state, SnapshotState::Deleting);
    assert_eq!(marked.disks[0].merging, Some(begun("a", &["b"])));
    let task = &tasks(&planned)[0];
    assert_eq!(task.merging(), begun("a", &["b"]));
    assert_eq!(
        (task.kind, &task.state),
        (MergeKind::Commit, &DiskState::Merging)
    );
}

#[test]
fn the_merge_is_ordered_until_it_is_seen() {
    let (snapshot, delete) = merging_delete();
    let mut seen = Seen::of(&snapshot);
    let order = orders(seen.decide(&delete));
    let task = &work(&delete)[0];
    let wanted = MergeOrder {
        id: task.merge,
        vm: snapshot.vm,
        disk: task.disk.clone(),
        direction: Direction::Commit,
        kept: mark("a"),
        removed: vec![mark("b")],
        spare: None,
        bytes_per_second: 0,
    };
    assert_eq!(order, [wanted]);
    seen.answer = Some(Answer::MergesAccepted);
    assert_eq!(wait(seen.decide(&delete)).cause, None);
    seen.answer = Some(unknown());
    let waits = wait(seen.decide(&hindered(&delete, Reason::HostUnreachable)));
    assert!(waits.sign == Sign::Return && waits.cause.is_some());
    seen.merge = merge(MergePhase::Copying);
    wait(seen.decide(&delete));
}

#[test]
fn after_the_merge_the_record_follows_the_data() {
    let old = snapshot("old", &[("vda", "a"), ("vdb", "a")]);
    let young = snapshot("young", &[("vda", "b"), ("vdb", "b")]);
    let of = std::slice::from_ref(&old);
    let task = task(of, "vda", "a", &["b"], DiskState::Merging);
    let delete = operation(&old, disks(vec![task]));
    let others = [young.clone()];
    let seen = Seen {
        others: &others,
        merge: merge(MergePhase::Merged),
        ..Seen::of(&old)
    };
    let merged = change(seen.decide(&delete));
    assert_eq!(kinds(&merged), [EventKind::LiveMergeCompleted]);
    let followed = put(&merged, young.id).unwrap();
    assert_eq!(
        followed.disks[0].volume,
        volume("a"),
        "the data of b is in a"
    );
    assert_eq!(
        followed.disks[1].volume,
        volume("b"),
        "the other disk is not merged"
    );
    assert!(matches!(
        tasks(&merged)[0].state,
        DiskState::Removing {
            copied_bytes: 5,
            gone: 0,
            ..
        }
    ));
    assert!(put(&merged, old.id).is_none(), "its row goes last");
}

#[test]
fn the_rows_end_comes_with_the_volumes_end() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "a", &["b"], removing());
    let delete = operation(&snapshot, disks(vec![task]));
    let mut seen = Seen::of(&snapshot);
    assert_eq!(removal(seen.decide(&delete)).volume, mark("b"));
    seen.answer = Some(gone(&delete));
    let done = change(seen.decide(&delete));
    assert_eq!(done.operation.state, OperationState::Succeeded);
    assert_eq!(
        kinds(&done),
        [EventKind::VolumeRemoved, EventKind::SnapshotDeleted]
    );
    assert!(deletes(&done, snapshot.id));
}

#[test]
fn volumes_are_ordered_together_the_youngest_first_and_each_is_written_down_as_it_goes() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "d", &["a", "b", "c"], removing());
    let removals: Vec<_> = task.removed.iter().map(|it| it.removal).collect();
    let mut record = Record::of(of, disks(vec![task]));
    for (place, name) in ["a", "b", "c"].iter().enumerate().rev() {
        // A server that starts here asks for what is left, under the same ids, and not for those before.
        for _ in 0..2 {
            let orders = self::removals(record.decide(MergeSight::Absent, None));
            assert_eq!(orders.len(), place + 1);
            let first = &orders[0];
            assert_eq!((&first.volume, first.id), (&mark(name), removals[place]));
        }
        assert!(record.snapshot("s").is_some());
        let entered = record.enter(MergeSight::Absent, Some(gone(&record.operation)));
        assert_eq!(entered.events[0].kind, EventKind::VolumeRemoved);
        assert_eq!(
            entered.events[0].details["volume"],
            volume(name).to_string()
        );
    }
    assert_eq!(record.operation.state, OperationState::Succeeded);
    assert!(
        matches!(
            record.tasks()[0].state,
            DiskState::Removed {
                freed_bytes: 9,
                copied_bytes: 5,
                ..
            }
        ),
        "{:?}",
        record.tasks()[0].state
    );
    assert!(record.snapshot("s").is_none());
}

#[test]
fn the_volumes_of_all_disks_are_ordered_together_and_written_down_together() {
    let mut snapshot = snapshot("s", &[("vda", "a"), ("vdb", "m")]);
    snapshot.disks[0].merging = Some(merging("a", &["b", "c"]));
    snapshot.disks[1].merging = Some(merging("m", &["n"]));
    let of = std::slice::from_ref(&snapshot);
    let tasks = vec![
        task(of, "vda", "a", &["b", "c"], removing()),
        task(of, "vdb", "m", &["n"], removing()),
    ];
    let mut record = Record::of(of, disks(tasks));
    let orders = removals(record.decide(MergeSight::Absent, None));
    let named: Vec<_> = orders.iter().map(|order| order.volume.clone()).collect();
    assert_eq!(named, ["c", "b", "n"].map(mark));
    // One of them may not go: the others are written down, and that one alone is asked for again.
    let mut came = Removals::new();
    for order in [&orders[0], &orders[2]] {
        came.insert(order.id, Ok(is_gone()));
    }
    let in_use = Problem::new(Reason::VolumeInUse, "somebody has it open");
    came.insert(orders[1].id, Err(HostError::Refused(in_use.clone())));
    let entered = record.enter(MergeSight::Absent, Some(Answer::Removals(came)));
    assert_eq!(kinds(&entered), [EventKind::VolumeRemoved; 2]);
    let left = record.snapshot("s").unwrap();
    assert_eq!(left.disks.len(), 1, "the other disk is done: {left:?}");
    let again = removals(record.decide(MergeSight::Absent, None));
    assert_eq!(again, orders[1..2]);
    let refused = Removals::from([(orders[1].id, Err(HostError::Refused(in_use.clone())))]);
    let refused = || Some(Answer::Removals(refused.clone()));
    let told = note(record.decide(MergeSight::Absent, refused()));
    assert_eq!(kinds(&told), [EventKind::VolumeRemovalRefused]);
    record.apply(&told);
    let waits = wait(record.decide(MergeSight::Absent, refused()));
    assert_eq!(waits.cause, Some(in_use));
    let done = record.enter(MergeSight::Absent, Some(all_gone(&again)));
    assert_eq!(done.operation.state, OperationState::Succeeded);
    assert!(record.snapshot("s").is_none());
}

#[test]
fn what_is_gone_before_its_younger_neighbour_is_asked_for_again() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let of = std::slice::from_ref(&snapshot);
    let tasks = vec![task(of, "vda", "a", &["b", "c"], removing())];
    let mut record = Record::of(of, disks(tasks));
    let orders = removals(record.decide(MergeSight::Absent, None));
    let older = Removals::from([(orders[1].id, Ok(is_gone()))]);
    let waits = record.decide(MergeSight::Absent, Some(Answer::Removals(older)));
    assert!(matches!(waits, Step::Wait(_)), "{waits:?}");
    assert_eq!(removals(record.decide(MergeSight::Absent, None)), orders);
    record.enter(MergeSight::Absent, Some(all_gone(&orders)));
    assert_eq!(record.operation.state, OperationState::Succeeded);
}

#[test]
fn what_an_earlier_delete_has_merged_is_only_removed() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(merging("a", &["b", "c"]));
    let young = self::snapshot("young", &[("vda", "c")]);
    let mut record = Record::of(&[snapshot], planning());
    record.others = vec![young];
    let answer = surveyed(vec![chain("vda", &["a", "d"])]);
    record.enter(MergeSight::Absent, Some(answer));
    let task = &record.tasks()[0];
    assert_eq!(task.merging(), merging("a", &["b", "c"]));
    assert!(matches!(task.state, DiskState::Removing { .. }));
    let young = record.snapshot("young").unwrap();
    assert_eq!(young.disks[0].volume, volume("a"));
    assert_eq!(
        removal(record.decide(MergeSight::Absent, None)).volume,
        mark("c"),
        "c is built on b"
    );
}

#[test]
fn what_a_failed_batch_has_merged_is_only_removed_for_each_of_its_snapshots() {
    let marked = |name, frozen| {
        let mut snapshot = snapshot(name, &[("vda", frozen)]);
        snapshot.disks[0].merging = Some(merging("a", &["b", "c"]));
        snapshot.was_incomplete = true;
        snapshot
    };
    let mut record = Record::of(&[marked("s1", "a")], planning());
    record.others = vec![marked("s2", "b")];
    let chains = || surveyed(vec![chain("vda", &["a", "d"])]);
    record.enter(MergeSight::Absent, Some(chains()));
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    record.enter(MergeSight::Absent, Some(gone(&record.operation)));
    assert_eq!(record.operation.state, OperationState::Succeeded);
    assert!(record.snapshot("s1").is_none());
    // The other one names `a` now, which has its data and more: nothing is merged into that.
    let mut second = Record::of(&record.others, planning());
    second.enter(MergeSight::Absent, Some(chains()));
    assert!(matches!(
        second.tasks()[0].state,
        DiskState::Removing { .. }
    ));
}

/// A snapshot of which a merge was begun, when another delete on its disk has merged.
fn after_another(own: (&str, Merging), other: DiskTask) -> SnapshotDisk {
    let mut snapshot = snapshot("s", &[("vda", own.0)]);
    snapshot.disks[0].merging = Some(own.1);
    let deleted = self::snapshot("deleted", &[("vda", "x")]);
    let mut record = Record::of(&[deleted], disks(vec![other]));
    record.others = vec![snapshot];
    record.enter(merge(MergePhase::Merged), None);
    record.snapshot("s").unwrap().disks[0].clone()
}

#[test]
fn an_unfinished_merge_follows_the_data_too() {
    let commit = |kept, removed| task(&[], "vda", kept, &[removed], DiskState::Merging);
    // `b` was merged into `a` and could not be removed; then `a` is merged into `z`.
    let done = after_another(("a", merging("a", &["b"])), commit("z", "a"));
    assert_eq!(done.volume, volume("z"));
    assert_eq!(done.merging, Some(merging("z", &["b"])));
    // `b` was not merged into `a`; then it is merged into `c`: that is no sign of the first.
    let undone = after_another(("a", merging("a", &["b"])), commit("c", "b"));
    assert_eq!(undone.volume, volume("a"));
    assert_eq!(undone.merging, Some(merging("a", &[])));
    // Part of it is left to do.
    let part = after_another(("a", merging("a", &["b", "c"])), commit("a", "b"));
    assert_eq!(part.merging, Some(merging("a", &["c"])));
    // It would have been the same; but this time it was done for another one alone.
    let same = after_another(("b", merging("a", &["b"])), commit("a", "b"));
    assert_eq!(same.volume, volume("a"));
    assert_eq!(same.merging, Some(merging("a", &[])));
}

/// `b` was to be pulled into `c` for the younger snapshot, which failed; then it was committed into
/// `a` for the older one, and nobody saw the end. The delete that finds this out takes `b` from the
/// chain's record: that is no sign that the pull was done.
#[test]
fn what_is_found_merged_is_no_sign_of_another_merge() {
    let mut old = snapshot("old", &[("vda", "a")]);
    old.disks[0].merging = Some(merging("a", &["b"]));
    let mut young = snapshot("young", &[("vda", "b")]);
    young.disks[0].merging = Some(merging("c", &["b"]));
    for left in [&mut old, &mut young] {
        left.was_incomplete = true;
    }
    let chains = || Some(surveyed(vec![chain("vda", &["a", "c"])]));
    let mut record = Record::of(&[old], planning());
    record.others = vec![young];
    record.enter(MergeSight::Absent, chains());
    assert!(matches!(
        record.tasks()[0].state,
        DiskState::Removing { .. }
    ));
    let young = record.snapshot("young").unwrap().clone();
    assert_eq!(young.disks[0].volume, volume("a"));
    assert_eq!(young.disks[0].merging, Some(merging("c", &[])));
    let mut record = Record::of(&[young], planning());
    record.enter(MergeSight::Absent, chains());
    assert_eq!(record.tasks()[0].merging(), merging("a", &["c"]));
    assert_eq!(record.tasks()[0].state, DiskState::Merging);
}

#[test]
fn a_merge_that_was_begun_and_of_which_nothing_is_left_is_planned_anew() {
    let mut left = snapshot("s", &[("vda", "a")]);
    left.disks[0].merging = Some(merging("a", &[]));
    left.was_incomplete = true;
    let mut record = Record::of(&[left], planning());
    // Another one that was begun, too, and names the same volume.
    record.others = vec![snapshot("other", &[("vda", "a")])];
    let chains = surveyed(vec![chain("vda", &["a", "c", "d"])]);
    record.enter(MergeSight::Absent, Some(chains));
    assert_eq!(record.tasks()[0].merging(), begun("a", &["c"]));
    assert_eq!(record.tasks()[0].state, DiskState::Merging);
}

/// QEMU may have died with what it had committed in its memory, and somebody may have started the
/// machine again before its host could mend the chain.
#[test]
fn a_chain_that_may_lack_data_is_no_proof_of_a_merge() {
    let mut left = snapshot("s", &[("vda", "a")]);
    left.was_incomplete = true;
    let without = || surveyed(vec![chain("vda", &["a", "c", "d"])]);
    for (merging, is_proof) in [(begun("a", &["b"]), false), (merging("a", &["b"]), true)] {
        left.disks[0].merging = Some(merging);
        let mut record = Record::of(std::slice::from_ref(&left), planning());
        record.enter(MergeSight::Absent, Some(without()));
        match &record.operation.state {
            OperationState::Failed(failure) => {
                assert!(!is_proof);
                assert_eq!(failure.reason, Reason::ChainLacksData);
                assert!(record.snapshots[0].disks[0].merging.is_some());
            }
            _ => {
                assert!(is_proof);
                assert!(matches!(
                    record.tasks()[0].state,
                    DiskState::Removing { .. }
                ));
            }
        }
    }
}

/// The host's word that the chain lacks data goes with the snapshot.
#[test]
fn a_merge_whose_chain_lacks_data_is_not_taken_for_done_later() {
    let chains = || surveyed(vec![chain("vda", &["a", "b"])]);
    let lacks = Failure::new(Reason::ChainLacksData, "see there");
    for (phase, told) in [
        (MergePhase::Failed(lacks), false),
        (MergePhase::Failed(died()), true),
    ] {
        let left = snapshot("s", &[("vda", "a")]);
        let mut record = Record::of(&[left], planning());
        record.enter(MergeSight::Absent, Some(chains()));
        assert_eq!(record.tasks()[0].kind, MergeKind::ActiveCommit);
        record.enter(merge(phase), None);
        record.enter(MergeSight::Absent, None);
        let merging = record.snapshots[0].disks[0].merging.clone();
        assert_eq!(merging.map(|it| it.chain_tells), Some(told));
    }
}
