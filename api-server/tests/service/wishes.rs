//! What is asked of an operation that was accepted.

use super::*;

impl Rig {
    async fn cancel(&mut self, id: &str) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let operation_id = id.to_owned();
        let request = v1::CancelOperationRequest { operation_id };
        self.operations.cancel_operation(request).await
    }

    async fn limit(
        &mut self,
        id: &str,
        bytes_per_second: i64,
    ) -> Result<Response<v1::UpdateOperationResponse>, Status> {
        let request = v1::UpdateOperationRequest {
            operation_id: id.to_owned(),
            bytes_per_second,
        };
        self.operations.update_operation(request).await
    }

    /// What both refuse of an operation.
    async fn refuses(&mut self, id: &str) -> [Reason; 2] {
        let cancel = refusal(self.cancel(id).await).reason;
        [cancel, refusal(self.limit(id, 5).await).reason]
    }
}

#[tokio::test]
async fn only_a_delete_that_has_not_ended_can_be_asked() {
    let mut rig = Rig::open(&["vda"]).await;
    let unknown = any_id();
    assert_eq!(rig.refuses(&unknown).await, [Reason::OperationNotFound; 2]);
    assert_eq!(rig.refuses("x").await, [Reason::FieldInvalid; 2]);
    let negative = refusal(rig.limit(&unknown, -1).await);
    assert_eq!(negative.violations[0].0, "bytes_per_second");

    rig.agent.script().silent.insert("create");
    let request = v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: rig.vm.clone(),
        name: "s".to_owned(),
        description: String::new(),
        ..Default::default()
    };
    let accepted = rig.snapshots.create_snapshot(request).await.unwrap();
    let create = accepted.into_inner().operation.unwrap();
    let taken = [Reason::StrategyUnsupported; 2];
    assert_eq!(rig.refuses(&create.id).await, taken);
    rig.agent.script().silent.clear();
    let create = rig.ended(&create.id).await;
    assert_eq!(create.state(), v1::OperationState::Succeeded);
    let ended = [Reason::ConcurrentChange; 2];
    assert_eq!(rig.refuses(&create.id).await, ended);

    rig.agent.merge_all();
    let delete = rig.delete(&[&create.snapshot_id]).await;
    rig.ended(&delete.id).await;
    assert_eq!(rig.refuses(&delete.id).await, ended);
}

#[tokio::test]
async fn a_merge_under_way_is_cancelled_and_the_snapshot_is_incomplete() {
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(2).await;
    let delete = rig.delete(&[&ids[0]]).await;
    rig.merges(2).await;
    let asked = rig.cancel(&delete.id).await.unwrap().into_inner();
    assert!(asked.operation.unwrap().cancel_requested);
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Cancelled);
    assert_eq!(ended.failure, None);
    let phases: Vec<_> = ended.disks.iter().map(v1::DiskProgress::phase).collect();
    assert_eq!(phases, [v1::MergePhase::Cancelled; 2]);
    let incomplete = Some(v1::SnapshotState::Incomplete);
    assert_eq!(rig.state(&ids[0]).await, incomplete);
    assert_eq!(rig.agent.was_asked("remove"), 0);
    // Repeating it is no error, and tells nothing anew.
    let before = rig.told(&delete.id).await;
    let again = rig.cancel(&delete.id).await.unwrap().into_inner();
    let again = again.operation.unwrap();
    assert_eq!(again.state(), v1::OperationState::Cancelled);
    assert_eq!(rig.told(&delete.id).await, before);
    let asked_for = v1::EventType::OperationCancelRequested;
    assert_eq!(before.iter().filter(|it| **it == asked_for).count(), 1);
    assert!(before.contains(&v1::EventType::OperationCancelled));
    // What is incomplete is deleted again.
    rig.agent.merge_all();
    let second = rig.delete(&[&ids[0]]).await;
    let ended = rig.ended(&second.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.state(&ids[0]).await, None);
}

