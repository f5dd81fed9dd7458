//! Ends of either service and of the machine, answers that are lost or a no, and who comes too late.

use super::*;
use livemerge_host_agent::hypervisor::HypervisorError;

#[tokio::test]
async fn the_server_dies_in_mid_merge_and_the_host_finishes() -> Result<()> {
    let (mut cluster, vm, snapshot) = with_snapshot(Pace::Manual, &["vda"]).await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    cluster.crash_server();
    let disk = "vda".parse()?;
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    wait_for_call(&cluster, "pivot").await?;
    cluster.hypervisor.switch(VmId::from(vm), &disk);
    cluster.hypervisor.notice(VmId::from(vm), &disk);
    wait_for_call(&cluster, "resume").await?;
    cluster.start_server().await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    assert!(cluster.api.list(vm).await?.is_empty());
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    assert!(types(&cluster.api.log(vm).await?).contains(&v1::EventType::OperationResumed));
    Ok(())
}

#[tokio::test]
async fn the_agent_dies_in_mid_merge_and_adopts_the_job() -> Result<()> {
    let (mut cluster, vm, snapshot) = with_snapshot(Pace::Manual, &["vda"]).await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    cluster.crash_agent();
    let disk = "vda".parse()?;
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    cluster.start_agent().await?;
    wait_for_call(&cluster, "pivot").await?;
    cluster.hypervisor.switch(VmId::from(vm), &disk);
    cluster.hypervisor.notice(VmId::from(vm), &disk);
    cluster.api.succeeded(&delete, LIMIT).await?;
    assert_eq!(count(&cluster, "start_job"), 1, "the job was adopted");
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    Ok(())
}

