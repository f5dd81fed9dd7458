//! The real thing: both services as processes, QEMU, and a guest that writes without pause.

use anyhow::Result;
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::journal::starts;
use livemerge_tests::scene::{LIMIT, Scene};

const SLOTS: u64 = 256;
/// Heavy enough that its copy takes some hundred milliseconds here.
const HEAVY_BYTES: i64 = 384 << 20;

fn calm() -> Workload {
    Workload {
        slots: SLOTS,
        fill_mib: 16,
        background_kib: 2048,
        rate: 0,
    }
}

fn busy() -> Workload {
    Workload {
        background_kib: 64 << 10,
        ..calm()
    }
}

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert_eq!(verdict.found, verdict.acknowledged);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

fn types(log: &[v1::Event], operation: &v1::Operation) -> Vec<v1::EventType> {
    let own = log
        .iter()
        .filter(|event| event.operation_id == operation.id);
    own.map(v1::Event::r#type).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_middle_and_the_newest_snapshot_of_two_disks_are_deleted_and_nothing_is_lost()
-> Result<()> {
    let mut scene = Scene::begin(&["vda", "vdb"], calm()).await?;
    let vm = scene.vm();
    let mut snapshots = Vec::new();
    for name in ["first", "second", "third"] {
        snapshots.push(scene.snapshot(name).await?);
    }
    let mut before = Vec::new();
    for disk in ["vda", "vdb"] {
        before.push(scene.images_of(disk).await?);
    }

    let middle = scene.api.delete(&snapshots[1]).await?;
    let middle = scene.api.succeeded(&middle, LIMIT).await?;
    let newest = scene.api.delete(&snapshots[2]).await?;
    let newest = scene.api.succeeded(&newest, LIMIT).await?;
    scene.write_more(20).await?;

    let kinds = |operation: &v1::Operation| -> Vec<_> {
        operation.disks.iter().map(v1::DiskProgress::kind).collect()
    };
    assert_eq!(kinds(&middle), [v1::MergeKind::IntermediateCommit; 2]);
    assert_eq!(kinds(&newest), [v1::MergeKind::ActiveCommit; 2]);
    for (disk, images) in ["vda", "vdb"].iter().zip(&before) {
        assert_eq!(scene.images_of(disk).await?, images[..2], "{disk}");
        for gone in &images[2..] {
            assert!(!gone.exists(), "{} is still there", gone.display());
        }
    }
    let left = scene.api.list(vm).await?;
    let left: Vec<_> = left.iter().map(|snapshot| snapshot.id.as_str()).collect();
    assert_eq!(left, [snapshots[0].as_str()]);
    let log = scene.api.log(vm).await?;
    let told = types(&log, &newest);
    let merged = v1::EventType::LiveMergeCompleted;
    assert_eq!(told.iter().filter(|told| **told == merged).count(), 2);
    assert_eq!(told.last(), Some(&v1::EventType::SnapshotDeleted));
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_dies_in_mid_merge_and_the_host_finishes() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], busy()).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;

    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene.until_copying().await?;
    scene.services.api.kill()?;
    assert_eq!(scene.layers_on_host("vda").await?, images);
    scene.until_off_chain("vda", &images[1]).await?;
    assert_eq!(scene.layers_on_host("vda").await?, images[..1]);
    scene.until_merged(&merge.id).await?;
    assert!(images[1].exists(), "nobody has ordered its removal yet");
    scene.services.api.start()?;

    let ended = scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    let log = scene.api.log(vm).await?;
    let story = [
        v1::EventType::SnapshotDeleteRequested,
        v1::EventType::LiveMergePlanned,
        v1::EventType::LiveMergeStarted,
        v1::EventType::OperationResumed,
        v1::EventType::LiveMergeCompleted,
        v1::EventType::VolumeRemoved,
        v1::EventType::SnapshotDeleted,
    ];
    let mut told = types(&log, &ended);
    told.retain(|told| story.contains(told));
    assert_eq!(told, story);
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_dies_in_mid_merge_and_goes_on_with_the_same_job() -> Result<()> {
    let mut scene = Scene::begin_with_monitor(&["vda"], busy()).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;

    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene.until_copying().await?;
    scene.until_job(|_any| true).await?;
    scene.services.agent.kill()?;
    scene.until_host(v1::HostStatus::Unresponsive).await?;
    let acknowledged = scene.guest.acks.count("vda");
    scene.write_more(5).await?;
    assert!(scene.guest.acks.count("vda") > acknowledged);
    assert!(images[1].exists());
    let before = scene.journal().history(&merge.id)?;
    assert_eq!(starts(&before), 1, "{before:?}");
    assert!(
        before.iter().all(|line| line.phase != "merged"),
        "{before:?}"
    );
    scene.services.agent.start()?;

    scene.until_host(v1::HostStatus::Up).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    let story = scene.journal().history(&merge.id)?;
    assert_eq!(story[..before.len()], before);
    assert_eq!(story.last().map(|line| line.phase.as_str()), Some("merged"));
    let asked = story.iter().filter(|line| line.phase == "copying");
    assert_eq!(asked.count(), 1, "the job was asked for again: {story:?}");
    assert_eq!(starts(&story), 1);
    assert_eq!(scene.journal().merges(), [merge.id]);
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_dies_in_mid_merge_and_its_snapshot_stays() -> Result<()> {
    let mut scene = Scene::begin(&["vda"], busy()).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;

    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_copying().await?;
    scene.kill_qemu()?;

    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    let failure = ended.failure.clone().unwrap_or_default();
    assert_eq!(failure.reason, "VM_DIED", "{failure:?}");
    let log = scene.api.log(vm).await?;
    let told = types(&log, &ended);
    assert!(told.contains(&v1::EventType::LiveMergeFailed), "{told:?}");
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, snapshot);
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);
    scene.guest.acks.catch_up().await?;
    assert_nothing_lost(&[scene.look("vda", &images[1])?]);

    scene.restart_guest().await?;
    let again = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&again, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
