//! Requests: done once, refused with all that is wrong, and lists.

use super::*;

fn fields(status: Status) -> Vec<String> {
    let problem = Problem::try_from(status).expect("an error with a reason");
    assert_eq!(problem.reason, Reason::FieldInvalid);
    problem
        .violations
        .into_iter()
        .map(|(field, _)| field)
        .collect()
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
    let (mut cluster, vm, snapshot) = with_snapshot(Pace::Manual, &["vda"]).await?;
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

fn locator(name: &str) -> livemerge_storage::Locator {
    livemerge_storage::Locator::File(format!("/fake/{name}").into())
}