#[tokio::test]
async fn the_machine_dies_in_mid_merge_and_the_snapshot_stays() -> Result<()> {
    let (mut cluster, vm, snapshot) = with_snapshot(Pace::Manual, &["vda"]).await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    cluster.hypervisor.kill_vm(VmId::from(vm));
    let ended = cluster.api.ended(&delete, LIMIT).await?;
    assert_eq!(ended.failure.unwrap_or_default().reason, "VM_DIED");
    assert!(types(&cluster.api.log(vm).await?).contains(&v1::EventType::LiveMergeFailed));
    let left = cluster.api.list(vm).await?;
    assert_eq!(left[0].state(), v1::SnapshotState::Incomplete);
    assert_eq!(cluster.volumes.names().len(), 2, "nothing was removed");

    // While it is off it is merged offline; the machine then starts without the overlay.
    let again = cluster.api.delete(&snapshot).await?;
    let disk = "vda".parse()?;
    wait_for_calls(&cluster, "start_job", 2).await?;
    let vm = VmId::from(vm);
    cluster.hypervisor.advance(vm, &disk, usize::MAX);
    let done = cluster.api.succeeded(&again, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), v1::MergeKind::OfflineCommit);
    assert_eq!(count(&cluster, "pivot"), 0);
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    cluster.hypervisor.start_vm(vm)?;
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_is_done_once() -> Result<()> {
    for call in ["add_overlays", "start_job", "pivot", "suspend", "resume"] {
        let mut cluster = Cluster::start(QUICK).await?;
        let vm = cluster.add_vm("vm", &["vda"]).await?;
        cluster.hypervisor.lose_reply(call);
        let snapshot = cluster.api.snapshot(vm, "first").await?;
        assert_eq!(cluster.volumes.names().len(), 2, "{call}");
        let delete = cluster.api.delete(&snapshot).await?;
        cluster.api.succeeded(&delete, LIMIT).await?;
        assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"], "{call}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_pivot_is_tried_again_and_the_guest_runs_meanwhile() -> Result<()> {
    let (mut cluster, _, snapshot) = with_snapshot(QUICK, &["vda"]).await?;
    cluster
        .hypervisor
        .fail_next("pivot", HypervisorError::Refused("not now".to_owned()));
    let delete = cluster.api.delete(&snapshot).await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    assert_eq!(
        (
            count(&cluster, "pivot"),
            count(&cluster, "suspend"),
            count(&cluster, "resume")
        ),
        (2, 2, 2)
    );
    Ok(())
}

#[tokio::test]
async fn a_refused_overlay_leaves_nothing() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    cluster
        .hypervisor
        .fail_next("add_overlays", HypervisorError::Refused("no".to_owned()));
    let create = cluster.api.create(vm, "first").await?;
    let ended = cluster.api.ended(&create, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    assert!(cluster.api.list(vm).await?.is_empty());
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2", "vm-vdb.qcow2"]);
    Ok(())
}

#[tokio::test]
async fn a_silent_host_is_unresponsive_and_nothing_is_assumed() -> Result<()> {
    let (mut cluster, vm, snapshot) = with_snapshot(QUICK, &["vda"]).await?;
    cluster.crash_agent();
    wait_for_status(&mut cluster, v1::HostStatus::Unresponsive).await?;
    let seen = cluster
        .api
        .inventory
        .get_vm(v1::GetVmRequest {
            vm_id: vm.to_string(),
        })
        .await?
        .into_inner()
        .vm;
    assert_eq!(seen.unwrap_or_default().state(), v1::VmState::Unknown);
    let refused = cluster.api.delete(&snapshot).await.unwrap_err();
    assert_eq!(reason(refused), Reason::HostUnreachable);
    cluster.start_agent().await?;
    wait_for_status(&mut cluster, v1::HostStatus::Up).await?;
    let delete = cluster.api.delete(&snapshot).await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn an_older_agent_or_server_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let mut merges = v1::merge_service_client::MergeServiceClient::new(cluster.agent_channel()?);
    let volume = |name: &str| v1::MarkedVolume {
        volume: Some(v1::VolumeRef {
            storage: "default".to_owned(),
            name: name.to_owned(),
        }),
        identity: "x".to_owned(),
    };
    let order = |generation| v1::StartMergeRequest {
        generation,
        vm_id: vm.to_string(),
        disks: vec![v1::DiskMerge {
            merge_id: Uuid::new_v4().to_string(),
            disk: "vda".to_owned(),
            direction: v1::MergeDirection::Commit.into(),
            kept: Some(volume("a.qcow2")),
            removed: vec![volume("b.qcow2")],
            bytes_per_second: 0,
            spare: None,
        }],
        promised_elsewhere: vec![],
        sequence: 1,
    };
    assert_eq!(
        reason(merges.start_merge(order(50)).await.unwrap_err()),
        Reason::VolumeNotFound
    );
    assert_eq!(
        reason(merges.start_merge(order(49)).await.unwrap_err()),
        Reason::StaleGeneration
    );

    let request = v1::RegisterHostRequest {
        request_id: Uuid::new_v4().to_string(),
        host_id: "host-1".to_owned(),
        endpoint: "http://elsewhere:1".to_owned(),
        generation: 9,
        version: String::new(),
    };
    let (mut older, mut twin) = (request.clone(), request.clone());
    let taken = cluster.api.inventory.register_host(request.clone()).await;
    assert_eq!(
        reason(taken.unwrap_err()),
        Reason::HostUnreachable,
        "a host that is up is not given away"
    );
    cluster.crash_agent();
    wait_for_status(&mut cluster, v1::HostStatus::Unresponsive).await?;
    cluster.api.inventory.register_host(request).await?;
    twin.endpoint = "http://twin:1".to_owned();
    let refused = cluster.api.inventory.register_host(twin).await;
    assert_eq!(reason(refused.unwrap_err()), Reason::StaleGeneration);
    older.generation = 8;
    assert_eq!(
        reason(
            cluster
                .api
                .inventory
                .register_host(older)
                .await
                .unwrap_err()
        ),
        Reason::StaleGeneration
    );
    Ok(())
}
