//! Merges of a machine that is off, or goes off or on in their middle, after a guest that wrote.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_proto::v1::{self, MergeDirection, MergeKind, MergePhase, OperationState};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::scene::{LIMIT, Scene};

const MIB: i64 = 1 << 20;
const POLL: Duration = Duration::from_millis(50);
const HEAVY_BYTES: i64 = 48 * MIB;
const BUSY: Workload = Workload {
    slots: 256,
    fill_mib: 8,
    background_kib: 64 << 10,
    rate: 50,
};

/// So slow that everything happens in its middle.
fn slow() -> v1::MergeOptions {
    v1::MergeOptions {
        direction: MergeDirection::Commit.into(),
        bytes_per_second: MIB,
    }
}

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

/// A machine with a snapshot and heavy layers above it, that runs.
async fn heavy(disks: &[&str]) -> Result<(Scene, String, Vec<Vec<PathBuf>>)> {
    let mut scene = Scene::begin_with_daemon(disks, BUSY).await?;
    let snapshot = scene.snapshot("nightly").await?;
    let mut chains = Vec::new();
    for disk in disks {
        scene.grow_active_layer(disk, HEAVY_BYTES).await?;
        chains.push(scene.images_of(disk).await?);
    }
    Ok((scene, snapshot, chains))
}

async fn power_off(scene: &mut Scene) -> Result<()> {
    scene.rig.virsh().power_off(&scene.guest.spec.name)?;
    scene.guest.acks.catch_up().await?;
    let vm = scene.vm();
    scene.api.until_vm(vm, v1::VmState::ShutOff, LIMIT).await
}

async fn state_of(scene: &mut Scene) -> Result<Option<v1::SnapshotState>> {
    let vm = scene.vm();
    let listed = scene.api.list(vm).await?;
    Ok(listed.first().map(v1::Snapshot::state))
}

/// Waits until the copy has been seen at two places on its way: some of the bytes are done, then more of
/// them, and not yet all.
async fn comes_closer(scene: &mut Scene, deletion: &v1::Operation) -> Result<()> {
    let look = async {
        let mut first = None;
        loop {
            let shown = scene.api.operation(&deletion.id).await?;
            let disk = &shown.disks[0];
            let (done, total) = (disk.done_bytes, disk.total_bytes);
            ensure!(shown.state() == OperationState::Running && done <= total);
            ensure!(done == 0 || total >= HEAVY_BYTES, "{disk:?}");
            if done > 0 && done > *first.get_or_insert(done) {
                ensure!(done < total, "it is over: {disk:?}");
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_does_not_start_while_it_is_merged_and_does_when_that_is_given_up() -> Result<()>
{
    let (mut scene, snapshot, chains) = heavy(&["vda"]).await?;
    power_off(&mut scene).await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;
    let start = ["start", scene.guest.spec.name.as_str()];
    let refused = scene.rig.virsh().call(&start).unwrap_err();
    assert!(format!("{refused:#}").contains("lock"), "{refused:#}");
    let shown = scene.api.operation(&deletion.id).await?;
    assert_eq!(shown.state(), OperationState::Running, "{shown:?}");
    assert_eq!(shown.disks[0].kind(), MergeKind::OfflineCommit);
    comes_closer(&mut scene, &deletion).await?;

    scene.api.cancel(&deletion).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    assert_eq!(ended.disks[0].phase(), MergePhase::Cancelled);
    let incomplete = Some(v1::SnapshotState::Incomplete);
    assert_eq!(state_of(&mut scene).await?, incomplete);
    assert_eq!(scene.images_of("vda").await?, chains[0]);

    // Nothing is lost, and the rest is merged live.
    scene.restart_guest().await?;
    let again = scene.api.delete(&snapshot).await?;
    let done = scene.api.succeeded(&again, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::ActiveCommit);
    assert_eq!(scene.images_of("vda").await?, chains[0][..1]);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_goes_off_in_mid_merge_keeps_its_snapshot_and_is_merged_then() -> Result<()>
{
    let (mut scene, snapshot, chains) = heavy(&["vda"]).await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    let merge = scene.until_copying().await?;
    assert_eq!(merge.phase(), MergePhase::Copying);
    power_off(&mut scene).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), OperationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "VM_DIED", "{failure:?}");
    let incomplete = Some(v1::SnapshotState::Incomplete);
    assert_eq!(state_of(&mut scene).await?, incomplete);
    assert!(chains[0].iter().all(|image| image.exists()));
    assert_eq!(scene.look("vda", &chains[0][1])?.lost, [0; 0]);

    let again = scene.api.delete(&snapshot).await?;
    let done = scene.api.succeeded(&again, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::OfflineCommit);
    assert!(!chains[0][1].exists());
    assert_eq!(scene.look("vda", &chains[0][0])?.lost, [0; 0]);
    scene.restart_guest().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_disks_of_a_machine_that_is_off_are_merged_though_the_agent_is_killed() -> Result<()> {
    let disks = ["vda", "vdb"];
    let (mut scene, snapshot, chains) = heavy(&disks).await?;
    let vm = scene.vm();
    power_off(&mut scene).await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_phase(1, MergePhase::Copying).await?;
    let both = scene.merges().await?;
    let copying = |merge: &v1::Merge| merge.phase() == MergePhase::Copying;
    assert!(both.len() == 2 && both.iter().all(copying), "{both:?}");
    scene.services.agent.kill()?;
    scene.services.agent.start()?;
    scene.api.limit(&deletion, 0).await?;

    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks.len(), 2);
    for (disk, (target, chain)) in done.disks.iter().zip(disks.iter().zip(&chains)) {
        assert_eq!(disk.kind(), MergeKind::OfflineCommit, "{disk:?}");
        assert_eq!(disk.done_bytes, disk.total_bytes);
        assert!(disk.done_bytes >= HEAVY_BYTES, "{disk:?}");
        assert_eq!(scene.images_of(target).await?, chain[..1]);
        assert!(!chain[1].exists());
        assert_eq!(scene.look(target, &chain[0])?.lost, [0; 0]);
    }
    assert_eq!(scene.api.list(vm).await?, []);
    scene.restart_guest().await?;
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
