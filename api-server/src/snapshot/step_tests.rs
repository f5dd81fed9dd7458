//! The decisions of an operation, row by row, and what must hold for all of them.

use super::plan::{plan_create, plan_delete};
use super::step::{Answer, Ask, Observation, Sign, Step, step};
use super::types::{
    CreatePhase, DeletePhase, DiskState, DiskTask, EventKind, Failure, Mark, Obstacle, Operation,
    OperationState, Severity, Snapshot, SnapshotDisk, SnapshotState, Told, Work,
};
use crate::hosts::{
    Chain, HostError, Layer, LayerFormat, MergePhase, MergeSeen, MergeSight, Removed, VmState,
};
use crate::store::{Change, SnapshotChange};
use jiff::Timestamp;
use livemerge_proto::ids::{MergeId, OperationId, RequestId, SnapshotId, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{RemovalId, VolumeRef};
use proptest::prelude::*;
use std::time::Duration;
use uuid::Uuid;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn volume(name: &str) -> VolumeRef {
    VolumeRef {
        storage: "default".parse().unwrap(),
        name: format!("{name}.qcow2").parse().unwrap(),
    }
}

fn mark(name: &str) -> Mark {
    Mark {
        volume: volume(name),
        identity: format!("id-{name}").parse().unwrap(),
    }
}

fn chain(disk: &str, layers: &[&str]) -> Chain {
    let layer = |name: &&str| Layer {
        mark: Some(mark(name)),
        locator: format!("/images/{name}.qcow2"),
        format: LayerFormat::Qcow2,
        virtual_bytes: 1 << 30,
        allocated_bytes: 1 << 20,
        shared_with: vec![],
    };
    Chain {
        disk: disk.parse().unwrap(),
        layers: layers.iter().map(layer).collect(),
        job_running: false,
    }
}

fn snapshot(name: &str, disks: &[(&str, &str)]) -> Snapshot {
    let disk = |(disk, frozen): &(&str, &str)| SnapshotDisk {
        disk: disk.parse().unwrap(),
        volume: volume(frozen),
        merging: None,
    };
    Snapshot {
        id: SnapshotId::from(Uuid::now_v7()),
        vm: VmId::from(Uuid::from_u128(7)),
        name: name.parse().unwrap(),
        description: String::new(),
        state: SnapshotState::Deleting,
        disks: disks.iter().map(disk).collect(),
        created_at: now(),
        revision: 1,
    }
}

fn operation(snapshot: &Snapshot, work: Work) -> Operation {
    Operation {
        id: OperationId::from(Uuid::now_v7()),
        vm: snapshot.vm,
        snapshot: snapshot.id,
        snapshot_name: snapshot.name.clone(),
        state: OperationState::Running,
        work,
        request: RequestId::from(Uuid::now_v7()),
        host: None,
        requested_by: "test".to_owned(),
        obstacle: None,
        created_at: now(),
        started_at: Some(now()),
        ended_at: None,
        revision: 1,
    }
}

fn task(disk: &str, base: &str, top: &str, state: DiskState) -> DiskTask {
    DiskTask {
        disk: disk.parse().unwrap(),
        base: mark(base),
        top: mark(top),
        active: false,
        merge: MergeId::from(Uuid::now_v7()),
        removal: RemovalId::from(Uuid::now_v7()),
        state,
        told: Told::default(),
    }
}

fn removing() -> DiskState {
    DiskState::Removing {
        copied_bytes: 5,
        longest_pause: Duration::ZERO,
    }
}

fn merge(phase: MergePhase) -> MergeSight {
    MergeSight::Seen(MergeSeen {
        phase,
        done_bytes: 5,
        total_bytes: 9,
        pivot_attempts: 0,
        longest_pause: Duration::from_millis(7),
        revision: 1,
    })
}

fn refused(reason: Reason) -> Answer {
    Answer::Error(HostError::Refused(Problem::new(reason, "no")))
}

fn unknown() -> Answer {
    Answer::Error(HostError::Unknown(Problem::new(
        Reason::HostUnreachable,
        "silence",
    )))
}

/// What is seen, with nothing special.
struct Seen<'a> {
    snapshot: Option<&'a Snapshot>,
    others: &'a [Snapshot],
    merge: MergeSight,
    answer: Option<Answer>,
    attempts: u32,
    unseen: Duration,
}

