//! A host in maintenance: what was begun there ends, and nothing new is begun.

use super::*;

impl Rig {
    async fn maintain(
        &mut self,
        request: &str,
        maintenance: bool,
    ) -> Result<Response<v1::SetHostMaintenanceResponse>, Status> {
        let request = v1::SetHostMaintenanceRequest {
            request_id: request.to_owned(),
            host_id: HOST.to_owned(),
            maintenance,
        };
        self.inventory.set_host_maintenance(request).await
    }

    async fn shown(&mut self) -> (v1::HostStatus, bool) {
        let request = v1::ListHostsRequest::default();
        let hosts = self.inventory.list_hosts(request).await.unwrap();
        let host = &hosts.into_inner().hosts[0];
        (host.status(), host.maintenance)
    }

    async fn try_create(
        &mut self,
        name: &str,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let request = v1::CreateSnapshotRequest {
            request_id: any_id(),
            vm_id: self.vm.clone(),
            name: name.to_owned(),
            ..v1::CreateSnapshotRequest::default()
        };
        self.snapshots.create_snapshot(request).await
    }

    async fn changes(&mut self) -> Vec<v1::Event> {
        let kind = v1::EventType::HostMaintenanceChanged;
        self.events_of(kind).await
    }
}

const UP: (v1::HostStatus, bool) = (v1::HostStatus::Up, false);
const MAINTAINED: (v1::HostStatus, bool) = (v1::HostStatus::Maintenance, true);

#[tokio::test]
async fn nothing_new_is_accepted_there_and_a_restart_changes_nothing() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let answer = rig.maintain(&any_id(), true).await.unwrap().into_inner();
    assert_eq!(answer.host.unwrap().status(), v1::HostStatus::Maintenance);
    for _restarted in 0..2 {
        until("the host", async || {
            (rig.shown().await == MAINTAINED).then_some(())
        })
        .await;
        let create = refusal(rig.try_create("s2").await);
        assert_eq!(create.reason, Reason::HostInMaintenance);
        assert_eq!(create.metadata["host"], HOST);
        let batch = rig.batch(&[&ids[0]]);
        let delete = refusal(rig.snapshots.batch_delete_snapshots(batch).await);
        assert_eq!(delete.reason, Reason::HostInMaintenance);
        let request = v1::PlanDeleteSnapshotRequest {
            snapshot_ids: vec![ids[0].clone()],
            ..v1::PlanDeleteSnapshotRequest::default()
        };
        let plan = rig.snapshots.plan_delete_snapshot(request).await.unwrap();
        let blockers = plan.into_inner().blockers;
        assert_eq!(blockers[0].reason, Reason::HostInMaintenance.as_str());
        rig.restart().await;
    }
    assert_eq!(rig.state(&ids[0]).await, Some(v1::SnapshotState::Ready));
    rig.maintain(&any_id(), false).await.unwrap();
    until("the host", async || (rig.shown().await == UP).then_some(())).await;
    rig.try_create("s2").await.unwrap();
}

#[tokio::test]
async fn a_request_is_done_once_however_late_it_is_repeated() {
    let mut rig = Rig::open(&["vda"]).await;
    let (into, out) = (any_id(), any_id());
    for _repeated in 0..2 {
        rig.maintain(&into, true).await.unwrap();
        assert_eq!(rig.shown().await, MAINTAINED);
    }
    rig.maintain(&out, false).await.unwrap();
    rig.maintain(&into, true).await.unwrap();
    assert_eq!(rig.shown().await, UP, "somebody wished it otherwise since");
    let reused = refusal(rig.maintain(&into, false).await);
    assert_eq!(reused.reason, Reason::RequestIdReused);
    let events = rig.changes().await;
    let wished: Vec<&str> = events
        .iter()
        .map(|event| event.details["maintenance"].as_str())
        .collect();
    assert_eq!(wished, ["true", "false"]);
    assert!(events.iter().all(|event| !event.actor.is_empty()));
    let request = v1::SetHostMaintenanceRequest {
        request_id: any_id(),
        host_id: "nowhere".to_owned(),
        maintenance: true,
    };
    let unknown = refusal(rig.inventory.set_host_maintenance(request).await);
    assert_eq!(unknown.reason, Reason::HostNotFound);
    let malformed = refusal(rig.maintain("x", true).await);
    assert_eq!(malformed.reason, Reason::FieldInvalid);
}

#[tokio::test]
async fn what_merges_ends_and_what_was_accepted_behind_it_waits() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let first = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    let second = rig.delete(&[&ids[1]]).await;
    let third = rig.try_create("s3").await.unwrap().into_inner();
    let third = third.operation.unwrap().id;
    rig.maintain(&any_id(), true).await.unwrap();
    rig.restart().await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&first.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    let waits = until("the wait", async || {
        let shown = rig.operation(&second.id).await;
        let waiting = shown.waiting.clone()?;
        (waiting.reason == Reason::HostInMaintenance.as_str()).then_some(shown)
    })
    .await;
    assert_eq!(waits.state(), v1::OperationState::Queued);
    assert_eq!(rig.agent.was_asked("start"), 1);
    // Whoever does not want to wait can end it; the next one waits as well, and then goes on.
    let request = v1::CancelOperationRequest {
        operation_id: second.id.clone(),
    };
    rig.operations.cancel_operation(request).await.unwrap();
    let ended = rig.ended(&second.id).await;
    assert_eq!(ended.state(), v1::OperationState::Cancelled);
    until("the next one's wait", async || {
        let waiting = rig.operation(&third).await.waiting?;
        (waiting.reason == Reason::HostInMaintenance.as_str()).then_some(())
    })
    .await;
    rig.maintain(&any_id(), false).await.unwrap();
    let ended = rig.ended(&third).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}
