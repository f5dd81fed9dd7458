//! Several snapshots in one operation.

use super::*;

#[tokio::test]
async fn a_batch_must_name_snapshots_each_once() {
    let mut rig = Rig::open(&["vda"]).await;
    let one = any_id();
    let many: Vec<_> = (0..1001).map(|_| any_id()).collect();
    let cases: [(&str, Vec<&String>); 3] = [
        ("1 to 1000", vec![]),
        ("1 to 1000", many.iter().collect()),
        ("twice", vec![&one, &many[0], &one]),
    ];
    for (must, ids) in cases {
        let request = rig.batch(&ids);
        let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
        assert_eq!(refused.reason, Reason::FieldInvalid);
        let [(field, text)] = &refused.violations[..] else {
            panic!("{refused:?}");
        };
        assert_eq!(field, "snapshot_ids");
        assert!(text.contains(must), "{text}");
    }
    let thousand: Vec<_> = many[1..].iter().collect();
    let request = v1::BatchDeleteSnapshotsRequest {
        allow_missing: true,
        ..rig.batch(&thousand)
    };
    let answer = rig.snapshots.batch_delete_snapshots(request).await.unwrap();
    assert_eq!(answer.into_inner().operation, None, "none of them is there");
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
    let mut rig = Rig::open(&["vda"]).await;
    let good = any_id();
    let request = v1::BatchDeleteSnapshotsRequest {
        request_id: "x".to_owned(),
        vm_id: String::new(),
        snapshot_ids: vec![good, "y".to_owned()],
        allow_missing: false,
        options: Some(v1::MergeOptions {
            direction: 77,
            bytes_per_second: -1,
        }),
    };
    let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
    let fields: Vec<_> = refused.violations.iter().map(|(it, _)| &**it).collect();
    let wanted = [
        "request_id",
        "vm_id",
        "snapshot_ids[1]",
        "options.direction",
        "options.bytes_per_second",
    ];
    assert_eq!(fields, wanted);
}

#[tokio::test]
async fn a_missing_snapshot_refuses_the_batch_unless_that_is_allowed() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let missing = any_id();
    let request = rig.batch(&[&ids[0], &missing]);
    let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
    assert_eq!(refused.reason, Reason::SnapshotNotFound);
    assert_eq!(refused.metadata["snapshot"], missing);
    assert_eq!(rig.state(&ids[0]).await, Some(v1::SnapshotState::Ready));
    rig.agent.merge_all();
    let request = v1::BatchDeleteSnapshotsRequest {
        allow_missing: true,
        ..rig.batch(&[&missing, &ids[0]])
    };
    let accepted = rig.snapshots.batch_delete_snapshots(request).await.unwrap();
    let operation = accepted.into_inner().operation.unwrap();
    assert_eq!(operation.snapshot_ids, [ids[0].clone()]);
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.state(&ids[0]).await, None);
    assert_eq!(rig.state(&ids[1]).await, Some(v1::SnapshotState::Ready));
}

#[tokio::test]
async fn snapshots_of_another_machine_are_not_found() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let request = v1::BatchDeleteSnapshotsRequest {
        vm_id: any_id(),
        ..rig.batch(&[&ids[0]])
    };
    let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
    assert_eq!(refused.reason, Reason::SnapshotNotFound);
    assert_eq!(rig.state(&ids[0]).await, Some(v1::SnapshotState::Ready));
}

#[tokio::test]
async fn a_batch_is_one_job_and_all_its_rows_go_at_the_end() {
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(3).await;
    let operation = rig.delete(&[&ids[1], &ids[0]]).await;
    assert_eq!(operation.snapshot_id, ids[0], "the oldest");
    assert_eq!(operation.snapshot_ids, ids[..2]);
    let merges = rig.merges(2).await;
    assert_eq!(rig.agent.was_asked("start vda vdb"), 1, "together");
    let removed: Vec<_> = merges.iter().map(|merge| merge.removed.len()).collect();
    assert_eq!(removed, [2, 2]);
    for id in &ids[..2] {
        assert_eq!(rig.state(id).await, Some(v1::SnapshotState::Deleting));
    }
    // One of them again, and another one beside it, while they are being deleted.
    for again in [vec![&ids[0]], vec![&ids[2], &ids[1]]] {
        let request = rig.batch(&again);
        let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
        assert_eq!(refused.reason, Reason::SnapshotNotReady);
    }
    assert_eq!(rig.state(&ids[2]).await, Some(v1::SnapshotState::Ready));
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.agent.was_asked("remove"), 1, "together");
    let asked = rig.agent.script().asked.clone();
    let asked = asked.iter().find(|it| it.starts_with("remove"));
    assert_eq!(asked.unwrap().split(' ').count(), 1 + 4, "{asked:?}");
    let freed: Vec<_> = ended.disks.iter().map(|disk| disk.freed_bytes).collect();
    assert_eq!(freed, [2, 2]);
    for id in &ids[..2] {
        assert_eq!(rig.state(id).await, None);
    }
    assert_eq!(rig.state(&ids[2]).await, Some(v1::SnapshotState::Ready));
}