impl<'a> Seen<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot: Some(snapshot),
            others: &[],
            merge: MergeSight::Absent,
            answer: None,
            attempts: 0,
            unseen: Duration::ZERO,
        }
    }

    fn decide(&self, operation: &Operation) -> Step {
        let seen = Observation {
            snapshot: self.snapshot,
            others: self.others,
            host: None,
            vm_state: Some(VmState::Running),
            merge: self.merge.clone(),
            unseen: self.unseen,
            answer: self.answer.as_ref(),
            attempts: self.attempts,
            refusals: self.attempts,
        };
        step(operation, &seen, now(), &mut Uuid::now_v7)
    }
}

/// The operation after it has told what is in its way.
fn hindered(operation: &Operation, reason: Reason) -> Operation {
    let obstacle = Obstacle {
        cause: Failure::new(reason, "in the way"),
        since: now(),
    };
    Operation {
        obstacle: Some(obstacle),
        ..operation.clone()
    }
}

fn note(step: Step) -> Change {
    match step {
        Step::Note(change) => *change,
        other => panic!("expected a note, got {other:?}"),
    }
}

fn change(step: Step) -> Change {
    match step {
        Step::Enter(change) => *change,
        other => panic!("expected a change, got {other:?}"),
    }
}

fn tasks(change: &Change) -> &[DiskTask] {
    match &change.operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks,
        other => panic!("expected disks, got {other:?}"),
    }
}

fn kinds(change: &Change) -> Vec<EventKind> {
    change.events.iter().map(|event| event.kind).collect()
}

fn put(change: &Change, id: SnapshotId) -> Option<&Snapshot> {
    change.snapshots.iter().find_map(|snapshot| match snapshot {
        SnapshotChange::Put(snapshot) if snapshot.id == id => Some(snapshot),
        _ => None,
    })
}

fn deletes(change: &Change, id: SnapshotId) -> bool {
    change
        .snapshots
        .iter()
        .any(|snapshot| matches!(snapshot, SnapshotChange::Delete(gone) if *gone == id))
}

#[test]
fn the_plan_marks_the_snapshot_before_anything_is_ordered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let mut seen = Seen::of(&snapshot);
    assert!(matches!(seen.decide(&delete), Step::Ask(Ask::Chains(_))));
    seen.answer = Some(Answer::Chains(vec![chain("vda", &["a", "b", "c"])]));
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
    seen.answer = Some(Answer::Chains(vec![chain("vda", &["x", "y"])]));
    let failed = change(seen.decide(&delete));
    assert!(
        matches!(failed.operation.state, OperationState::Failed(ref f) if f.reason == Reason::ChainDiverged)
    );
    assert_eq!(
        put(&failed, snapshot.id).unwrap().state,
        SnapshotState::Ready
    );
}

#[test]
fn what_an_earlier_delete_has_merged_is_only_removed() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(mark("b"));
    let young = self::snapshot("young", &[("vda", "b")]);
    let delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
    let others = [young.clone()];
    let answer = Some(Answer::Chains(vec![chain("vda", &["a", "c"])]));
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

#[test]
fn what_an_earlier_delete_has_not_merged_is_merged_again() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(mark("b"));
    let planned = plan_delete(
        &snapshot,
        None,
        &[chain("vda", &["a", "b"])],
        &mut Uuid::now_v7,
    )
    .unwrap();
    assert_eq!(
        (planned[0].state.clone(), planned[0].active),
        (DiskState::Pending, true)
    );
}

#[test]
fn plans_refuse_what_cannot_be_done() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let plan = |state, chain: Chain| {
        plan_delete(&snapshot, state, &[chain], &mut Uuid::now_v7).map_err(|problem| problem.reason)
    };
    let whole = || chain("vda", &["a", "b"]);
    assert_eq!(
        plan(None, chain("vda", &["z", "a"])).unwrap_err(),
        Reason::SnapshotIsActiveLayer
    );
    assert_eq!(
        plan(None, chain("vda", &["x", "y"])).unwrap_err(),
        Reason::ChainDiverged
    );
    assert_eq!(
        plan(None, chain("vdb", &["a", "b"])).unwrap_err(),
        Reason::DiskNotFound
    );
    assert_eq!(
        plan(Some(VmState::ShutOff), whole()).unwrap_err(),
        Reason::VmNotRunning
    );
    assert_eq!(
        plan(
            None,
            Chain {
                job_running: true,
                ..whole()
            }
        )
        .unwrap_err(),
        Reason::ConcurrentChange
    );
    for shared in [0, 1] {
        let mut chain = whole();
        chain.layers[shared].shared_with = vec!["/images/clone.qcow2".to_owned()];
        assert_eq!(plan(None, chain).unwrap_err(), Reason::SnapshotSharedBase);
    }
    let mut foreign = whole();
    foreign.layers[1].mark = None;
    assert_eq!(
        plan(None, foreign).unwrap_err(),
        Reason::StrategyUnsupported
    );
}

