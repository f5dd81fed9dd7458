//! A guest that writes faster than it is copied: the base lies on a disk that is slower than the guest,
//! and nobody has limited the job.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{self, EventType, MergeDirection};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};

const MIB: u64 = 1 << 20;
/// What the disk of the base takes in a second: less than the guest writes.
const SLOW: u64 = 12 * MIB;
/// How far the guest is held back: as far as by itself.
const DOWN_TO_1_MIB: &str = "merge.least_guest_mib=1";
const VM: &str = "vm";
const DISK: &str = "vda";

/// A guest that writes 24 MiB a second, a base that takes so many bytes a second from the first
/// snapshot on, and an agent that does something about a copy soon.
async fn heavy_writer(slow: u64, setting: &str) -> Result<(Scene, String)> {
    let rig = Rig::with_daemon_and_disk(&format!("{VM}-{DISK}.qcow2"), 3 << 10)?;
    let workload = Workload {
        slots: 256,
        fill_mib: 8,
        background_kib: 24 << 10,
        rate: 0,
    };
    let spec = rig.describe(VM, &[DISK], 2 << 30, workload)?;
    let guest = rig.start(spec)?;
    let mut scene = Scene::around(rig, guest).await?;
    scene.services.agent.stop()?;
    scene.services.agent.set("merge.stalled_after_ms=500");
    scene.services.agent.set(setting);
    scene.services.agent.start()?;
    scene.api.wait_for_vm(scene.vm(), LIMIT).await?;
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer(DISK, 64 << 20).await?;
    scene.rig.disk()?.slow_down(slow)?;
    Ok((scene, snapshot))
}

fn commit() -> v1::MergeOptions {
    v1::MergeOptions {
        direction: MergeDirection::Commit.into(),
        bytes_per_second: 0,
    }
}

/// How many bytes a second the guest may write, as libvirt says; 0 for no limit.
fn write_limit(scene: &Scene) -> Result<u64> {
    let limits = scene.rig.virsh().call(&["blkdeviotune", VM, DISK])?;
    let write = limits.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "write_bytes_sec").then(|| value.trim().parse().ok())?
    });
    write.with_context(|| limits.clone())
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let wait = async {
        while !is().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let came = tokio::time::timeout(LIMIT, wait).await;
    came.with_context(|| format!("not in time: {what}"))?
}

async fn told(scene: &mut Scene, wanted: EventType) -> Result<bool> {
    let log = scene.api.log(scene.vm()).await?;
    Ok(log.iter().any(|event| event.r#type() == wanted))
}

async fn assert_nothing_lost(scene: Scene) -> Result<()> {
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_faster_than_it_is_copied_is_held_back_until_it_is_switched()
-> Result<()> {
    let (mut scene, snapshot) = heavy_writer(SLOW, DOWN_TO_1_MIB).await?;
    let images = scene.images_of(DISK).await?;
    let deletion = scene.api.delete_with(&snapshot, commit()).await?;
    until("the guest is held back", async || {
        Ok(write_limit(&scene)? > 0)
    })
    .await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), v1::MergeKind::ActiveCommit);
    assert_eq!(
        write_limit(&scene)?,
        0,
        "the guest writes as it likes again"
    );
    assert!(told(&mut scene, EventType::LiveMergeGuestThrottled).await?);
    assert!(!told(&mut scene, EventType::LiveMergeLimitLifted).await?);
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    assert_nothing_lost(scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_held_back_is_freed_first_by_an_agent_that_was_killed() -> Result<()> {
    let (mut scene, snapshot) = heavy_writer(SLOW, DOWN_TO_1_MIB).await?;
    let deletion = scene.api.delete_with(&snapshot, commit()).await?;
    until("the guest is held back", async || {
        Ok(write_limit(&scene)? > 0)
    })
    .await?;
    scene.services.agent.kill()?;
    assert!(write_limit(&scene)? > 0, "QEMU and libvirt go on");

    // Long enough to see that it is undone, not only changed.
    scene.services.agent.set("merge.stalled_after_ms=60000");
    scene.services.agent.start()?;
    until(
        "the limit is undone",
        async || Ok(write_limit(&scene)? == 0),
    )
    .await?;
    // It is written down after it is done.
    until("and that is written down", async || {
        let merges = scene.merges().await?;
        ensure!(merges[0].ended_at.is_none(), "{merges:?}");
        Ok(merges[0].guest_bytes_per_second == 0)
    })
    .await?;

    // And held back again, once more is due.
    scene.services.agent.kill()?;
    scene.services.agent.set("merge.stalled_after_ms=500");
    scene.services.agent.start()?;
    until("it is held back again", async || {
        Ok(write_limit(&scene)? > 0)
    })
    .await?;
    scene.rig.disk()?.speed_up()?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(write_limit(&scene)?, 0);
    assert_nothing_lost(scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_no_limit_slows_down_enough_gets_an_overlay_which_can_be_deleted_later()
-> Result<()> {
    // It may write more than the disk takes, however far it is held back.
    let (mut scene, snapshot) = heavy_writer(SLOW / 2, "merge.least_guest_mib=32").await?;
    let vm = scene.vm();
    let images = scene.images_of(DISK).await?;
    let deletion = scene.api.delete_with(&snapshot, commit()).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(told(&mut scene, EventType::LiveMergeGuestThrottled).await?);
    assert!(told(&mut scene, EventType::LiveMergeOverlaid).await?);
    assert_eq!(write_limit(&scene)?, 0);
    let merge = scene.merges().await?.remove(0);
    assert_eq!(merge.kind(), v1::MergeKind::IntermediateCommit);
    // It stood still once: from the job that was given up QEMU has the base open for writing, and
    // writes its tables out no sooner.
    assert_eq!(merge.pivot_attempts, 1);

    // The base, and the thin overlay; the other one is gone.
    let now = scene.images_of(DISK).await?;
    assert_eq!((now.len(), &now[0]), (2, &images[0]));
    assert!(!images[1].exists());
    let listed = scene.api.list(vm).await?;
    let origins: Vec<_> = listed.iter().map(v1::Snapshot::origin).collect();
    assert_eq!(origins, [v1::SnapshotOrigin::LeftByMerge], "{listed:?}");
    assert!(listed[0].name.starts_with("left-vda-"));

    // Some time later.
    scene.rig.disk()?.speed_up()?;
    let deletion = scene.api.delete_with(&listed[0].id, commit()).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    assert!(!now[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(scene).await
}