#[tokio::test]
async fn an_agent_that_removes_one_volume_at_a_time_is_asked_for_each() {
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    rig.agent.script().lacks.insert("also");
    let ids = rig.take(3).await;
    let operation = rig.delete(&[&ids[1], &ids[0]]).await;
    let merges = rig.merges(2).await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.agent.was_asked("remove"), 4);
    let freed: Vec<_> = ended.disks.iter().map(|disk| disk.freed_bytes).collect();
    assert_eq!(freed, [2, 2]);
}

#[tokio::test]
async fn a_volume_that_stays_holds_up_none_of_the_others() {
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(3).await;
    let operation = rig.delete(&[&ids[1], &ids[0]]).await;
    let merges = rig.merges(2).await;
    let stays = merges[0].removed[1].name.clone();
    rig.agent.script().stays = Some(stays.clone());
    rig.agent.show(&merges, v1::MergePhase::Merged);
    rig.waits_for(&operation.id, Reason::VolumeInUse).await;
    let waits = rig.operation(&operation.id).await;
    let phases: Vec<_> = waits.disks.iter().map(|disk| disk.phase()).collect();
    assert!(phases.contains(&v1::MergePhase::Removed), "{phases:?}");
    assert!(phases.contains(&v1::MergePhase::Removing), "{phases:?}");
    rig.agent.script().stays = None;
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    let asked = rig.agent.script().asked.clone();
    let last = asked.iter().rev().find(|it| it.starts_with("remove"));
    assert!(
        last.unwrap().starts_with(&format!("remove {stays}")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_request_id_gets_one_answer_whatever_the_order_of_the_set() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(3).await;
    let first = rig.batch(&[&ids[0], &ids[1]]);
    let accepted = rig.snapshots.batch_delete_snapshots(first.clone()).await;
    let operation = accepted.unwrap().into_inner().operation.unwrap();
    let reversed = v1::BatchDeleteSnapshotsRequest {
        snapshot_ids: vec![ids[1].clone(), ids[0].clone()],
        ..first.clone()
    };
    for same in [first.clone(), reversed] {
        let answer = rig.snapshots.batch_delete_snapshots(same).await.unwrap();
        assert_eq!(answer.into_inner().operation.unwrap().id, operation.id);
    }
    let limited = v1::MergeOptions {
        direction: v1::MergeDirection::Unspecified.into(),
        bytes_per_second: 5,
    };
    let others = [
        v1::BatchDeleteSnapshotsRequest {
            snapshot_ids: ids.clone(),
            ..first.clone()
        },
        v1::BatchDeleteSnapshotsRequest {
            allow_missing: true,
            ..first.clone()
        },
        v1::BatchDeleteSnapshotsRequest {
            options: Some(limited),
            ..first.clone()
        },
    ];
    for other in others {
        let refused = refusal(rig.snapshots.batch_delete_snapshots(other).await);
        assert_eq!(refused.reason, Reason::RequestIdReused);
    }
    let single = v1::DeleteSnapshotRequest {
        request_id: first.request_id,
        snapshot_id: ids[0].clone(),
        ..v1::DeleteSnapshotRequest::default()
    };
    let refused = refusal(rig.snapshots.delete_snapshot(single).await);
    assert_eq!(refused.reason, Reason::RequestIdReused);
}

#[tokio::test]
async fn a_pull_that_is_not_possible_is_refused_before_anything_is_accepted() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let pull = v1::MergeOptions {
        direction: v1::MergeDirection::Pull.into(),
        bytes_per_second: 0,
    };
    let request = v1::BatchDeleteSnapshotsRequest {
        options: Some(pull),
        ..rig.batch(&[&ids[0]])
    };
    let refused = refusal(rig.snapshots.batch_delete_snapshots(request).await);
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert_eq!(rig.state(&ids[0]).await, Some(v1::SnapshotState::Ready));
    // Of the youngest it is possible.
    let request = v1::BatchDeleteSnapshotsRequest {
        options: Some(pull),
        ..rig.batch(&[&ids[1]])
    };
    rig.agent.merge_all();
    let accepted = rig.snapshots.batch_delete_snapshots(request).await.unwrap();
    let operation = accepted.into_inner().operation.unwrap();
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.disks[0].kind(), v1::MergeKind::Pull);
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}