#[test]
fn a_snapshot_freezes_the_active_volume_of_every_disk() {
    let chains = [chain("vda", &["a", "b"]), chain("vdb", &["c"])];
    let overlays = plan_create(None, &chains, &mut Uuid::now_v7).unwrap();
    let below: Vec<_> = overlays
        .iter()
        .map(|overlay| overlay.below.clone())
        .collect();
    assert_eq!(below, [volume("b"), volume("c")]);
    assert_ne!(overlays[0].overlay, overlays[1].overlay);
}

#[test]
fn taking_a_snapshot_repeats_the_same_overlays_until_they_are_on() {
    let mut snapshot = snapshot("s", &[]);
    snapshot.state = SnapshotState::Creating;
    let create = operation(&snapshot, Work::Create(CreatePhase::Planning));
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(Answer::Chains(vec![chain("vda", &["a"])]));
    let planned = change(seen.decide(&create));
    let frozen = put(&planned, snapshot.id).unwrap().clone();
    assert_eq!(frozen.disks[0].volume, volume("a"));
    let seen = Seen::of(&frozen);
    let asked = |step| match step {
        Step::Ask(Ask::Overlays(order)) => order,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        asked(seen.decide(&planned.operation)),
        asked(seen.decide(&planned.operation))
    );
    let seen = Seen {
        answer: Some(Answer::OverlaysOn),
        ..Seen::of(&frozen)
    };
    let done = change(seen.decide(&planned.operation));
    assert_eq!(done.operation.state, OperationState::Succeeded);
    assert_eq!(put(&done, snapshot.id).unwrap().state, SnapshotState::Ready);
}

#[test]
fn a_snapshot_that_was_refused_leaves_nothing() {
    let snapshot = snapshot("s", &[]);
    let create = operation(&snapshot, Work::Create(CreatePhase::Planning));
    let seen = Seen {
        answer: Some(refused(Reason::VmNotFound)),
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&create));
    assert!(deletes(&failed, snapshot.id));
    assert_eq!(kinds(&failed), [EventKind::SnapshotCreateFailed]);
}

fn merging(snapshot: &Snapshot) -> Operation {
    let task = task("vda", "a", "b", DiskState::Merging);
    operation(snapshot, Work::Delete(DeletePhase::Disks(vec![task])))
}

fn to_remove(snapshot: &Snapshot) -> Operation {
    let task = task("vda", "a", "b", removing());
    operation(snapshot, Work::Delete(DeletePhase::Disks(vec![task])))
}

#[test]
fn a_cause_is_told_once_and_again_when_it_is_another() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = to_remove(&snapshot);
    let mut seen = Seen::of(&snapshot);
    seen.answer = Some(unknown());
    seen.attempts = 1;
    let waits = note(seen.decide(&delete));
    assert_eq!(kinds(&waits), [EventKind::OperationWaiting]);
    assert_eq!(waits.events[0].severity, Severity::Warning);
    for attempts in 2..9 {
        seen.attempts = attempts;
        assert!(matches!(seen.decide(&waits.operation), Step::Wait(_)));
    }
    seen.answer = Some(refused(Reason::VolumeInUse));
    let refused = note(seen.decide(&waits.operation));
    assert_eq!(kinds(&refused), [EventKind::VolumeRemovalRefused]);
    let details = &refused.events[0].details;
    assert_eq!(details["reason"], "VOLUME_IN_USE");
    assert_eq!(details["top"], volume("b").to_string());
    assert_eq!(refused.operation.work, delete.work, "nothing has moved");
    assert!(matches!(seen.decide(&refused.operation), Step::Wait(_)));
    // The next question is asked as it would have been.
    seen.answer = None;
    assert!(matches!(
        seen.decide(&refused.operation),
        Step::Ask(Ask::Removal(_))
    ));
}

