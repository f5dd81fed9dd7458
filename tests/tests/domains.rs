//! Storage domains: a machine's disks on different ones, and one that keeps what it removes.

use anyhow::{Context as _, Result};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};
use std::path::Path;
use uuid::Uuid;

const DISK_BYTES: u64 = 256 << 20;

fn calm() -> Workload {
    Workload {
        slots: 256,
        fill_mib: 4,
        background_kib: 512,
        rate: 50,
    }
}

/// A domain's settings, as they stand on the agent's command line.
fn domain(id: &str, path: &Path, removal: &str) -> String {
    format!(
        "storage.{id}={{kind=\"file\",path=\"{}\",removal={{{removal}}}}}",
        path.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_disk_of_a_machine_is_merged_in_its_own_domain() -> Result<()> {
    let rig = Rig::new()?;
    let other = rig.path().join("other");
    std::fs::create_dir(&other)?;
    let mut spec = rig.describe("vm", &["vda", "vdb"], DISK_BYTES, calm())?;
    let moved = other.join("vm-vdb.qcow2");
    std::fs::rename(&spec.disks[1].path, &moved)?;
    spec.disks[1].path.clone_from(&moved);
    let guest = rig.start(spec)?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    services.agent.set(&domain("other", &other, ""));
    let mut scene = Scene::with(rig, guest, services).await?;

    let snapshot = scene.snapshot("both").await?;
    scene.write_more(20).await?;
    let mut overlays = Vec::new();
    for (disk, storage) in [("vda", "default"), ("vdb", "other")] {
        let chain = scene.api.chain(scene.vm(), disk).await?;
        let layers = chain.layers.iter();
        let storages: Vec<_> = layers
            .map(|layer| layer.volume.clone().unwrap_or_default().storage)
            .collect();
        assert_eq!(storages, [storage; 2], "{disk}");
        overlays.extend(scene.images_of(disk).await?.pop());
    }
    assert!(overlays[1].starts_with(&other), "{overlays:?}");
    let delete = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&delete, LIMIT).await?;
    scene.write_more(20).await?;
    for overlay in &overlays {
        assert!(!overlay.exists(), "{overlay:?}");
    }
    assert_eq!(scene.images_of("vdb").await?, [moved]);
    scene.agrees().await?;
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_volumes_are_kept_and_brought_back_and_are_in_nobody_s_way() -> Result<()> {
    let rig = Rig::new()?;
    let guest = rig.start(rig.describe("vm", &["vda"], DISK_BYTES, calm())?)?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    let kept = domain("default", &rig.images(), "keep_seconds=3600,wipe=true");
    services.agent.set(&kept);
    let mut scene = Scene::with(rig, guest, services).await?;
    let snapshot = scene.snapshot("kept").await?;
    scene.write_more(20).await?;
    let overlay = scene.images_of("vda").await?.pop().context("a layer")?;
    let delete = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&delete, LIMIT).await?;
    assert!(!overlay.exists());
    scene.agrees().await?;

    let log = scene.api.log(scene.vm()).await?;
    let removed = log
        .iter()
        .find(|event| event.r#type() == v1::EventType::VolumeRemoved);
    let removed = removed.context("the removal is in the log")?;
    assert!(removed.details.contains_key("kept_until"), "{removed:?}");
    let request = v1::InventoryServiceListRemovalsRequest::default();
    let listed = scene.api.inventory.list_removals(request).await?;
    let listed = listed.into_inner().removals;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].keep_until.is_some());
    let request = v1::InventoryServiceRestoreVolumeRequest {
        request_id: Uuid::new_v4().to_string(),
        storage: "default".to_owned(),
        removal_id: listed[0].id.clone(),
    };
    let back = scene.api.inventory.restore_volume(request).await?;
    let back = back.into_inner().volume.context("it is named")?;
    assert!(overlay.ends_with(&back.name), "{back:?}");
    assert!(overlay.exists());
    // It is in no chain, so it is told of as a volume that nobody needs.
    let findings = scene.api.findings().await?;
    let leaked = |finding: &v1::Finding| finding.kind() == v1::FindingKind::LeakedVolume;
    assert!(findings.iter().all(leaked), "{findings:?}");
    assert_eq!(findings.len(), 1);
    std::fs::remove_file(&overlay)?;

    // What is kept is in nobody's way: the next snapshots are deleted together.
    let mut more = Vec::new();
    for name in ["second", "third"] {
        more.push(scene.snapshot(name).await?);
        scene.write_more(10).await?;
    }
    let vm = scene.vm();
    let batch = scene
        .api
        .delete_batch(vm, &more, v1::MergeOptions::default())
        .await?;
    scene.api.succeeded(&batch, LIMIT).await?;
    let request = v1::InventoryServiceListRemovalsRequest::default();
    let listed = scene.api.inventory.list_removals(request).await?;
    assert_eq!(listed.into_inner().removals.len(), 2);
    scene.agrees().await?;
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
    }
    Ok(())
}
