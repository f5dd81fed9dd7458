//! Snapshots of a guest whose images are objects on a real S3 server: both services as processes, an
//! exporter as a process, QEMU, and a guest that writes without pause.

use std::path::PathBuf;

use anyhow::Result;
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::objects::Objects;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};

const DISK: &str = "vda";
const DISK_BYTES: u64 = 1 << 30;
/// Heavy enough to be killed in its middle.
const HEAVY_BYTES: i64 = 96 << 20;

fn calm() -> Workload {
    Workload {
        slots: 256,
        fill_mib: 8,
        background_kib: 1024,
        rate: 50,
    }
}

fn busy() -> Workload {
    Workload {
        background_kib: 16 << 10,
        ..calm()
    }
}

async fn begin(objects: &Objects, workload: Workload) -> Result<Scene> {
    let rig = Rig::new()?;
    let disk = objects.create_disk("vm", DISK, DISK_BYTES).await?;
    let mut spec = rig.describe_with("vm", vec![disk], workload)?;
    spec.monitor = Some(rig.path().join("monitor"));
    let guest = rig.start(spec)?;
    let services = Services::on_objects(&rig, Reach::Unix, objects)?;
    Scene::with(rig, guest, services).await
}

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert_eq!(verdict.found, verdict.acknowledged);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_deleted_and_their_objects_are_gone() -> Result<()> {
    let objects = Objects::start().await?;
    let mut scene = begin(&objects, calm()).await?;
    let vm = scene.vm();
    let mut snapshots = Vec::new();
    for name in ["first", "second", "third"] {
        snapshots.push(scene.snapshot(name).await?);
    }
    let images = scene.images_of(DISK).await?;
    let mut uuids = Vec::new();
    for image in &images {
        uuids.push(objects.uuid_of(image).await?);
    }

    let middle = scene.api.delete(&snapshots[1]).await?;
    let middle = scene.api.succeeded(&middle, LIMIT).await?;
    let newest = scene.api.delete(&snapshots[2]).await?;
    let newest = scene.api.succeeded(&newest, LIMIT).await?;
    scene.write_more(20).await?;

    let kinds = [&middle, &newest].map(|operation| operation.disks[0].kind());
    let expected = [
        v1::MergeKind::IntermediateCommit,
        v1::MergeKind::ActiveCommit,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(scene.images_of(DISK).await?, images[..2]);
    for uuid in &uuids[2..] {
        assert_eq!(objects.count(uuid).await?, 0, "{uuid}");
    }
    for uuid in &uuids[..2] {
        assert!(objects.count(uuid).await? > 2, "{uuid}");
    }
    assert_eq!(scene.api.list(vm).await?.len(), 1);
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_in_mid_merge_and_its_exporter_lives_on() -> Result<()> {
    let objects = Objects::start().await?;
    let mut merging = in_mid_merge(&objects).await?;
    let before = objects.exporter()?;
    merging.scene.services.agent.kill()?;
    merging.scene.write_more(20).await?;
    merging.scene.services.agent.start()?;
    assert_eq!(objects.exporter()?, before, "it is adopted");
    ended_well(merging, &objects).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_is_killed_in_mid_merge_and_the_merge_succeeds() -> Result<()> {
    let mut objects = Objects::start().await?;
    let merging = in_mid_merge(&objects).await?;
    let before = objects.exporter()?;
    objects.kill_exporter()?;
    merging.scene.write_more(20).await?;
    assert_ne!(objects.exporter()?, before, "there is another one");
    ended_well(merging, &objects).await
}

/// A delete in the middle of its active commit.
struct Merging {
    scene: Scene,
    deletion: v1::Operation,
    images: Vec<PathBuf>,
    /// Of the volume that is to go.
    uuid: String,
}

async fn in_mid_merge(objects: &Objects) -> Result<Merging> {
    let mut scene = begin(objects, busy()).await?;
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer(DISK, HEAVY_BYTES).await?;
    let images = scene.images_of(DISK).await?;
    let uuid = objects.uuid_of(&images[1]).await?;
    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_copying().await?;
    // Some of it is copied: a job that only begins fails with whatever it meets.
    scene
        .until_job(|job| job["offset"].as_u64().is_some_and(|copied| copied > 0))
        .await?;
    Ok(Merging {
        scene,
        deletion,
        images,
        uuid,
    })
}

async fn ended_well(merging: Merging, objects: &Objects) -> Result<()> {
    let Merging {
        mut scene, images, ..
    } = merging;
    scene.api.succeeded(&merging.deletion, LIMIT).await?;
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    let gone = objects.uuid_of(&images[1]).await;
    assert!(gone.is_err(), "the merged volume is gone: {gone:?}");
    assert_eq!(objects.count(&merging.uuid).await?, 0, "and its objects");
    scene.write_more(20).await?;
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
