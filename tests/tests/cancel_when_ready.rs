//! A merge that is given up when a disk has caught up already, on the real thing.

use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::{self, MergeDirection, MergePhase, OperationState};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::scene::{LIMIT, Scene};

const MIB: i64 = 1 << 20;
const CALM: Workload = Workload {
    slots: 256,
    fill_mib: 8,
    background_kib: 0,
    rate: 0,
};
const SECOND: &str = "/machine/peripheral/virtio-disk1/virtio-backend";
const HEAVY_MIB: u64 = 96;

fn limited(direction: MergeDirection, bytes_per_second: i64) -> v1::MergeOptions {
    v1::MergeOptions {
        direction: direction.into(),
        bytes_per_second,
    }
}

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_caught_up_is_given_up_with_the_other_one() -> Result<()> {
    let mut scene = Scene::begin_with_monitor(&["vda", "vdb"], CALM).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    let mut monitor = scene.monitor()?;
    monitor.write_through(SECOND, 1024, HEAVY_MIB)?;
    let chains = [scene.images_of("vda").await?, scene.images_of("vdb").await?];
    let options = limited(MergeDirection::Commit, 8 * MIB);
    let deletion = scene.api.delete_with(&snapshot, options).await?;
    let look = async {
        loop {
            let merges = scene.merges().await?;
            let ready =
                |merge: &v1::Merge| merge.disk == "vda" && merge.phase() == MergePhase::Ready;
            if merges.iter().any(ready) {
                return anyhow::Ok(merges);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let merges = tokio::time::timeout(LIMIT, look).await??;
    let other = merges.iter().find(|merge| merge.disk == "vdb");
    let other = other.context("the other disk's")?;
    assert_eq!(other.phase(), MergePhase::Copying, "{other:?}");

    scene.api.cancel(&deletion).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    for disk in &ended.disks {
        assert_eq!(disk.phase(), MergePhase::Cancelled, "{disk:?}");
    }
    for merge in scene.merges().await? {
        assert_eq!(merge.pivot_attempts, 0, "{merge:?}");
    }
    for (disk, chain) in ["vda", "vdb"].iter().zip(&chains) {
        assert_eq!(&scene.images_of(disk).await?, chain);
    }
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);
    scene.write_more(50).await?;

    // The guest is switched on both disks, and the volumes' removal takes a while.
    scene
        .services
        .agent
        .fail_at("agent::before-removal=sleep(4000)");
    scene.services.agent.stop()?;
    scene.services.agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let again = scene.api.delete(&snapshot).await?;
    let look = async {
        let merged = [MergePhase::Merged, MergePhase::Removing];
        loop {
            let disks = scene.api.operation(&again.id).await?.disks;
            if disks.len() == 2 && disks.iter().all(|disk| merged.contains(&disk.phase())) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await??;
    let too_late = scene.api.cancel(&again).await.unwrap_err();
    let too_late = Problem::try_from(too_late)?;
    assert_eq!(too_late.reason, Reason::PointOfNoReturn, "{too_late:?}");
    scene.api.succeeded(&again, LIMIT).await?;
    for (disk, chain) in ["vda", "vdb"].iter().zip(&chains) {
        assert_eq!(scene.images_of(disk).await?, chain[..1]);
    }
    let refused = scene.api.cancel(&again).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Aborted);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
