//! Volumes that a storage daemon has open, as a machine's QEMU would: on top, below, and by names
//! that only QEMU reads.

use crate::rig::{Daemon, LONG, Rig, name, order, run};
use livemerge_storage::{
    Dependent, LiveVolumes as _, Locator, RemovalState, StorageError, VolumeInfo, VolumeStore as _,
};
use std::path::Path;
use std::time::Duration;

async fn assert_refused(rig: &Rig, volume: &VolumeInfo, by: &str) {
    let before = rig.files();
    for keep_for in [Duration::ZERO, LONG] {
        match rig.store.remove(&order(volume, keep_for)).await {
            Err(StorageError::InUse { by: who, .. }) => assert!(who.contains(by), "{who}"),
            other => panic!("{by}: {other:?}"),
        }
    }
    assert_eq!(rig.files(), before);
}

#[tokio::test]
async fn the_active_image_is_in_use_until_the_daemon_ends() {
    let rig = Rig::new().await;
    let volume = rig.base("v.qcow2").await;
    let daemon = Daemon::open(&volume).await;
    assert!(rig.store.in_use(&volume.volume.name).await.unwrap());
    assert_refused(&rig, &volume, "a process that has it open").await;
    let answer = rig.store.deactivate(&volume.volume.name).await;
    assert!(
        matches!(answer, Err(StorageError::InUse { .. })),
        "{answer:?}"
    );
    daemon.stop().await;
    let removal = rig
        .store
        .remove(&order(&volume, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
}

/// The header that named it is rewritten, but the daemon still reads through it.
#[tokio::test]
async fn a_backing_that_no_header_names_any_more_is_in_use_by_the_daemon() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    let top = rig.overlay("top.qcow2", &below).await;
    let daemon = Daemon::open(&top).await;
    let path = rig.path("top.qcow2");
    let forgotten = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(rig.store.in_use(&name("below.qcow2")).await.unwrap());
    assert_refused(&rig, &below, "a process that has it open").await;
    daemon.stop().await;
    std::fs::write(&path, forgotten).unwrap();
    assert!(!rig.store.in_use(&name("below.qcow2")).await.unwrap());
    assert_refused(&rig, &below, "top.qcow2").await;
}

/// Every way to write a backing name that leads QEMU to the volume.
#[tokio::test]
async fn a_volume_is_needed_however_a_header_names_it() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    let path = rig.path("below.qcow2");
    let link = tempfile::tempdir().unwrap();
    let aliases = [link.path().join("root"), link.path().join("image")];
    std::os::unix::fs::symlink(rig.root(), &aliases[0]).unwrap();
    std::os::unix::fs::symlink(&path, &aliases[1]).unwrap();
    let root = rig.root();
    let dir = root.file_name().unwrap().to_str().unwrap();
    let json = serde_json::json!({"driver": "qcow2", "file": {"driver": "file", "filename": path}});
    let flat = serde_json::json!({"file.driver": "file", "file.filename": path, "driver": "qcow2"});
    for backing in [
        path.display().to_string(),
        "below.qcow2".to_owned(),
        "./below.qcow2".to_owned(),
        format!("../{dir}/below.qcow2"),
        format!("file:{}", path.display()),
        aliases[0].join("below.qcow2").display().to_string(),
        aliases[1].display().to_string(),
        format!("json:{json}"),
        format!("json:{flat}"),
        "/mounted/elsewhere/below.qcow2".to_owned(),
    ] {
        let top = rig.path("top.qcow2");
        overlay_by_qemu(&top, &backing).await;
        assert_refused(&rig, &below, "top.qcow2").await;
        for asked in [&path, &aliases[0].join("below.qcow2")] {
            let on = Locator::File(asked.clone());
            let told = rig.store.dependents(std::slice::from_ref(&on)).await;
            let dependent = Dependent {
                on,
                volume: Some(name("top.qcow2")),
                locator: Locator::File(top.clone()),
                kept: false,
            };
            assert_eq!(told.unwrap(), [dependent], "{backing}");
        }
        std::fs::remove_file(&top).unwrap();
    }
    let other = rig.path("top.qcow2");
    overlay_by_qemu(&other, "nbd:unix:/s:exportname=below.qcow2").await;
    let removal = rig
        .store
        .remove(&order(&below, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
}

#[tokio::test]
async fn an_overlay_that_is_no_volume_by_its_name_holds_its_parent_too() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    // As libvirt names overlays by default: after the snapshot.
    overlay_by_qemu(&rig.path("below.snapshot1"), "below.qcow2").await;
    assert_refused(&rig, &below, "below.snapshot1").await;
}

#[tokio::test]
async fn a_data_file_is_needed_by_the_image_whose_data_it_has() {
    let rig = Rig::new().await;
    let (image, data) = (rig.path("image.qcow2"), rig.path("data.raw"));
    let options = format!("data_file={},data_file_raw=on", data.display());
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &options,
            image.to_str().unwrap(),
            "1M",
        ],
    )
    .await;
    let volume = rig.store.stat(&name("data.raw")).await.unwrap();
    assert_refused(&rig, &volume, "image.qcow2").await;
    let image = rig.store.stat(&name("image.qcow2")).await.unwrap();
    rig.store
        .remove(&order(&image, Duration::ZERO))
        .await
        .unwrap();
    rig.store
        .remove(&order(&volume, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(rig.files(), []);
}

/// A condemned volume has no name, so no process can come to have it open meanwhile.
#[tokio::test]
async fn a_kept_volume_cannot_be_opened_and_a_restored_one_can() {
    let rig = Rig::new().await;
    let volume = rig.base("v.qcow2").await;
    let kept = order(&volume, LONG);
    rig.store.remove(&kept).await.unwrap();
    assert!(!Path::new(&volume.locator.to_string()).exists());
    rig.store.restore(kept.id).await.unwrap();
    let daemon = Daemon::open(&volume).await;
    assert!(rig.store.in_use(&volume.volume.name).await.unwrap());
    daemon.stop().await;
}

async fn overlay_by_qemu(path: &Path, backing: &str) {
    let path = path.to_str().unwrap();
    run(
        "qemu-img",
        &[
            "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, path, "8M",
        ],
    )
    .await;
}
