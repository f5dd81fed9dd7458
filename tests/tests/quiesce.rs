//! Snapshots of a real guest with a real agent in it, which freezes a real file system.
//!
//! The guest writes two disks: `vda` as it is, and `vdb` through a file on ext4. While that is frozen
//! no record of `vdb` is acknowledged, and those of `vda` go on. How a layer was taken its own
//! superblock says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{self, Quiesce, SnapshotConsistency};
use livemerge_tests::guest::domain::{Manner, Workload};
use livemerge_tests::guest::files;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::STATE;

const WORKLOAD: Workload = Workload {
    slots: 64,
    fill_mib: 0,
    background_kib: 0,
    rate: 0,
};
/// The disk without a file system, and the one with.
const BARE: &str = "vda";
const FILES: &str = "vdb";
/// How long a guest is watched: longer than anything but a freeze holds its writes up here.
const WHILE: Duration = Duration::from_secs(3);

async fn begin(rig: Rig, manner: Manner) -> Result<Scene> {
    let guest = rig.start(rig.describe_with_agent("vm", manner, WORKLOAD)?)?;
    Scene::around(rig, guest).await
}

/// The agent starts anew, and does so at its fail points. Returns once it can be asked.
async fn fail_at(scene: &mut Scene, points: &str) -> Result<()> {
    scene.services.agent.fail_at(points);
    scene.services.agent.stop()?;
    scene.services.agent.start()?;
    let begun = Instant::now();
    while let Err(error) = scene.layers_on_host(BARE).await {
        ensure!(
            begun.elapsed() < LIMIT,
            "the agent does not answer: {error}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let vm = scene.vm();
    scene.api.wait_for_vm(vm, LIMIT).await.map(drop)
}

async fn take(scene: &mut Scene, name: &str, quiesce: Quiesce) -> Result<v1::Snapshot> {
    let vm = scene.vm();
    let operation = scene.api.create_with(vm, name, quiesce).await?;
    taken(scene, &operation).await
}

async fn taken(scene: &mut Scene, operation: &v1::Operation) -> Result<v1::Snapshot> {
    let ended = scene.api.succeeded(operation, LIMIT).await?;
    let mut listed = scene.api.list(scene.vm()).await?.into_iter();
    let found = listed.find(|snapshot| snapshot.id == ended.snapshot_id);
    found.context("the snapshot is not listed")
}

/// The layer of the file system that the snapshots have frozen last.
async fn frozen_layer(scene: &mut Scene) -> Result<PathBuf> {
    let layers = scene.images_of(FILES).await?;
    let below = layers.len().checked_sub(2).context("no layer is frozen")?;
    Ok(layers[below].clone())
}

fn is_marked(scene: &Scene) -> bool {
    let mark = format!("{}/frozen/{}.frozen", STATE, scene.vm());
    scene.rig.path().join(mark).exists()
}

/// How many records of each disk are acknowledged in this time.
async fn written_within(scene: &Scene, time: Duration) -> (u64, u64) {
    let acks = &scene.guest.acks;
    let before = (acks.count(BARE), acks.count(FILES));
    tokio::time::sleep(time).await;
    (acks.count(BARE) - before.0, acks.count(FILES) - before.1)
}

/// Waits until the guest is held: the file system is silent while the other disk is written.
async fn until_held(scene: &Scene) -> Result<()> {
    let begun = Instant::now();
    loop {
        let (bare, files) = written_within(scene, Duration::from_millis(500)).await;
        if is_marked(scene) && bare > 0 && files == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "the guest is not frozen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_frozen_while_its_snapshot_is_taken_and_writes_on_afterwards() -> Result<()> {
    let mut scene = begin(Rig::new()?, Manner::Answers).await?;
    let hold = format!("agent::before-overlays-on=sleep({})", WHILE.as_millis());
    fail_at(&mut scene, &hold).await?;

    let mark = scene.guest.acks.mark();
    let frozen = take(&mut scene, "frozen", Quiesce::Required).await?;
    scene.write_more(20).await?;
    assert_eq!(frozen.consistency(), SnapshotConsistency::Frozen);
    let gap = scene.guest.acks.longest_gap_since(FILES, mark);
    assert!(gap >= WHILE, "the file system was silent for {gap:?} only");
    let gap = scene.guest.acks.longest_gap_since(BARE, mark);
    assert!(gap < WHILE, "the guest stood still for {gap:?}");
    let layer = frozen_layer(&mut scene).await?;
    assert!(!files::needs_recovery(&layer)?, "the journal is empty");
    assert!(!is_marked(&scene));

    // Without a freeze all of that is otherwise.
    let mark = scene.guest.acks.mark();
    let not_frozen = take(&mut scene, "not frozen", Quiesce::Never).await?;
    scene.write_more(20).await?;
    assert_eq!(not_frozen.consistency(), SnapshotConsistency::Crash);
    let gap = scene.guest.acks.longest_gap_since(FILES, mark);
    assert!(gap < WHILE, "the file system was silent for {gap:?}");
    let layer = frozen_layer(&mut scene).await?;
    assert!(files::needs_recovery(&layer)?, "the journal is in use");
    deleted_and_nothing_is_lost(scene, &[frozen.id, not_frozen.id]).await
}

/// Merges all layers, and looks for what was acknowledged: on the bare disk, and in the file.
async fn deleted_and_nothing_is_lost(mut scene: Scene, snapshots: &[String]) -> Result<()> {
    let (vm, options) = (scene.vm(), v1::MergeOptions::default());
    let deletion = scene.api.delete_batch(vm, snapshots, options).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    scene.write_more(20).await?;
    let bare = scene.images_of(BARE).await?;
    let files = scene.images_of(FILES).await?;
    ensure!(bare.len() == 1 && files.len() == 1, "{bare:?}, {files:?}");
    scene.services.agent.stop()?;
    scene.rig.virsh().kill_qemu(&scene.guest.spec.name)?;
    scene.guest.acks.catch_up().await?;
    let file = files::records(&files[0])?;
    for verdict in [scene.look(BARE, &bare[0])?, scene.look(FILES, file.path())?] {
        ensure!(verdict.lost.is_empty(), "{verdict:?}");
        ensure!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_with_its_guest_frozen_thaws_it_at_its_next_start() -> Result<()> {
    let mut scene = begin(Rig::new()?, Manner::Answers).await?;
    fail_at(&mut scene, "agent::after-overlays-on=sleep(600000)").await?;
    let vm = scene.vm();
    let operation = scene
        .api
        .create_with(vm, "frozen", Quiesce::Required)
        .await?;
    until_held(&scene).await?;
    scene.services.agent.kill()?;

    let (bare, files) = written_within(&scene, WHILE).await;
    assert!(bare > 0 && files == 0, "nobody is there who would thaw it");
    scene.services.agent.fail_at("");
    scene.services.agent.start()?;
    scene.write_more(20).await?;
    // The overlays were found on while it was still frozen.
    let frozen = taken(&mut scene, &operation).await?;
    assert_eq!(frozen.consistency(), SnapshotConsistency::Frozen);
    let layer = frozen_layer(&mut scene).await?;
    assert!(!files::needs_recovery(&layer)?);
    assert!(!is_marked(&scene));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_thawed_when_its_time_is_over() -> Result<()> {
    let mut scene = begin(Rig::new()?, Manner::Answers).await?;
    scene.services.agent.set("freeze.hold_limit_ms=500");
    let hold = format!("agent::before-overlays-on=sleep({})", WHILE.as_millis());
    fail_at(&mut scene, &hold).await?;
    let mark = scene.guest.acks.mark();
    let late = take(&mut scene, "late", Quiesce::IfPossible).await?;
    let gap = scene.guest.acks.longest_gap_since(FILES, mark);
    assert!(gap >= Duration::from_millis(500), "frozen for {gap:?}");
    assert!(gap < WHILE, "frozen for {gap:?}");
    assert_eq!(late.consistency(), SnapshotConsistency::Crash);
    assert!(files::needs_recovery(&frozen_layer(&mut scene).await?)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_nothing_is_waited_for_no_longer_than_the_bound() -> Result<()> {
    let mut scene = begin(Rig::new()?, Manner::Silent).await?;
    let answer = Duration::from_secs(4);
    scene
        .services
        .agent
        .set(&format!("freeze.answer_seconds={}", answer.as_secs()));
    fail_at(&mut scene, "").await?;
    let images = scene.images_of(FILES).await?;
    let stored = || std::fs::read_dir(scene.rig.images()).map(Iterator::count);
    let before = stored()?;

    let vm = scene.vm();
    let begun = Instant::now();
    let refused = scene
        .api
        .create_with(vm, "required", Quiesce::Required)
        .await?;
    let refused = scene.api.ended(&refused, LIMIT).await?;
    let took = begun.elapsed();
    assert_eq!(refused.state(), v1::OperationState::Failed);
    let failure = refused.failure.unwrap_or_default();
    assert_eq!(failure.reason, "GUEST_AGENT_UNAVAILABLE", "{failure:?}");
    assert!(took >= answer, "it was not waited for: {took:?}");
    assert!(took < 3 * answer, "it was waited for: {took:?}");
    assert_eq!(scene.api.list(vm).await?, []);
    assert_eq!(scene.images_of(FILES).await?, images);
    assert_eq!(std::fs::read_dir(scene.rig.images())?.count(), before);

    let taken = take(&mut scene, "possible", Quiesce::IfPossible).await?;
    assert_eq!(taken.consistency(), SnapshotConsistency::Crash);
    let (_, files) = written_within(&scene, Duration::from_secs(1)).await;
    assert!(files > 0 && !is_marked(&scene));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_an_agent_is_frozen_only_when_that_is_not_required() -> Result<()> {
    let mut scene = Scene::begin(&[BARE], WORKLOAD).await?;
    let vm = scene.vm();
    let refused = scene
        .api
        .create_with(vm, "required", Quiesce::Required)
        .await?;
    let refused = scene.api.ended(&refused, LIMIT).await?;
    let failure = refused.failure.unwrap_or_default();
    assert_eq!(failure.reason, "GUEST_AGENT_UNAVAILABLE", "{failure:?}");
    assert_eq!(scene.images_of(BARE).await?.len(), 1);
    let taken = take(&mut scene, "possible", Quiesce::IfPossible).await?;
    assert_eq!(taken.consistency(), SnapshotConsistency::Crash);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirt_that_dies_with_a_guest_frozen_leaves_it_to_be_thawed() -> Result<()> {
    let mut scene = begin(Rig::with_daemon()?, Manner::Answers).await?;
    // However slow the machine is, its time is not over before libvirt is back.
    scene.services.agent.set("freeze.hold_limit_ms=60000");
    fail_at(&mut scene, "agent::before-overlays-on=1*sleep(10000)").await?;
    let vm = scene.vm();
    let operation = scene
        .api
        .create_with(vm, "frozen", Quiesce::Required)
        .await?;
    until_held(&scene).await?;
    let daemon = scene.rig.daemon().context("a daemon")?;
    daemon.kill()?;
    let (_, files) = written_within(&scene, WHILE).await;
    assert_eq!(files, 0, "nobody can thaw it");
    scene.rig.daemon().context("a daemon")?.live()?;
    let frozen = taken(&mut scene, &operation).await?;
    assert_eq!(frozen.consistency(), SnapshotConsistency::Frozen);
    assert!(!files::needs_recovery(&frozen_layer(&mut scene).await?)?);
    scene.write_more(20).await?;
    assert!(!is_marked(&scene));
    Ok(())
}

/// A backup program's freeze, say: it counts on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_somebody_else_has_frozen_stays_so() -> Result<()> {
    let mut scene = begin(Rig::with_daemon()?, Manner::Answers).await?;
    let vm = scene.vm();
    scene.rig.virsh().call(&["domfsfreeze", "vm"])?;
    let refused = scene
        .api
        .create_with(vm, "required", Quiesce::Required)
        .await?;
    let refused = scene.api.ended(&refused, LIMIT).await?;
    let failure = refused.failure.unwrap_or_default();
    assert_eq!(failure.reason, "GUEST_AGENT_UNAVAILABLE", "{failure:?}");
    let taken = take(&mut scene, "possible", Quiesce::IfPossible).await?;
    assert_eq!(taken.consistency(), SnapshotConsistency::Crash);
    let (bare, files) = written_within(&scene, WHILE).await;
    assert!(bare > 0 && files == 0, "{files} records are written");
    scene.rig.virsh().call(&["domfsthaw", "vm"])?;
    scene.write_more(20).await
}
