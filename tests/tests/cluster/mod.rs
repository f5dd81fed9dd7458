//! Both services together, on a scripted hypervisor: what they promise, and what they refuse.

mod clocks;
mod command_line;
mod warnings;

use std::time::Duration;

use anyhow::Result;
use livemerge_host_agent::hypervisor::HypervisorError;
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_tests::cluster::Cluster;
use tonic::Status;
use uuid::Uuid;

const QUICK: Pace = Pace::Every(Duration::from_millis(2));
const LIMIT: Duration = Duration::from_secs(20);

fn reason(status: Status) -> Reason {
    Problem::try_from(status)
        .expect("an error with a reason")
        .reason
}

fn fields(status: Status) -> Vec<String> {
    let problem = Problem::try_from(status).expect("an error with a reason");
    assert_eq!(problem.reason, Reason::FieldInvalid);
    problem
        .violations
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

fn types(events: &[v1::Event]) -> Vec<v1::EventType> {
    events.iter().map(v1::Event::r#type).collect()
}

#[tokio::test]
async fn a_snapshot_is_deleted_on_all_disks_and_the_log_tells_the_story() -> Result<()> {
    use v1::EventType as T;
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    assert_eq!(cluster.volumes.names().len(), 4);
    let delete = cluster.api.delete(&snapshot).await?;
    let ended = cluster.api.succeeded(&delete, LIMIT).await?;
    assert_eq!(ended.disks.len(), 2);
    assert!(
        ended
            .disks
            .iter()
            .all(|disk| disk.phase() == v1::MergePhase::Removed)
    );
    assert!(cluster.api.list(vm).await?.is_empty());
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2", "vm-vdb.qcow2"]);
    let log = cluster.api.log(vm).await?;
    let told = [
        T::SnapshotCreateRequested,
        T::SnapshotCreated,
        T::SnapshotDeleteRequested,
        T::LiveMergePlanned,
        T::LiveMergePlanned,
        T::LiveMergeStarted,
        T::LiveMergeStarted,
        T::LiveMergeReady,
        T::LiveMergeReady,
        T::LiveMergePivoting,
        T::LiveMergePivoting,
        T::LiveMergeCompleted,
        T::LiveMergeCompleted,
        T::VolumeRemoved,
        T::VolumeRemoved,
        T::SnapshotDeleted,
    ];
    let mut story = types(&log);
    // What a slow machine may add.
    story.retain(|told| *told != T::LiveMergePivotPutOff);
    let place = |wanted: T| story.iter().position(|told| *told == wanted);
    let all_ready = story.iter().rposition(|told| *told == T::LiveMergeReady);
    assert!(all_ready < place(T::LiveMergePivoting), "{story:?}");
    let all_merged = story
        .iter()
        .rposition(|told| *told == T::LiveMergeCompleted);
    assert!(all_merged < place(T::VolumeRemoved), "{story:?}");
    // How the disks' pivots lie within one another is theirs.
    let of_merges = 7..13;
    story[of_merges.clone()].sort_by_key(|told| i32::from(*told));
    let mut told = told;
    told[of_merges].sort_by_key(|told| i32::from(*told));
    assert_eq!(story, told);
    Ok(())
}

#[tokio::test]
async fn deleting_the_middle_one_leaves_the_others_pointing_at_their_data() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let disk = "vda".parse()?;
    let mut ids = Vec::new();
    for (block, name) in [(1, "a"), (2, "b"), (3, "c")] {
        cluster
            .hypervisor
            .guest_write(VmId::from(vm), &disk, block, 100 + block);
        ids.push(cluster.api.snapshot(vm, name).await?);
    }
    let before = cluster.api.list(vm).await?;
    let delete = cluster.api.delete(&ids[1]).await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    let after = cluster.api.list(vm).await?;
    assert_eq!(after[0].disks, before[0].disks);
    assert_eq!(
        after[1].disks[0].volume, before[1].disks[0].volume,
        "c's data went down into b's volume"
    );
    for block in 1..=3 {
        assert_eq!(
            cluster.hypervisor.guest_read(VmId::from(vm), &disk, block),
            Some(100 + block)
        );
    }
    assert_eq!(cluster.volumes.names().len(), 3);
    Ok(())
}

#[tokio::test]
async fn the_server_dies_in_mid_merge_and_the_host_finishes() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
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
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
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
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
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
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
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
async fn operations_of_one_machine_queue_in_order() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(cluster.api.snapshot(vm, name).await?);
    }
    let mut deletes = Vec::new();
    for id in &ids {
        deletes.push(cluster.api.delete(id).await?);
    }
    for delete in &deletes {
        cluster.api.succeeded(delete, LIMIT).await?;
    }
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    Ok(())
}

