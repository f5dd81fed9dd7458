//! The overlay that stays when a merge never caught up with its guest, and the snapshot for it.

use super::*;

/// A delete of `s`, whose volume `a` is kept; the active `b` leaves.
fn deleting() -> (Snapshot, Operation) {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let of = std::slice::from_ref(&snapshot);
    let mut task = task(of, "vda", "a", &["b"], DiskState::Merging);
    task.kind = MergeKind::ActiveCommit;
    let delete = operation(&snapshot, disks(vec![task]));
    (snapshot, delete)
}

fn overlaid(phase: MergePhase) -> MergeSight {
    match merge(phase) {
        MergeSight::Seen(seen) => MergeSight::Seen(MergeSeen {
            overlaid: true,
            ..seen
        }),
        other => other,
    }
}

/// The snapshot that is listed with the news.
fn listed(told: &Change) -> Snapshot {
    let put = told.snapshots.iter().find_map(|change| match change {
        SnapshotChange::Put(snapshot) => Some(snapshot.clone()),
        SnapshotChange::Delete(_) => None,
    });
    put.expect("a snapshot is written down with the news")
}

#[test]
fn an_active_commit_is_ordered_with_a_name_that_no_other_merge_has() {
    let (snapshot, delete) = deleting();
    let mut seen = Seen::of(&snapshot);
    seen.merge = MergeSight::Absent;
    let order = orders(seen.decide(&delete)).remove(0);
    let spare = order.spare.expect("a name");
    assert_eq!(spare.name.to_string(), format!("{}.qcow2", order.id));
    assert_eq!(spare.storage, order.removed[0].volume.storage);
}

#[test]
fn what_the_overlay_has_frozen_is_listed_once_and_follows_the_data() {
    let (snapshot, delete) = deleting();
    let mut seen = Seen::of(&snapshot);
    seen.merge = overlaid(MergePhase::Copying);
    let told = note(seen.decide(&delete));
    assert_eq!(kinds(&told), [EventKind::LiveMergeOverlaid]);
    let left = listed(&told);
    assert_eq!(
        (left.origin, left.state),
        (Origin::LeftByMerge, SnapshotState::Ready)
    );
    assert_eq!(left.disks[0].volume, volume("b"));
    assert!(left.name.to_string().starts_with("left-vda-"));

    let others = [left.clone()];
    let mut seen = Seen {
        others: &others,
        ..Seen::of(&snapshot)
    };
    seen.merge = overlaid(MergePhase::Copying);
    wait(seen.decide(&told.operation));
    seen.merge = overlaid(MergePhase::Merged);
    let merged = change(seen.decide(&told.operation));
    let followed = put(&merged, left.id).expect("it names what is there now");
    assert_eq!(followed.disks[0].volume, volume("a"));
    assert_eq!(followed.state, SnapshotState::Ready);
    assert!(followed.accounts_for(&"vda".parse().unwrap(), &mark("a")));
}

/// Also of a merge that is seen only when all is over, and whatever came of it.
#[test]
fn it_is_listed_before_the_end_is_written_down() {
    let (snapshot, delete) = deleting();
    let failed = MergePhase::Failed(Failure::new(Reason::VmDied, "it stopped"));
    for phase in [failed, MergePhase::Cancelled, MergePhase::Merged] {
        let mut seen = Seen::of(&snapshot);
        seen.merge = overlaid(phase);
        let told = note(seen.decide(&delete));
        assert_eq!(kinds(&told), [EventKind::LiveMergeOverlaid]);
        assert_eq!(listed(&told).disks[0].volume, volume("b"));
        assert!(matches!(seen.decide(&told.operation), Step::Enter(_)));
    }
}

/// Both of a snapshot's disks are seen so at once: it is written once, or nothing could be.
#[test]
fn two_disks_that_got_their_overlays_meanwhile_are_told_in_one_change() {
    let mut snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    snapshot.disks[1].merging = Some(merging("c", &["d"]));
    let of = std::slice::from_ref(&snapshot);
    let tasks = [("vda", "a", "b"), ("vdb", "c", "d")].map(|(disk, kept, top)| DiskTask {
        kind: MergeKind::ActiveCommit,
        ..task(of, disk, kept, &[top], DiskState::Merging)
    });
    let delete = operation(&snapshot, disks(tasks.to_vec()));
    let mut seen = Seen::of(&snapshot);
    seen.merge = overlaid(MergePhase::Copying);
    let told = note(seen.decide(&delete));
    let mut written: Vec<_> = told
        .snapshots
        .iter()
        .filter_map(|change| match change {
            SnapshotChange::Put(snapshot) => Some(snapshot.id),
            SnapshotChange::Delete(_) => None,
        })
        .collect();
    assert_eq!(written.len(), 3, "itself and one for each overlay");
    written.sort();
    written.dedup();
    assert_eq!(written.len(), 3, "each once");
    let own = put(&told, snapshot.id).unwrap();
    let tells = |disk: &SnapshotDisk| disk.merging.as_ref().unwrap().chain_tells;
    assert!(!own.disks.iter().any(tells));
}
