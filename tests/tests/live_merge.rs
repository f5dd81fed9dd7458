//! The real thing: both services as processes, QEMU, and a guest that writes without pause.

use anyhow::Result;
use livemerge_proto::v1;
use livemerge_tests::clock::ProcessClock;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::{self, Verdict};
use livemerge_tests::guest::pairs;
use livemerge_tests::journal::starts;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};

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
    let disks = ["vda", "vdb"];
    let rig = Rig::new()?;
    let mut spec = rig.describe("vm", &disks, 2 << 30, calm())?;
    spec.pairs = true;
    let guest = rig.start(spec)?;
    let mut scene = Scene::around(rig, guest).await?;
    let vm = scene.vm();
    let mut snapshots = Vec::new();
    for name in ["first", "second", "third"] {
        snapshots.push(scene.snapshot(name).await?);
    }
    let mut before = Vec::new();
    for disk in disks {
        before.push(scene.images_of(disk).await?);
    }
    let pair = |layer: usize| pairs::together(disks, [&before[0][layer], &before[1][layer]]);
    let [first, _, third] = [pair(0)?, pair(1)?, pair(2)?];

    let middle = scene.api.delete(&snapshots[1]).await?;
    let middle = scene.api.succeeded(&middle, LIMIT).await?;
    // The second one's volumes have the third one's data now.
    assert_eq!([pair(0)?, pair(1)?], [first, third]);
    let newest = scene.api.delete(&snapshots[2]).await?;
    let newest = scene.api.succeeded(&newest, LIMIT).await?;
    scene.write_more(20).await?;

    let kinds = |operation: &v1::Operation| -> Vec<_> {
        operation.disks.iter().map(v1::DiskProgress::kind).collect()
    };
    assert_eq!(kinds(&middle), [v1::MergeKind::IntermediateCommit; 2]);
    assert_eq!(kinds(&newest), [v1::MergeKind::ActiveCommit; 2]);
    assert_eq!(pair(0)?, first);
    for (disk, images) in disks.iter().zip(&before) {
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
    let rig = Rig::new()?;
    let guest = rig.start_guest("vm", &["vda"], 2 << 30, busy())?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    let clock = ProcessClock::new(&rig.path().join("clock"))?;
    services.api.give(clock.environment());
    let mut scene = Scene::with(rig, guest, services).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;

    // Its clock is set while it works, and the other way before it is back.
    clock.set_days(8)?;
    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene.until_copying().await?;
    scene.services.api.kill()?;
    clock.set_days(-8)?;
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
    let seconds = |event: &v1::Event| event.occurred_at.map(|at| at.seconds);
    let at = |kind: v1::EventType| log.iter().rfind(|event| event.r#type() == kind);
    let (asked, removed) = (
        at(story[0]).and_then(seconds),
        at(story[5]).and_then(seconds),
    );
    assert!(
        asked
            .zip(removed)
            .is_some_and(|(asked, removed)| removed + 6 * 86_400 < asked)
    );
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

/// The operations that wait for their turn: their ids, why, and their places.
async fn queue(scene: &mut Scene) -> Result<Vec<(String, String, i32)>> {
    let request = v1::ListOperationsRequest {
        states: vec![v1::OperationState::Queued.into()],
        ..Default::default()
    };
    let listed = scene.api.operations.list_operations(request).await?;
    let place = |operation: v1::Operation| {
        let waiting = operation.waiting.unwrap_or_default();
        (operation.id, waiting.reason, waiting.queue_position)
    };
    Ok(listed
        .into_inner()
        .operations
        .into_iter()
        .map(place)
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_of_a_host_that_merges_one_at_a_time_queue_in_order() -> Result<()> {
    let rig = Rig::with_daemon()?;
    let guest = rig.start_guest("vm", &["vda"], 2 << 30, calm())?;
    let other = rig.start_guest("other", &["vda"], 2 << 30, calm())?;
    other.acks.wait_for("vda", 20, LIMIT).await?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    services.api.set("merge.max_per_host=1");
    let mut scene = Scene::with(rig, guest, services).await?;
    let vms = [scene.vm(), other.spec.uuid];
    scene.api.wait_for_vm(vms[1], LIMIT).await?;
    let first = scene.snapshot("nightly").await?;
    let second = scene.api.snapshot(vms[1], "nightly").await?;
    other.acks.wait_for_more("vda", 20, LIMIT).await?;

    let slow = v1::MergeOptions {
        direction: v1::MergeDirection::Commit.into(),
        bytes_per_second: 64 << 10,
    };
    let running = scene.api.delete_with(&first, slow).await?;
    scene.until_copying().await?;
    let waiting = scene.api.delete(&second).await?;
    let wanted = [(waiting.id.clone(), "MERGE_LIMIT_REACHED".to_owned(), 1)];
    let listed = async {
        while queue(&mut scene).await? != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, listed).await??;
    assert_eq!(scene.merges().await?.len(), 1, "the other one has begun");

    scene.api.limit(&running, 0).await?;
    scene.api.succeeded(&running, LIMIT).await?;
    scene.api.succeeded(&waiting, LIMIT).await?;
    assert_eq!(queue(&mut scene).await?, []);
    let merges = scene.merges().await?;
    let of: Vec<_> = merges.iter().map(|merge| merge.vm_id.clone()).collect();
    assert_eq!(of, vms.map(|vm| vm.to_string()));
    let nanos = |at: &Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos));
    let (ended, begun) = (&merges[0].ended_at, &merges[1].accepted_at);
    assert!(nanos(ended) < nanos(begun), "{merges:?}");
    for vm in vms {
        assert_eq!(scene.api.list(vm).await?, []);
    }
    other.acks.wait_for_more("vda", 20, LIMIT).await?;
    scene.write_more(20).await?;
    scene.agrees().await?;
    scene.rig.virsh().power_off("other")?;
    other.acks.catch_up().await?;
    let acks = other.acks.acknowledged("vda");
    let base = &other.spec.disks[0].path;
    assert_nothing_lost(&[oracle::verify("vda", base, SLOTS, &acks)?]);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