#[tokio::test]
async fn a_request_is_done_once_and_its_id_not_used_twice() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let mut request = v1::CreateSnapshotRequest {
        request_id: Uuid::new_v4().to_string(),
        vm_id: vm.to_string(),
        name: "first".to_owned(),
        description: String::new(),
        ..Default::default()
    };
    let once = cluster
        .api
        .snapshots
        .create_snapshot(request.clone())
        .await?
        .into_inner()
        .operation;
    let twice = cluster
        .api
        .snapshots
        .create_snapshot(request.clone())
        .await?
        .into_inner()
        .operation;
    assert_eq!(once.unwrap_or_default().id, twice.unwrap_or_default().id);
    request.name = "second".to_owned();
    let reused = cluster
        .api
        .snapshots
        .create_snapshot(request)
        .await
        .unwrap_err();
    assert_eq!(reason(reused), Reason::RequestIdReused);
    assert_eq!(cluster.api.list(vm).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_named() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let nobody = Uuid::new_v4();
    let status = cluster.api.create(nobody, "x").await.unwrap_err();
    assert!(
        status.message().contains(&nobody.to_string()),
        "{}",
        status.message()
    );
    assert_eq!(reason(status), Reason::VmNotFound);
    let status = cluster.api.delete(&nobody.to_string()).await.unwrap_err();
    assert!(
        status.message().contains(&nobody.to_string()),
        "{}",
        status.message()
    );
    assert_eq!(reason(status), Reason::SnapshotNotFound);
    let request = v1::GetHostRequest {
        host_id: "nowhere".to_owned(),
    };
    let status = cluster.api.inventory.get_host(request).await.unwrap_err();
    assert!(status.message().contains("nowhere"));
    assert_eq!(reason(status), Reason::HostNotFound);
    let request = v1::GetOperationRequest {
        operation_id: nobody.to_string(),
    };
    assert_eq!(
        reason(
            cluster
                .api
                .operations
                .get_operation(request)
                .await
                .unwrap_err()
        ),
        Reason::OperationNotFound
    );
    let request = v1::GetVolumeChainRequest {
        vm_id: vm.to_string(),
        disk: "vdz".to_owned(),
    };
    assert_eq!(
        reason(
            cluster
                .api
                .inventory
                .get_volume_chain(request)
                .await
                .unwrap_err()
        ),
        Reason::DiskNotFound
    );
    let request = v1::DeleteSnapshotRequest {
        request_id: Uuid::new_v4().to_string(),
        snapshot_id: nobody.to_string(),
        etag: String::new(),
        allow_missing: true,
        options: None,
    };
    assert!(
        cluster
            .api
            .snapshots
            .delete_snapshot(request)
            .await?
            .into_inner()
            .operation
            .is_none()
    );
    Ok(())
}

#[tokio::test]
async fn every_bad_field_is_named() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let api = &mut cluster.api;
    let status = api
        .snapshots
        .create_snapshot(v1::CreateSnapshotRequest::default())
        .await
        .unwrap_err();
    assert_eq!(fields(status), ["request_id", "vm_id", "name"]);
    let request = v1::CreateSnapshotRequest {
        request_id: "nope".to_owned(),
        vm_id: "../etc".to_owned(),
        name: "n".repeat(129),
        description: "d".repeat(1025),
        ..v1::CreateSnapshotRequest::default()
    };
    assert_eq!(
        fields(api.snapshots.create_snapshot(request).await.unwrap_err()),
        ["request_id", "vm_id", "name", "description"]
    );
    let request = v1::ListSnapshotsRequest {
        vm_id: "-".to_owned(),
        page_size: -1,
        page_token: String::new(),
    };
    assert_eq!(
        fields(api.snapshots.list_snapshots(request).await.unwrap_err()),
        ["page_size"]
    );
    let request = v1::ListSnapshotsRequest {
        vm_id: "-".to_owned(),
        page_size: 5,
        page_token: "x".to_owned(),
    };
    assert_eq!(
        reason(api.snapshots.list_snapshots(request).await.unwrap_err()),
        Reason::PageTokenInvalid
    );
    let request = v1::ListOperationsRequest {
        states: vec![99],
        page_size: 1001,
        ..Default::default()
    };
    assert_eq!(
        fields(api.operations.list_operations(request).await.unwrap_err()),
        ["states[0]", "page_size"]
    );
    let request = v1::WaitOperationRequest {
        operation_id: "x".to_owned(),
        timeout: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
    };
    assert_eq!(
        fields(api.operations.wait_operation(request).await.unwrap_err()),
        ["operation_id", "timeout"]
    );
    let request = v1::RegisterHostRequest {
        request_id: Uuid::new_v4().to_string(),
        host_id: "Host 1".to_owned(),
        endpoint: "ftp://x".to_owned(),
        generation: -1,
        version: "v".repeat(65),
    };
    let bad = fields(api.inventory.register_host(request).await.unwrap_err());
    assert_eq!(bad, ["host_id", "endpoint", "generation", "version"]);
    let request = v1::DeleteSnapshotRequest {
        request_id: Uuid::new_v4().to_string(),
        snapshot_id: Uuid::new_v4().to_string(),
        etag: "what".to_owned(),
        allow_missing: false,
        options: None,
    };
    assert_eq!(
        fields(api.snapshots.delete_snapshot(request).await.unwrap_err()),
        ["etag"]
    );
    Ok(())
}