#[tokio::test]
async fn an_operation_that_waits_for_its_turn_ends_at_once() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(3).await;
    let first = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    let queued = rig.delete(&[&ids[1], &ids[2]]).await;
    assert_eq!(queued.state(), v1::OperationState::Queued);
    let asked = rig.cancel(&queued.id).await.unwrap().into_inner();
    let asked = asked.operation.unwrap();
    assert_eq!(asked.state(), v1::OperationState::Cancelled);
    assert!(asked.ended_at.is_some());
    for id in &ids[1..] {
        assert_eq!(rig.state(id).await, Some(v1::SnapshotState::Ready));
    }
    // Its lane comes to it, and leaves it as it is.
    let next = rig.delete(&[&ids[2]]).await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&first.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    let merges = rig.merges(1).await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&next.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    let left = rig.operation(&queued.id).await;
    assert_eq!(left, asked);
    assert_eq!(rig.state(&ids[1]).await, Some(v1::SnapshotState::Ready));
}

#[tokio::test]
async fn what_is_being_planned_touches_nothing_any_more() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().silent.insert("start");
    let delete = rig.delete(&[&ids[0]]).await;
    until("the plan", async || {
        let shown = rig.operation(&delete.id).await;
        (!shown.disks.is_empty() && shown.waiting.is_some()).then_some(())
    })
    .await;
    // The order may have been heard: only the host can tell, which is asked again.
    let asked = rig.cancel(&delete.id).await.unwrap().into_inner();
    let asked = asked.operation.unwrap();
    assert_eq!(asked.state(), v1::OperationState::Running);
    rig.agent.script().silent.clear();
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Cancelled);
    assert_eq!(rig.agent.was_asked("cancel"), 1);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_does_not_stop_the_delete() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let delete = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    // The server has not seen yet what the host knows.
    rig.agent.script().past_return = true;
    rig.cancel(&delete.id).await.unwrap();
    until("the cancel", async || {
        (rig.agent.was_asked("cancel") > 0).then_some(())
    })
    .await;
    rig.agent.show(&merges, v1::MergePhase::Pivoting);
    until("the pivot", async || {
        let shown = rig.operation(&delete.id).await;
        (shown.disks[0].phase() == v1::MergePhase::Pivoting).then_some(())
    })
    .await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.state(&ids[0]).await, None);
}

#[tokio::test]
async fn past_the_point_of_no_return_a_cancel_is_refused() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let delete = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    rig.agent.show(&merges, v1::MergePhase::Pivoting);
    until("the pivot", async || {
        let shown = rig.operation(&delete.id).await;
        let disk = shown.disks.first()?;
        (disk.phase() == v1::MergePhase::Pivoting).then_some(())
    })
    .await;
    let refused = refusal(rig.cancel(&delete.id).await);
    assert_eq!(refused.reason, Reason::PointOfNoReturn);
    // The removal is under way, and nothing is in its way.
    rig.agent.script().held.insert("remove");
    rig.agent.show(&merges, v1::MergePhase::Merged);
    until("the removal", async || {
        let shown = rig.operation(&delete.id).await;
        (shown.phase() == v1::OperationPhase::Removing).then_some(())
    })
    .await;
    let refused = refusal(rig.cancel(&delete.id).await);
    assert_eq!(refused.reason, Reason::PointOfNoReturn);
    assert!(!rig.operation(&delete.id).await.cancel_requested);
    rig.agent.script().held.clear();
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}

