//! What the record itself needs is not removed.

use super::*;

/// That another machine's snapshot names what is to be removed.
pub(super) fn needed() -> Problem {
    Problem::new(Reason::VolumeInUse, "a snapshot names it")
}

#[test]
fn what_the_record_needs_is_not_asked_for_until_nobody_does() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    let of = std::slice::from_ref(&snapshot);
    let task = task(of, "vda", "a", &["b"], removing());
    let mut record = Record::of(of, disks(vec![task]));
    assert_eq!(next_removals(&record.operation)[0].volume, mark("b"));
    let look = |record: &Record, answer, attempts| {
        let seen = Seen {
            needed: Some(needed()),
            answer,
            attempts,
            ..record.seen()
        };
        seen.decide(&record.operation)
    };
    let told = note(look(&record, None, 1));
    assert_eq!(kinds(&told), [EventKind::VolumeRemovalRefused]);
    record.apply(&told);
    for (answer, attempts) in [
        (None, 2),
        (Some(unknown()), 3),
        (Some(refused(Reason::VolumeInUse)), 1000),
    ] {
        let waits = wait(look(&record, answer, attempts));
        assert_eq!(waits.cause, Some(needed()));
        assert!(attempts < 1000 || waits.time >= Duration::from_secs(30));
    }
    // What is gone already is gone.
    let over = change(look(&record, Some(gone(&record.operation)), 1));
    assert_eq!(over.operation.state, OperationState::Succeeded);
    let mut cancelled = record.clone();
    cancelled.operation.cancel_requested = true;
    let cancelled = change(look(&cancelled, None, 3));
    assert_eq!(cancelled.operation.state, OperationState::Cancelled);
    let order = removal(record.decide(MergeSight::Absent, None));
    assert_eq!(order.volume, mark("b"));
}

#[test]
fn what_nobody_needs_goes_though_the_record_needs_another_of_them() {
    let mut snapshot = snapshot("s", &[("vda", "a"), ("vdb", "m")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    snapshot.disks[1].merging = Some(merging("m", &["n"]));
    let of = std::slice::from_ref(&snapshot);
    let tasks = [("vda", "a", "b"), ("vdb", "m", "n")];
    let tasks = tasks.map(|(disk, kept, leaves)| task(of, disk, kept, &[leaves], removing()));
    let needs = BTreeMap::from([(tasks[0].removed[0].removal, needed())]);
    let mut record = Record::of(of, disks(tasks.to_vec()));
    let look = |record: &Record, answer| {
        let seen = Seen {
            needed_of: needs.clone(),
            answer,
            ..record.seen()
        };
        seen.decide(&record.operation)
    };
    let asked = removals(look(&record, None));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].volume, mark("n"));
    record.apply(&change(look(&record, Some(all_gone(&asked)))));
    let told = note(look(&record, None));
    assert_eq!(kinds(&told), [EventKind::VolumeRemovalRefused]);
    record.apply(&told);
    assert_eq!(wait(look(&record, None)).cause, Some(needed()));
}

#[test]
fn a_volume_is_needed_by_whoever_has_data_there_or_is_about_to() {
    let own = operation(&snapshot("own", &[]), planning());
    let by_snapshots = |snapshots: &[Snapshot]| needed_by(&volume("v"), own.id, snapshots, []);
    let other = || snapshot("other", &[("vda", "x"), ("vdb", "v")]);
    let named = by_snapshots(&[snapshot("s", &[("vda", "x")]), other()]).unwrap();
    assert_eq!(named.reason, Reason::VolumeInUse);
    assert!(named.metadata.contains_key("snapshot"));
    let mut into = snapshot("into", &[("vda", "x")]);
    into.disks[0].merging = Some(merging("v", &["y"]));
    assert!(by_snapshots(std::slice::from_ref(&into)).is_some());
    into.disks[0].merging = Some(merging("x", &["v"]));
    assert_eq!(by_snapshots(&[into]), None, "it leaves there, too");

    let by = |work: Work| {
        let other = operation(&snapshot("o", &[]), work);
        let needed = needed_by(&volume("v"), own.id, [], [&other]);
        // Its own plan is none of another, and one that has ended needs nothing.
        assert_eq!(needed_by(&volume("v"), other.id, [], [&other]), None);
        let ended = Operation {
            state: OperationState::Succeeded,
            ..other
        };
        assert_eq!(needed_by(&volume("v"), own.id, [], [&ended]), None);
        needed.is_some()
    };
    let overlay = |below: &str, overlay: &str| NewOverlay {
        disk: "vda".parse().unwrap(),
        below: volume(below),
        overlay: volume(overlay),
    };
    let creates = |new| Work::Create(CreatePhase::Overlaying(vec![new]));
    assert!(by(creates(overlay("v", "x"))));
    assert!(by(creates(overlay("x", "v"))));
    assert!(!by(creates(overlay("x", "y"))));
    assert!(!by(planning()));
    let of = [snapshot("o", &[("vda", "v")])];
    let merges = |kept, state| disks(vec![task(&of, "vda", kept, &["y"], state)]);
    assert!(by(merges("v", DiskState::Merging)));
    assert!(!by(merges("v", removed())));
    assert!(!by(merges("x", DiskState::Merging)));
}