#[tokio::test]
async fn wrong_states_are_refused_and_change_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let twin = cluster.api.create(vm, "first").await.unwrap_err();
    assert_eq!(reason(twin), Reason::SnapshotAlreadyExists);
    let request = v1::DeleteSnapshotRequest {
        request_id: Uuid::new_v4().to_string(),
        snapshot_id: snapshot.clone(),
        etag: "r1".to_owned(),
        allow_missing: false,
        options: None,
    };
    let stale = cluster
        .api
        .snapshots
        .delete_snapshot(request)
        .await
        .unwrap_err();
    assert_eq!(reason(stale), Reason::EtagMismatch);

    // A clone is built on the snapshot's volume.
    let listed = cluster.api.list(vm).await?;
    let frozen = listed[0].disks[0].volume.clone().unwrap_or_default();
    let clone = cluster.volumes.add_base("clone.qcow2");
    let base = cluster.volumes.add_base("scratch.qcow2");
    drop(base);
    let below = cluster
        .hypervisor
        .images()
        .chain(&locator(&frozen.name))
        .unwrap_or_default();
    cluster.hypervisor.images().create(&clone, below.last());
    let shared = cluster.api.delete(&snapshot).await.unwrap_err();
    assert_eq!(reason(shared), Reason::SnapshotSharedBase);
    cluster.hypervisor.images().create(&clone, None);

    assert_eq!(count(&cluster, "start_job"), 0);
    cluster.api.delete(&snapshot).await?;
    let twice = cluster.api.delete(&snapshot).await.unwrap_err();
    assert_eq!(reason(twice), Reason::SnapshotNotReady);
    Ok(())
}

#[tokio::test]
async fn a_silent_host_is_unresponsive_and_nothing_is_assumed() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
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
async fn lists_are_complete_page_by_page() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.api.snapshot(vm, name).await?;
    }
    for page_size in 1..=6 {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListSnapshotsRequest {
                vm_id: vm.to_string(),
                page_size,
                page_token,
            };
            let page = cluster
                .api
                .snapshots
                .list_snapshots(request)
                .await?
                .into_inner();
            names.extend(page.snapshots.into_iter().map(|snapshot| snapshot.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(names, ["a", "b", "c", "d", "e"], "pages of {page_size}");
    }
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

fn locator(name: &str) -> livemerge_storage::Locator {
    livemerge_storage::Locator::File(format!("/fake/{name}").into())
}

fn count(cluster: &Cluster, call: &str) -> usize {
    cluster
        .hypervisor
        .calls()
        .iter()
        .filter(|made| made.name() == call)
        .count()
}

async fn wait_for_call(cluster: &Cluster, call: &str) -> Result<()> {
    wait_for_calls(cluster, call, 1).await
}

async fn wait_for_calls(cluster: &Cluster, call: &str, times: usize) -> Result<()> {
    let wait = async {
        while count(cluster, call) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    Ok(tokio::time::timeout(LIMIT, wait).await?)
}

async fn wait_for_status(cluster: &mut Cluster, wanted: v1::HostStatus) -> Result<()> {
    let wait = async {
        loop {
            let request = v1::GetHostRequest {
                host_id: "host-1".to_owned(),
            };
            let host = cluster
                .api
                .inventory
                .get_host(request)
                .await?
                .into_inner()
                .host;
            if host.unwrap_or_default().status() == wanted {
                return Ok::<_, Status>(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(tokio::time::timeout(LIMIT, wait).await??)
}