/// Of the first round all is merged and nothing of the second has begun.
#[tokio::test]
async fn between_two_rounds_a_cancel_ends_the_first_and_leaves_the_rest_as_it_was() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(4).await;
    rig.agent.script().held.insert("remove");
    let delete = rig.delete(&[&ids[0], &ids[2]]).await;
    let merges = rig.merges(1).await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    until("the removal", async || {
        let shown = rig.operation(&delete.id).await;
        (shown.phase() == v1::OperationPhase::Removing).then_some(())
    })
    .await;
    let asked = rig.cancel(&delete.id).await.unwrap().into_inner();
    assert!(asked.operation.unwrap().cancel_requested);
    rig.agent.script().held.clear();
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Cancelled);
    assert_eq!(ended.disks[0].phase(), v1::MergePhase::Removed);
    assert_eq!(rig.agent.was_asked("start"), 1);
    assert_eq!(rig.state(&ids[0]).await, None, "its delete was done");
    let ready = Some(v1::SnapshotState::Ready);
    for id in &ids[1..] {
        assert_eq!(rig.state(id).await, ready);
    }
    // What is left is deleted as if nothing had been.
    rig.agent.merge_all();
    let again = rig.delete(&[&ids[2]]).await;
    let ended = rig.ended(&again.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}

#[tokio::test]
async fn a_limit_reaches_the_jobs_and_is_divided_among_them() {
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(1).await;
    let options = v1::MergeOptions {
        direction: v1::MergeDirection::Unspecified.into(),
        bytes_per_second: 1000,
    };
    let request = v1::BatchDeleteSnapshotsRequest {
        options: Some(options),
        ..rig.batch(&[&ids[0]])
    };
    let accepted = rig.snapshots.batch_delete_snapshots(request).await.unwrap();
    let delete = accepted.into_inner().operation.unwrap();
    assert_eq!(delete.bytes_per_second, 1000);
    let limits = |merges: &[v1::Merge]| -> Vec<i64> {
        merges.iter().map(|merge| merge.bytes_per_second).collect()
    };
    assert_eq!(limits(&rig.merges(2).await), [500, 500]);
    let changed = rig.limit(&delete.id, 300).await.unwrap().into_inner();
    assert_eq!(changed.operation.unwrap().bytes_per_second, 300);
    until("the limit", async || {
        (limits(&rig.agent.open_merges()) == [150, 150]).then_some(())
    })
    .await;
    assert_eq!(rig.agent.was_asked("limit 150"), 2, "once a job");
    // The same again is no change.
    let before = rig.operation(&delete.id).await.revision;
    rig.limit(&delete.id, 300).await.unwrap();
    assert_eq!(rig.operation(&delete.id).await.revision, before);
    rig.limit(&delete.id, 0).await.unwrap();
    until("no limit", async || {
        (limits(&rig.agent.open_merges()) == [0, 0]).then_some(())
    })
    .await;
    let told = rig.told(&delete.id).await;
    let limited = v1::EventType::OperationLimited;
    assert_eq!(told.iter().filter(|it| **it == limited).count(), 2);
    let merges = rig.agent.open_merges();
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}

/// Wishes and the lane write the same record at the same time: none is lost, and what is shown at
/// the end is what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wishes_and_the_lane_do_not_overwrite_one_another() {
    let mut rig = Rig::open(&["vda"]).await;
    rig.agent.merge_all();
    for round in 0..20 {
        let ids = rig.take(1).await;
        let delete = rig.delete(&[&ids[0]]).await;
        let mut wishes = Vec::new();
        for limit in 1..=8 {
            let mut operations = rig.operations.clone();
            let operation_id = delete.id.clone();
            wishes.push(tokio::spawn(async move {
                let request = v1::UpdateOperationRequest {
                    operation_id,
                    bytes_per_second: limit,
                };
                operations.update_operation(request).await
            }));
        }
        let mut granted = 0;
        for wish in wishes {
            match wish.await.unwrap() {
                Ok(_) => granted += 1,
                Err(status) => {
                    let problem = Problem::try_from(status).unwrap();
                    assert_eq!(problem.reason, Reason::ConcurrentChange, "round {round}");
                }
            }
        }
        let ended = rig.ended(&delete.id).await;
        assert_eq!(ended.state(), v1::OperationState::Succeeded);
        let told = rig.told(&delete.id).await;
        let limited = v1::EventType::OperationLimited;
        let written = told.iter().filter(|it| **it == limited).count();
        assert_eq!(written, granted, "round {round}");
        assert_eq!(rig.operation(&delete.id).await, ended);
    }
}
