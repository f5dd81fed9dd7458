//! What the log tells, and that it tells it once.

use super::*;

#[tokio::test]
async fn the_phases_of_a_merge_are_told_once_also_over_restarts() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let refused = HypervisorError::Refused("not now".to_owned());
    cluster.hypervisor.fail_next("pivot", refused);
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    let disk: DiskTarget = "vda".parse()?;
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    let put_off = wait_for(&mut cluster, Type::LiveMergePivotPutOff).await?;
    cluster.server.crash();
    cluster.start_server().await?;
    while !cluster.hypervisor.switch(VmId::from(vm), &disk) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.hypervisor.notice(VmId::from(vm), &disk);
    cluster.api.succeeded(&delete, LIMIT).await?;
    for once in [
        Type::LiveMergeReady,
        Type::LiveMergePivoting,
        Type::LiveMergePivotPutOff,
        Type::LiveMergeCompleted,
    ] {
        assert_eq!(
            count(&mut cluster, once).await?,
            1,
            "{}",
            once.as_str_name()
        );
    }
    assert_eq!(put_off.severity(), Severity::Warning);
    assert_eq!(put_off.details["pivot_attempts"], "1");
    assert_eq!(
        (put_off.operation_id, put_off.snapshot_id),
        (delete.id, snapshot)
    );
    assert_eq!(
        (put_off.vm_id, put_off.host_id.as_str()),
        (vm.to_string(), "host-1")
    );
    let completed = wait_for(&mut cluster, Type::LiveMergeCompleted).await?;
    assert_eq!(completed.details["merge"], put_off.details["merge"]);
    assert!(completed.details["pivot_attempts"].parse::<u32>()? >= 2);
    assert!(completed.details.contains_key("copied_bytes"));
    assert!(completed.details.contains_key("longest_pause_ms"));
    Ok(())
}

/// The operation as `GetOperation` shows it, once it waits and fits.
async fn waiting(
    cluster: &mut Cluster,
    operation: &v1::Operation,
    fits: impl Fn(&v1::Waiting) -> bool,
) -> Result<v1::Waiting> {
    let look = async {
        loop {
            let request = v1::GetOperationRequest {
                operation_id: operation.id.clone(),
            };
            let shown = cluster.api.operations.get_operation(request).await?;
            let waiting = shown.into_inner().operation.unwrap_or_default().waiting;
            if let Some(waiting) = waiting.filter(&fits) {
                return Ok(waiting);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, look)
        .await
        .context("it does not wait")?
}

#[tokio::test]
async fn a_refused_removal_is_told_once_and_shown_at_each_try() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    let disk: DiskTarget = "vda".parse()?;
    // Another machine opens the overlay that is about to be removed.
    let seen = cluster
        .hypervisor
        .peek(VmId::from(vm))
        .context("the machine")?;
    let overlay = seen.disks[0].chain.last().context("a chain")?.clone();
    let squatter = VmId::from(Uuid::new_v4());
    cluster
        .hypervisor
        .add_vm(squatter, "squatter", &[("vda", &[overlay.locator])]);
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    wait_for_call(&cluster, "pivot").await?;
    cluster.hypervisor.switch(VmId::from(vm), &disk);
    cluster.hypervisor.notice(VmId::from(vm), &disk);

    let shown = waiting(&mut cluster, &delete, |waiting| waiting.attempts >= 3).await?;
    assert_eq!(shown.reason, "VOLUME_IN_USE");
    assert!(shown.next_try_at.is_some());
    let refused = wait_for(&mut cluster, Type::VolumeRemovalRefused).await?;
    assert_eq!(refused.details["reason"], "VOLUME_IN_USE");
    assert_eq!(refused.severity(), Severity::Warning);
    assert!(refused.details.contains_key("removed") && refused.details.contains_key("merge"));

    // A new server says so at once, tries again, and tells nothing twice.
    cluster.server.crash();
    cluster.start_server().await?;
    let shown = waiting(&mut cluster, &delete, |_| true).await?;
    assert_eq!(shown.reason, "VOLUME_IN_USE");
    let shown = waiting(&mut cluster, &delete, |waiting| waiting.attempts >= 2).await?;
    assert!(shown.next_try_at.is_some());
    assert_eq!(count(&mut cluster, Type::VolumeRemovalRefused).await?, 1);

    cluster.hypervisor.remove_vm(squatter);
    cluster.api.succeeded(&delete, LIMIT).await?;
    let told = types(&mut cluster).await?;
    let end = [
        Type::OperationRecovered,
        Type::VolumeRemoved,
        Type::SnapshotDeleted,
    ];
    assert!(told.ends_with(&end), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn what_the_agent_waits_for_is_shown_of_the_operation() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    cluster.hypervisor.disconnect();
    let shown = waiting(&mut cluster, &delete, |waiting| waiting.attempts >= 3).await?;
    assert_eq!(shown.reason, "HYPERVISOR_UNREACHABLE");
    assert!(shown.next_try_at.is_some());
    let told = wait_for(&mut cluster, Type::OperationWaiting).await?;
    assert_eq!(told.details["reason"], "HYPERVISOR_UNREACHABLE");

    cluster.hypervisor.connect();
    let disk: DiskTarget = "vda".parse()?;
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    wait_for_call(&cluster, "pivot").await?;
    cluster.hypervisor.switch(VmId::from(vm), &disk);
    cluster.hypervisor.notice(VmId::from(vm), &disk);
    cluster.api.succeeded(&delete, LIMIT).await?;
    assert_eq!(count(&mut cluster, Type::OperationWaiting).await?, 1);
    assert_eq!(count(&mut cluster, Type::OperationRecovered).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_silent_host_is_told_of_once() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    cluster.agent.crash();
    let shown = waiting(&mut cluster, &delete, |_| true).await?;
    assert_eq!(shown.reason, "HOST_UNREACHABLE", "shown at once");
    wait_for(&mut cluster, Type::OperationWaiting).await?;
    cluster.start_agent().await?;
    let recovered = wait_for(&mut cluster, Type::OperationRecovered).await?;
    assert_eq!(recovered.details["reason"], "HOST_UNREACHABLE");
    assert_eq!(count(&mut cluster, Type::OperationWaiting).await?, 1);
    Ok(())
}
