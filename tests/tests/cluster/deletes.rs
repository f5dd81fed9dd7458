//! What a delete leaves, and what the log tells of it.

use super::*;

#[tokio::test]
async fn a_snapshot_is_deleted_on_all_disks_and_the_log_tells_the_story() -> Result<()> {
    use v1::EventType as T;
    let (mut cluster, vm, snapshot) = with_snapshot(QUICK, &["vda", "vdb"]).await?;
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
