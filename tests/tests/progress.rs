//! How far a merge has come, as it is shown: in bytes that were copied, wherever on the disk they
//! lie, also by an agent that took the merge over in its middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{self, MergeDirection, MergePhase, SnapshotState};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::frozen_slots;
use livemerge_tests::qmp::Qmp;
use livemerge_tests::scene::{LIMIT, Scene};
use serde_json::json;

const MIB: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(50);
const DEVICE: &str = "/machine/peripheral/virtio-disk0/virtio-backend";
/// Written at the end of the disk: QEMU is there at once, and has copied next to nothing.
const HEAVY_AT_MIB: u64 = 1900;
const HEAVY_MIB: u64 = 96;
/// More than the guest's records take, in clusters.
const MEANWHILE: i64 = 6 << 20;
const CALM: Workload = Workload {
    slots: 256,
    fill_mib: 0,
    background_kib: 0,
    rate: 50,
};

/// Whether what is written at the end of the disk is above the snapshot that goes, or below it.
#[derive(Clone, Copy, PartialEq)]
enum Heavy {
    Above,
    Below,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_commit_counts_bytes_where_they_lie() -> Result<()> {
    counts_bytes(Heavy::Above, MergeDirection::Commit).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_counts_bytes_where_they_lie() -> Result<()> {
    counts_bytes(Heavy::Below, MergeDirection::Pull).await
}

async fn counts_bytes(heavy: Heavy, direction: MergeDirection) -> Result<()> {
    let mut scene = Scene::begin_with_monitor(&["vda"], CALM).await?;
    let mut monitor = scene.monitor()?;
    let mut write = |at: Heavy| match heavy == at {
        true => monitor.write_through(DEVICE, HEAVY_AT_MIB, HEAVY_MIB),
        false => Ok(()),
    };
    write(Heavy::Below)?;
    let snapshot = scene.snapshot("goes").await?;
    write(Heavy::Above)?;
    drop(monitor);
    let mut younger = Vec::new();
    if direction == MergeDirection::Commit {
        scene.snapshot("stays").await?;
        // QEMU lets nobody read it while its backing is committed.
        younger = reads_of_younger(&mut scene).await?;
    }

    let slow = v1::MergeOptions {
        direction: direction.into(),
        bytes_per_second: i64::try_from(2 * MIB)?,
    };
    let deletion = scene.api.delete_with(&snapshot, slow).await?;
    let first = shown(&scene).await?;
    scene.services.agent.kill()?;
    scene.services.agent.start()?;
    let second = shown(&scene).await?;
    ensure!(first <= second, "{first} MiB, then {second}");

    let deletion = match direction {
        MergeDirection::Commit => {
            cancelled_and_asked_for_again(&mut scene, deletion, &younger).await?
        }
        _ => deletion,
    };
    scene.api.limit(&deletion, 0).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    let disk = &done.disks[0];
    assert_eq!(disk.done_bytes, disk.total_bytes);
    as_planned(disk)?;
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
    }
    Ok(())
}

/// What was planned is what was done, but for what the guest writes meanwhile.
fn as_planned(disk: &v1::DiskProgress) -> Result<()> {
    let heavy = i64::try_from(HEAVY_MIB * MIB)?;
    ensure!(!disk.planned_bytes_guessed, "{disk:?}");
    for (planned, real) in [
        (disk.planned_bytes, disk.done_bytes),
        (disk.planned_freed_bytes, disk.freed_bytes),
    ] {
        let differs = (planned - real).abs();
        ensure!(differs <= MEANWHILE, "{planned} became {real}: {disk:?}");
        ensure!(real >= heavy, "{real}: {disk:?}");
    }
    Ok(())
}

/// What the younger snapshot's layer reads as.
async fn reads_of_younger(scene: &mut Scene) -> Result<Vec<u8>> {
    let images = scene.images_of("vda").await?;
    frozen_slots(&images[images.len() - 2], CALM.slots)
}

/// Gives up the commit below the younger snapshot: chain and younger snapshot are as they were. Returns
/// the delete that is asked for then.
async fn cancelled_and_asked_for_again(
    scene: &mut Scene,
    deletion: v1::Operation,
    younger: &[u8],
) -> Result<v1::Operation> {
    let (vm, images) = (scene.vm(), scene.images_of("vda").await?);
    scene.api.cancel(&deletion).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    ensure!(
        ended.state() == v1::OperationState::Cancelled
            && ended.disks[0].kind() == v1::MergeKind::IntermediateCommit
            && ended.disks[0].phase() == MergePhase::Cancelled,
        "{ended:?}"
    );
    ensure!(scene.images_of("vda").await? == images);
    let listed = scene.api.list(vm).await?;
    let states: Vec<_> = listed.iter().map(v1::Snapshot::state).collect();
    assert_eq!(states, [SnapshotState::Incomplete, SnapshotState::Ready]);
    ensure!(
        reads_of_younger(scene).await? == younger,
        "it reads otherwise"
    );
    scene.write_more(20).await?;
    Ok(scene.api.delete(&ended.snapshot_id).await?)
}

/// Waits until the agent shows some of the copy, and QEMU is where the bytes lie: spread evenly
/// over the disk, more than nine tenths would be done. Returns how much is, in MiB.
async fn shown(scene: &Scene) -> Result<u64> {
    let mut monitor = scene.monitor()?;
    let look = async {
        loop {
            let merges = scene.merges().await.unwrap_or_default();
            let merge = merges.last().filter(|merge| merge.done_bytes > 0);
            if let Some(merge) = merge.filter(|_| is_at_the_end(&mut monitor)) {
                return merge.clone();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let merge = tokio::time::timeout(LIMIT, look).await;
    let merge = merge.context("no progress is shown")?;
    assert_eq!(merge.phase(), MergePhase::Copying);
    let (done, total) = (merge.done_bytes, merge.total_bytes);
    ensure!(total >= i64::try_from(HEAVY_MIB * MIB)?, "{merge:?}");
    ensure!(done * 2 < total, "{done} of {total}");
    Ok(u64::try_from(done)? / MIB)
}

fn is_at_the_end(monitor: &mut Qmp) -> bool {
    let jobs = monitor.execute("query-block-jobs", &json!({}));
    let job = jobs.map(|jobs| (jobs[0]["offset"].as_u64(), jobs[0]["len"].as_u64()));
    matches!(job, Ok((Some(offset), Some(len))) if offset * 10 > len * 9)
}
