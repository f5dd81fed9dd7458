//! A delete, from its plan to the end of the row.

use super::*;

#[test]
fn the_plan_marks_the_snapshot_before_anything_is_ordered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let mut seen = Seen::of(&snapshot);
    assert!(matches!(seen.decide(&delete), Step::Ask(Ask::Chains(_))));
    seen.answer = Some(read(vec![chain("vda", &["a", "b", "c"])]));
    let planned = change(seen.decide(&delete));
    assert_eq!(
        kinds(&planned),
        [EventKind::LiveMergePlanned, EventKind::LiveMergeStarted]
    );
    let marked = put(&planned, snapshot.id).unwrap();
    assert_eq!(marked.state, SnapshotState::Deleting);
    assert_eq!(marked.disks[0].merging, Some(mark("b")));
    let task = &tasks(&planned)[0];
    assert_eq!(
        (&task.base, &task.top, task.active),
        (&mark("a"), &mark("b"), false)
    );
    assert_eq!(task.state, DiskState::Merging);
}

#[test]
fn the_merge_is_ordered_until_it_is_seen() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let work = Work::Delete(DeletePhase::Disks(vec![task(
        "vda",
        "a",
        "b",
        DiskState::Merging,
    )]));
    let delete = operation(&snapshot, work);
    let mut seen = Seen::of(&snapshot);
    assert!(matches!(seen.decide(&delete), Step::Ask(Ask::Merge(_))));
    seen.answer = Some(Answer::MergeAccepted);
    assert!(matches!(seen.decide(&delete), Step::Wait(_)));
    seen.answer = Some(unknown());
    let waits = hindered(&delete, Reason::HostUnreachable);
    assert!(
        matches!(seen.decide(&waits), Step::Wait(wait) if wait.sign == Sign::Return && wait.cause.is_some())
    );
    seen.merge = merge(MergePhase::Copying);
    assert!(matches!(seen.decide(&delete), Step::Wait(_)));
}

#[test]
fn after_the_merge_the_record_follows_the_data() {
    let old = snapshot("old", &[("vda", "a"), ("vdb", "a")]);
    let young = snapshot("young", &[("vda", "b"), ("vdb", "b")]);
    let work = Work::Delete(DeletePhase::Disks(vec![task(
        "vda",
        "a",
        "b",
        DiskState::Merging,
    )]));
    let delete = operation(&old, work);
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
            ..
        }
    ));
    assert!(put(&merged, old.id).is_none(), "its row goes last");
}

#[test]
fn the_rows_end_comes_with_the_volumes_end() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let work = Work::Delete(DeletePhase::Disks(vec![task("vda", "a", "b", removing())]));
    let delete = operation(&snapshot, work);
    let mut seen = Seen::of(&snapshot);
    assert!(matches!(seen.decide(&delete), Step::Ask(Ask::Removal(_))));
    seen.answer = Some(Answer::Removal(Removed {
        gone: true,
        freed_bytes: 3,
    }));
    let done = change(seen.decide(&delete));
    assert_eq!(done.operation.state, OperationState::Succeeded);
    assert_eq!(
        kinds(&done),
        [EventKind::VolumeRemoved, EventKind::SnapshotDeleted]
    );
    assert!(deletes(&done, snapshot.id));
}

#[test]
fn disks_go_one_after_the_other() {
    let snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
    let both = vec![
        task("vda", "a", "b", removing()),
        task("vdb", "c", "d", DiskState::Pending),
    ];
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Disks(both)));
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(Answer::Removal(Removed {
        gone: true,
        freed_bytes: 3,
    }));
    let next = change(seen.decide(&delete));
    assert_eq!(
        kinds(&next),
        [EventKind::VolumeRemoved, EventKind::LiveMergeStarted]
    );
    assert_eq!(tasks(&next)[1].state, DiskState::Merging);
    let left: Vec<_> = put(&next, snapshot.id)
        .unwrap()
        .disks
        .iter()
        .map(|d| d.disk.to_string())
        .collect();
    assert_eq!(left, ["vdb"], "what is done leaves the snapshot");
    assert_eq!(next.operation.state, OperationState::Running);
}

#[test]
fn what_an_earlier_delete_has_merged_is_only_removed() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(mark("b"));
    let young = self::snapshot("young", &[("vda", "b")]);
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let others = [young.clone()];
    let answer = Some(read(vec![chain("vda", &["a", "c"])]));
    let seen = Seen {
        others: &others,
        answer,
        ..Seen::of(&snapshot)
    };
    let planned = change(seen.decide(&delete));
    let task = &tasks(&planned)[0];
    assert_eq!(task.top, mark("b"));
    assert!(matches!(task.state, DiskState::Removing { .. }));
    assert_eq!(
        put(&planned, young.id).unwrap().disks[0].volume,
        volume("a")
    );
}
