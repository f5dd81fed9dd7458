//! Every kind of merge on the real thing, under a guest that writes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{self, MergeDirection, MergeKind, OperationState, SnapshotState};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::scene::{LIMIT, Scene};

const MIB: i64 = 1 << 20;
/// Each disk is looked at twice a second, and some changes come between.
const MESSAGES_A_SECOND: f64 = 10.0;

fn calm() -> Workload {
    Workload {
        slots: 256,
        fill_mib: 16,
        background_kib: 1024,
        rate: 50,
    }
}

fn busy() -> Workload {
    Workload {
        background_kib: 64 << 10,
        ..calm()
    }
}

fn by(direction: MergeDirection) -> v1::MergeOptions {
    v1::MergeOptions {
        direction: direction.into(),
        bytes_per_second: 0,
    }
}

fn limited(bytes_per_second: i64) -> v1::MergeOptions {
    v1::MergeOptions {
        direction: MergeDirection::Commit.into(),
        bytes_per_second,
    }
}

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

/// A client that watches the copy sees its bytes rise, how fast, and how long it takes, and no more
/// often than is good for it.
async fn is_watched(scene: &mut Scene, operation: &v1::Operation) -> Result<()> {
    let request = v1::WatchOperationRequest {
        operation_id: operation.id.clone(),
    };
    let begun = Instant::now();
    let watch = scene.api.operations.watch_operation(request).await?;
    let mut watch = watch.into_inner();
    let (mut messages, mut risen, mut before) = (0, 0, 0);
    let watching = async {
        loop {
            let said = watch.message().await?.context("the watch has ended")?;
            let shown = said.operation.unwrap_or_default();
            messages += 1;
            let done: i64 = shown.disks.iter().map(|disk| disk.done_bytes).sum();
            ensure!(done >= before, "{done} bytes after {before}");
            risen += u32::from(done > before);
            before = done;
            let copies = |disk: &v1::DiskProgress| {
                disk.phase() == v1::MergePhase::Copying
                    && disk.done_bytes > 0
                    && disk.done_bytes < disk.total_bytes
                    && disk.bytes_per_second > 0
                    && disk.time_left.is_some()
            };
            if risen >= 4 && shown.disks.len() == 2 && shown.disks.iter().all(copies) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(LIMIT, watching).await??;
    let most = MESSAGES_A_SECOND * (1.0 + begun.elapsed().as_secs_f64());
    ensure!(
        f64::from(messages) <= most,
        "{messages} messages in {:?}",
        begun.elapsed()
    );
    Ok(())
}

async fn snapshots(scene: &mut Scene, count: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(scene.snapshot(&format!("s{number}")).await?);
    }
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_go_in_one_job_and_gaps_in_rounds() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], calm()).await?;
    let vm = scene.vm();
    let ids = snapshots(&mut scene, 6).await?;
    let images = scene.images_of("vda").await?;

    // Two runs of neighbours: the first two, and the last three.
    let gone = [&ids[0], &ids[1], &ids[3], &ids[4], &ids[5]].map(Clone::clone);
    let commit = by(MergeDirection::Commit);
    let deletion = scene.api.delete_batch(vm, &gone, commit).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    let told: Vec<_> = done
        .disks
        .iter()
        .map(|disk| (disk.round, disk.kind(), disk.removed.len()))
        .collect();
    let wanted = [
        (0, MergeKind::IntermediateCommit, 2),
        (1, MergeKind::ActiveCommit, 3),
    ];
    assert_eq!(told, wanted);
    let kept = [images[0].clone(), images[3].clone()];
    assert_eq!(scene.images_of("vda").await?, kept);
    for image in images.iter().filter(|image| !kept.contains(image)) {
        assert!(!image.exists(), "{} is left", image.display());
    }
    let left = scene.api.list(vm).await?;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id, ids[2]);
    assert_eq!(scene.merges().await?.len(), 2);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_that_copies_less_is_taken_and_another_may_be_asked_for() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], busy()).await?;
    let vm = scene.vm();
    let light = scene.snapshot("light").await?;
    let lighter = scene.snapshot("lighter").await?;
    scene.grow_active_layer("vda", 128 * MIB).await?;
    let images = scene.images_of("vda").await?;

    let ids = [lighter.clone()];
    let free = v1::MergeOptions::default();
    let planned = scene.api.plan(&ids, free).await?;
    let plan = planned.merges.first().context("a merge")?;
    assert_eq!(plan.kind(), MergeKind::Pull, "{plan:?}");
    assert!(plan.copy_bytes < plan.other_way_bytes, "{plan:?}");
    assert!(plan.space_free_bytes > plan.space_needed_bytes, "{plan:?}");
    assert_eq!(planned.blockers, []);
    assert_eq!(scene.images_of("vda").await?, images, "nothing was done");

    let deletion = scene.api.delete_with(&lighter, free).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::Pull);
    assert!(!images[1].exists() && images[2].exists());
    let now = [images[0].clone(), images[2].clone()];
    assert_eq!(scene.images_of("vda").await?, now);

    let commit = by(MergeDirection::Commit);
    let deletion = scene.api.delete_with(&light, commit).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::ActiveCommit);
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_leaves_no_backing_behind_when_the_oldest_goes() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], calm()).await?;
    let ids = snapshots(&mut scene, 2).await?;
    let images = scene.images_of("vda").await?;
    let vm = scene.vm();
    let pull = by(MergeDirection::Pull);
    let deletion = scene.api.delete_batch(vm, &ids, pull).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(scene.images_of("vda").await?, images[2..]);
    assert!(!images[0].exists() && !images[1].exists());
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_merge_is_limited_cancelled_and_deleted_again() -> Result<()> {
    let mut scene = Scene::begin(&["vda", "vdb"], busy()).await?;
    let vm = scene.vm();
    // A copy that is limited and falls behind would have its limit lifted.
    scene.services.agent.stop()?;
    scene.services.agent.set("merge.stalled_after_ms=3600000");
    scene.services.agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let snapshot = scene.snapshot("nightly").await?;
    for disk in ["vda", "vdb"] {
        scene.grow_active_layer(disk, 64 * MIB).await?;
    }
    let mut before = Vec::new();
    for disk in ["vda", "vdb"] {
        before.push(scene.images_of(disk).await?);
    }

    let slow = limited(2 * MIB);
    let deletion = scene.api.delete_with(&snapshot, slow).await?;
    scene.until_copying().await?;
    let merges = scene.merges().await?;
    assert_eq!(merges.len(), 2, "both disks were ordered together");
    for merge in &merges {
        assert_eq!(merge.bytes_per_second, MIB, "the limit is shared");
    }
    is_watched(&mut scene, &deletion).await?;
    let cancelled = scene.api.cancel(&deletion).await?;
    assert!(cancelled.cancel_requested);
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    for disk in &ended.disks {
        assert_eq!(disk.phase(), v1::MergePhase::Cancelled);
    }
    for (disk, images) in ["vda", "vdb"].iter().zip(&before) {
        assert_eq!(&scene.images_of(disk).await?, images);
    }
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), SnapshotState::Incomplete);
    scene.write_more(5).await?;

    let slow = limited(2 * MIB);
    let again = scene.api.delete_with(&snapshot, slow).await?;
    scene.until_phase(2, v1::MergePhase::Copying).await?;
    let limit = scene.api.limit(&again, 0).await?;
    assert_eq!(limit.bytes_per_second, 0);
    scene.api.succeeded(&again, LIMIT).await?;
    let too_late = scene.api.cancel(&again).await.unwrap_err();
    assert_eq!(too_late.code(), tonic::Code::Aborted);
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_leaves_the_snapshot_as_it_was() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], busy()).await?;
    let vm = scene.vm();
    scene.grow_active_layer("vda", 96 * MIB).await?;
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    let slow = v1::MergeOptions {
        direction: MergeDirection::Pull.into(),
        bytes_per_second: MIB,
    };
    let deletion = scene.api.delete_with(&snapshot, slow).await?;
    scene.until_copying().await?;
    scene.api.cancel(&deletion).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    assert_eq!(scene.images_of("vda").await?, images);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), SnapshotState::Ready);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_off_is_merged_and_starts_from_what_is_left() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&["vda"], calm()).await?;
    let vm = scene.vm();
    let ids = snapshots(&mut scene, 3).await?;
    let images = scene.images_of("vda").await?;
    scene.kill_qemu()?;
    scene.guest.acks.catch_up().await?;
    scene.api.until_vm(vm, v1::VmState::ShutOff, LIMIT).await?;

    let middle = scene.api.delete(&ids[1]).await?;
    let middle = scene.api.succeeded(&middle, LIMIT).await?;
    assert_eq!(middle.disks[0].kind(), MergeKind::OfflineCommit);
    let newest = scene.api.delete(&ids[2]).await?;
    scene.api.succeeded(&newest, LIMIT).await?;
    assert_eq!(scene.images_of("vda").await?, images[..2]);
    assert!(!images[2].exists() && !images[3].exists());

    let while_off = scene.api.snapshot(vm, "off").await?;
    scene.restart_guest().await?;
    assert_eq!(scene.images_of("vda").await?.len(), 3);
    let live = scene.api.delete(&while_off).await?;
    scene.api.succeeded(&live, LIMIT).await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_catch_up_with_the_guest_is_helped() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], busy()).await?;
    let vm = scene.vm();
    scene.services.agent.stop()?;
    scene.services.agent.set("merge.stalled_after_ms=500");
    scene.services.agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", 64 * MIB).await?;

    // Far less than the guest writes.
    let deletion = scene.api.delete_with(&snapshot, limited(MIB / 4)).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    let log = scene.api.log(vm).await?;
    let told = |wanted| log.iter().any(|event| event.r#type() == wanted);
    assert!(told(v1::EventType::LiveMergeLimitLifted));
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
