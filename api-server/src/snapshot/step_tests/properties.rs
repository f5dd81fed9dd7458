//! What holds for all deletes, whatever is seen and answered.

use super::*;
use proptest::prelude::*;

fn any_sight() -> impl Strategy<Value = MergeSight> {
    prop_oneof![
        Just(MergeSight::Unknown),
        Just(MergeSight::Absent),
        Just(merge(MergePhase::Pending)),
        Just(merge(MergePhase::Copying)),
        Just(merge(MergePhase::Merged)),
        Just(merge(MergePhase::Failed(Failure::new(
            Reason::MergeIoError,
            "no"
        )))),
    ]
}

fn any_answer() -> impl Strategy<Value = Option<Answer>> {
    proptest::option::of(prop_oneof![
        Just(read(vec![
            chain("vda", &["a", "b", "c"]),
            chain("vdb", &["c", "d"])
        ])),
        Just(read(vec![chain("vda", &["a"])])),
        Just(Answer::OverlaysOn),
        Just(Answer::MergeAccepted),
        Just(Answer::Removal(Removed {
            gone: true,
            freed_bytes: 1
        })),
        Just(Answer::Removal(Removed {
            gone: false,
            freed_bytes: 0
        })),
        Just(unknown()),
        Just(refused(Reason::VolumeInUse)),
    ])
}

fn any_state() -> impl Strategy<Value = DiskState> {
    prop_oneof![
        Just(DiskState::Pending),
        Just(DiskState::Merging),
        Just(removing()),
        Just(DiskState::Removed {
            copied_bytes: 1,
            longest_pause: Duration::ZERO,
            freed_bytes: 1
        }),
    ]
}

fn any_work() -> impl Strategy<Value = Work> {
    prop_oneof![
        Just(Work::Delete(DeletePhase::Planning)),
        (any_state(), any_state()).prop_map(|(first, second)| {
            let tasks = vec![task("vda", "a", "b", first), task("vdb", "c", "d", second)];
            Work::Delete(DeletePhase::Disks(tasks))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_removal_before_the_merge_was_seen(
        work in any_work(), sight in any_sight(), answer in any_answer(), attempts in 0..20_u32,
    ) {
        let snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
        let delete = operation(&snapshot, work);
        let seen = Seen { merge: sight, answer, attempts, ..Seen::of(&snapshot) };
        if let Step::Ask(Ask::Removal(order)) = seen.decide(&delete) {
            let Work::Delete(DeletePhase::Disks(tasks)) = &delete.work else { panic!("no disks") };
            let is_merged = |t: &&DiskTask| matches!(t.state, DiskState::Removing { .. });
            let task = tasks.iter().find(|task| task.removal == order.id).filter(is_merged);
            prop_assert_eq!(task.map(|task| &task.top), Some(&order.volume));
        }
    }

    #[test]
    fn silence_changes_no_record(work in any_work(), attempts in 0..100_u32) {
        let snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
        let mut delete = operation(&snapshot, work);
        if let Work::Delete(DeletePhase::Disks(tasks)) = &mut delete.work {
            // A record in which all is removed has nothing to ask for.
            tasks[1].state = DiskState::Merging;
        }
        let seen = Seen { merge: MergeSight::Unknown, answer: Some(unknown()), attempts, ..Seen::of(&snapshot) };
        let told = match seen.decide(&delete) {
            Step::Note(change) => *change,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(&told.operation.work, &delete.work);
        prop_assert!(told.snapshots.is_empty());
        prop_assert!(matches!(seen.decide(&told.operation), Step::Wait(_)), "told once");
    }

    #[test]
    fn an_end_leaves_the_snapshot_unlocked(
        work in any_work(), sight in any_sight(), answer in any_answer(), attempts in 0..20_u32,
    ) {
        let snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
        let delete = operation(&snapshot, work);
        let seen = Seen { merge: sight, answer, attempts, ..Seen::of(&snapshot) };
        if let Step::Enter(change) = seen.decide(&delete)
            && change.operation.state.ended()
        {
            let unlocked = put(&change, snapshot.id).is_some_and(|s| s.state != SnapshotState::Deleting);
            prop_assert!(unlocked || deletes(&change, snapshot.id));
        }
    }

    #[test]
    fn every_delete_ends_once_faults_stop(work in any_work()) {
        let mut snapshot = snapshot("s", &[("vda", "a"), ("vdb", "c")]);
        let mut delete = operation(&snapshot, work);
        let mut answer = None;
        for _ in 0..40 {
            let seen = Seen { merge: merge(MergePhase::Merged), answer: answer.take(), ..Seen::of(&snapshot) };
            match seen.decide(&delete) {
                Step::Ask(Ask::Chains(_)) => {
                    answer = Some(read(vec![chain("vda", &["a", "b"]), chain("vdb", &["c", "d"])]));
                }
                Step::Ask(Ask::Removal(_)) => {
                    answer = Some(Answer::Removal(Removed { gone: true, freed_bytes: 0 }));
                }
                Step::Ask(_) | Step::Wait(_) => {}
                Step::Note(change) => delete = change.operation.clone(),
                Step::Enter(change) => {
                    if let Some(next) = put(&change, snapshot.id) {
                        snapshot = next.clone();
                    }
                    delete = change.operation.clone();
                    if delete.state.ended() {
                        prop_assert_eq!(delete.state, OperationState::Succeeded);
                        return Ok(());
                    }
                }
            }
        }
        prop_assert!(false, "still {:?}", delete.work);
    }
}