#[test]
fn what_goes_on_has_recovered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let waits = hindered(&to_remove(&snapshot), Reason::VolumeInUse);
    let mut seen = Seen::of(&snapshot);
    let gone = |gone| {
        Answer::Removal(Removed {
            gone,
            freed_bytes: 3,
        })
    };
    seen.answer = Some(gone(false));
    let goes_on = note(seen.decide(&waits));
    assert_eq!(kinds(&goes_on), [EventKind::OperationRecovered]);
    assert_eq!(goes_on.operation.obstacle, None);
    assert!(matches!(seen.decide(&goes_on.operation), Step::Wait(_)));
    seen.answer = Some(gone(true));
    let done = change(seen.decide(&waits));
    let told = [
        EventKind::OperationRecovered,
        EventKind::VolumeRemoved,
        EventKind::SnapshotDeleted,
    ];
    assert_eq!(kinds(&done), told);
    assert_eq!(done.operation.obstacle, None);
}

#[test]
fn what_failed_has_not_recovered() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let waits = hindered(&to_remove(&snapshot), Reason::VolumeInUse);
    let seen = Seen {
        answer: Some(refused(Reason::VolumeInUse)),
        attempts: 12,
        ..Seen::of(&snapshot)
    };
    let failed = change(seen.decide(&waits));
    assert_eq!(kinds(&failed), [EventKind::SnapshotDeleteFailed]);
    assert_eq!(failed.operation.obstacle, None);
}

#[test]
fn a_host_that_is_not_seen_is_told_of_when_it_lasts() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = merging(&snapshot);
    let mut seen = Seen {
        merge: MergeSight::Unknown,
        ..Seen::of(&snapshot)
    };
    assert!(
        matches!(seen.decide(&delete), Step::Wait(wait) if wait.cause.is_some()),
        "shown at once, not told"
    );
    seen.unseen = Duration::from_secs(5);
    let waits = note(seen.decide(&delete));
    assert_eq!(kinds(&waits), [EventKind::OperationWaiting]);
    // A break of the line that follows is the same one as long as the merge was not seen.
    seen.unseen = Duration::ZERO;
    assert!(matches!(seen.decide(&waits.operation), Step::Wait(_)));
    seen.merge = merge(MergePhase::Copying);
    let seen_again = note(seen.decide(&waits.operation));
    assert_eq!(kinds(&seen_again), [EventKind::OperationRecovered]);
}

#[test]
fn the_phases_of_a_merge_are_told_once() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let delete = merging(&snapshot);
    let sight = |phase, pivot_attempts| match merge(phase) {
        MergeSight::Seen(seen) => MergeSight::Seen(MergeSeen {
            pivot_attempts,
            ..seen
        }),
        other => other,
    };
    let mut seen = Seen::of(&snapshot);
    seen.merge = sight(MergePhase::Ready, 0);
    let ready = note(seen.decide(&delete));
    assert_eq!(kinds(&ready), [EventKind::LiveMergeReady]);
    assert!(matches!(seen.decide(&ready.operation), Step::Wait(_)));
    seen.merge = sight(MergePhase::Ready, 1);
    let put_off = note(seen.decide(&ready.operation));
    let told = [
        EventKind::LiveMergePivoting,
        EventKind::LiveMergePivotPutOff,
    ];
    assert_eq!(kinds(&put_off), told);
    let event = &put_off.events[1];
    assert_eq!(event.severity, Severity::Warning);
    assert_eq!(event.details["pivot_attempts"], "1");
    assert_eq!(event.details["merge"], tasks(&put_off)[0].merge.to_string());
    // What ended while nobody looked is told before the end.
    for end in [
        MergePhase::Merged,
        MergePhase::Failed(Failure::new(Reason::VmDied, "it died")),
    ] {
        seen.merge = sight(end, 1);
        let late = note(seen.decide(&delete));
        let told = [EventKind::LiveMergeReady, EventKind::LiveMergePivoting];
        assert_eq!(kinds(&late), told);
        assert_ne!(
            tasks(&change(seen.decide(&late.operation)))[0].state,
            DiskState::Merging
        );
    }
    seen.merge = sight(MergePhase::Merged, 2);
    let merged = change(seen.decide(&put_off.operation));
    assert_eq!(kinds(&merged), [EventKind::LiveMergeCompleted]);
    let details = &merged.events[0].details;
    assert_eq!(details["pivot_attempts"], "2");
    assert_eq!(details["longest_pause_ms"], "7");
    assert_eq!(details["copied_bytes"], "5");
}

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
        Just(Answer::Chains(vec![
            chain("vda", &["a", "b", "c"]),
            chain("vdb", &["c", "d"])
        ])),
        Just(Answer::Chains(vec![chain("vda", &["a"])])),
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
                    answer = Some(Answer::Chains(vec![chain("vda", &["a", "b"]), chain("vdb", &["c", "d"])]));
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
