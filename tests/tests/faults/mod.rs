//! Faults that are real: of libvirt, of the network, of identities, of clocks, of storage, and of
//! others at work, migrations among them, under a guest that writes.

mod clocks;
mod foreign;
mod identity;
mod migration;
mod network;

use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::kills::{self, Victim};
use livemerge_tests::qmp::Qmp;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};

const WORKLOAD: Workload = Workload {
    slots: 256,
    fill_mib: 16,
    background_kib: 64 << 10,
    rate: 0,
};
const HEAVY_BYTES: i64 = 256 << 20;
/// Enough for what is held back, or does not hang on how long the copy takes.
const WEIGHT_BYTES: i64 = 96 << 20;
const DISK_BYTES: u64 = 2 << 30;
const POLL: Duration = Duration::from_millis(20);

/// A commit that is in its middle for as long as a test likes.
fn slow() -> v1::MergeOptions {
    v1::MergeOptions {
        direction: v1::MergeDirection::Commit.into(),
        bytes_per_second: 1 << 20,
    }
}

/// As long as nobody says so, the agent does not lift a limit for a copy that comes no nearer its end.
const PATIENT: &str = "merge.stalled_after_ms=3600000";

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirtd_is_killed_in_mid_merge_and_the_job_goes_on() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&["vda"], WORKLOAD).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;

    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_copying().await?;
    let daemon = scene.rig.daemon().context("the rig has a daemon")?;
    daemon.kill()?;
    daemon.live()?;

    scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, Vec::<v1::Snapshot>::new());
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// A part of what `make sweep` does at length, as the next one.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_is_killed_in_every_phase_and_nothing_is_lost() -> Result<()> {
    let kills = kills::run(Victim::Machine, 0..5, 1).await.all()?;
    assert_eq!(kills.len(), 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_is_killed_on_both_sides_of_its_switch_and_nothing_is_lost() -> Result<()> {
    let kills = kills::run(Victim::MachineInPivot, 0..4, 8).await.all()?;
    assert_eq!(kills.len(), 4);
    assert!(kills.iter().any(|kill| kill.switched));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_fails_the_merge_and_not_the_guest() -> Result<()> {
    let calm = Workload {
        fill_mib: 8,
        background_kib: 0,
        ..WORKLOAD
    };
    let mut rig = Rig::new()?;
    rig.limit_images(512)?;
    let mut spec = rig.describe("vm", &["vda"], DISK_BYTES, calm)?;
    let socket = rig.path().join("monitor");
    spec.monitor = Some(socket.clone());
    let guest = rig.start(spec)?;
    guest.acks.wait_for("vda", 300, LIMIT).await?;
    guest.acks.wait_for_fill("vda", LIMIT).await?;
    let mut monitor = Qmp::connect(&socket)?;
    let mut scene = Scene::around(rig, guest).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    monitor.write_through("/machine/peripheral/virtio-disk0/virtio-backend", 1024, 128)?;
    // All slots of the records are in the new layer: from here the guest needs no more space.
    scene.write_more(2 * WORKLOAD.slots).await?;
    // Full before it begins: refused, and nothing is touched.
    let ballast = scene.rig.small()?.fill(16)?;
    let early = scene.api.delete(&snapshot).await?;
    let early = scene.api.ended(&early, LIMIT).await?;
    let failure = early.failure.unwrap_or_default();
    assert_eq!(failure.reason, "INSUFFICIENT_SPACE", "{failure:?}");
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Ready);
    std::fs::remove_file(&ballast)?;

    // Full in the middle of the copy, which is slow until then.
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;
    let ballast = scene.rig.small()?.fill(16)?;
    scene.api.limit(&deletion, 0).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "MERGE_IO_ERROR", "{failure:?}");
    scene.write_more(20).await?;
    assert_eq!(scene.guest.acks.errors("vda"), 0);
    assert_eq!(scene.images_of("vda").await?, images);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);

    std::fs::remove_file(ballast)?;
    let again = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&again, LIMIT).await?;
    assert!(!images[1].exists());
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_agent_has_no_second_and_goes_on_when_it_wakes() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], WORKLOAD).await?;
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_copying().await?;

    scene.services.agent.freeze(true)?;
    scene.until_host(v1::HostStatus::Unresponsive).await?;
    let said = scene.services.agent.start_twin()?;
    assert!(said.contains("another agent has it"), "{said}");
    assert!(images[1].exists());
    scene.services.agent.freeze(false)?;

    scene.until_host(v1::HostStatus::Up).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    let said = scene.services.api.start_twin()?;
    assert!(said.contains("database"), "{said}");
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
