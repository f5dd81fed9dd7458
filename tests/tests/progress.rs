//! How far a merge has come, as it is shown: in bytes that were copied, wherever on the disk they
//! lie, also by an agent that took the merge over in its middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{self, MergeDirection, MergePhase};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::qmp::Qmp;
use livemerge_tests::scene::{LIMIT, Scene};
use serde_json::json;

const MIB: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(50);
const DEVICE: &str = "/machine/peripheral/virtio-disk0/virtio-backend";
/// Written at the end of the disk: QEMU is there at once, and has copied next to nothing.
const HEAVY_AT_MIB: u64 = 1900;
const HEAVY_MIB: u64 = 96;
const CALM: Workload = Workload {
    slots: 256,
    fill_mib: 0,
    background_kib: 0,
    rate: 0,
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
    if direction == MergeDirection::Commit {
        scene.snapshot("stays").await?;
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

    scene.api.limit(&deletion, 0).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    let disk = &done.disks[0];
    assert_eq!(disk.done_bytes, disk.total_bytes);
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
    }
    Ok(())
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
