//! Files that are not ours, and images that cannot be read: the first are left alone, the second
//! stop every removal.

use crate::rig::{Files, LONG, Rig, name, order};
use futures::{StreamExt as _, TryStreamExt as _};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{Dependent, RemovalState, StorageError, VolumeStore as _};
use std::fs::{self, OpenOptions};
use std::time::Duration;

fn corrupt<T: std::fmt::Debug>(answer: &Result<T, StorageError>) {
    assert!(
        matches!(answer, Err(StorageError::Corrupt { .. })),
        "{answer:?}"
    );
}

/// Not for ever: whoever waits is answered when the image can be read, or is gone.
fn not_yet<T: std::fmt::Debug>(answer: &Result<T, StorageError>, file: &str) {
    let Err(error @ StorageError::Unreachable { what, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert!(what.contains(file) && error.worth_a_retry(), "{what}");
}

/// What a damaged image may look like: the file's bytes made from a good one's.
fn damaged(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let with = |at: usize, bytes: &[u8]| {
        let mut image = good.to_vec();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    vec![
        ("empty", Vec::new()),
        ("cut within the magic", good[..3].to_vec()),
        ("cut behind the magic", good[..4].to_vec()),
        ("cut within the fields", good[..60].to_vec()),
        ("no magic", with(0, b"XXXX")),
        ("zeros", vec![0; good.len()]),
        ("version 9", with(4, &9_u32.to_be_bytes())),
        (
            "backing name behind the end",
            with(8, &u64::MAX.to_be_bytes()),
        ),
        ("backing name too long", with(16, &4096_u32.to_be_bytes())),
    ]
}

#[tokio::test]
async fn foreign_files_are_neither_listed_nor_touched() {
    let rig = Rig::new().await;
    let foreign = [
        "notes.txt",
        ".hidden",
        "v.qcow2.bak",
        "with blank.img",
        "noext",
    ];
    for file in foreign {
        fs::write(rig.path(file), file).unwrap();
    }
    fs::create_dir(rig.path("sub")).unwrap();
    fs::write(rig.path("sub/inner.qcow2"), "QFI").unwrap();
    let before = rig.files();

    let made = rig.base("v.qcow2").await;
    let listed: Vec<_> = rig.store.list().try_collect().await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&made));
    let kept = order(&made, LONG);
    rig.store.remove(&kept).await.unwrap();
    rig.store.restore(kept.id).await.unwrap();
    rig.store
        .remove(&order(&made, Duration::ZERO))
        .await
        .unwrap();
    rig.reopened().await;
    assert_eq!(rig.files(), before);
}

#[tokio::test]
async fn a_damaged_volume_is_corrupt_to_every_call_and_blocks_every_removal() {
    let rig = Rig::new().await;
    let (below, bystander) = (
        rig.base("below.qcow2").await,
        rig.base("bystander.qcow2").await,
    );
    let top = rig.overlay("top.qcow2", &below).await;
    let good = fs::read(rig.path("top.qcow2")).unwrap();
    for (damage, image) in damaged(&good) {
        // In place, so that it stays the same volume.
        fs::write(rig.path("top.qcow2"), &image).unwrap();
        let before = rig.files();
        let top_name = name("top.qcow2");
        corrupt(&rig.store.stat(&top_name).await);
        corrupt(&rig.store.parent_of(&top_name).await);
        corrupt(&rig.store.in_use(&top_name).await);
        corrupt(&rig.store.grow(&top_name, 1 << 30).await);
        let listed: Vec<_> = rig.store.list().collect().await;
        assert_eq!(
            listed.iter().filter(|info| info.is_err()).count(),
            1,
            "{damage}"
        );
        assert_eq!(listed.len(), 3, "{damage}");
        for keep_for in [Duration::ZERO, LONG] {
            corrupt(&rig.store.remove(&order(&top, keep_for)).await);
            for volume in [&below, &bystander] {
                let refused = rig.store.remove(&order(volume, keep_for)).await;
                not_yet(&refused, "top.qcow2");
            }
        }
        let asked = [below.locator.clone()];
        not_yet(&rig.store.dependents(&asked).await, "top.qcow2");
        assert_eq!(rig.files(), before, "{damage}");
    }
    fs::write(rig.path("top.qcow2"), &good).unwrap();
    for volume in [&bystander, &top, &below] {
        let removal = rig
            .store
            .remove(&order(volume, Duration::ZERO))
            .await
            .unwrap();
        assert_eq!(removal.state, RemovalState::Gone);
    }
}

#[tokio::test]
async fn a_damaged_image_under_any_name_blocks_removals() {
    let rig = Rig::new().await;
    let made = rig.base("v.qcow2").await;
    for file in ["leftover", ".hidden.qcow2", "with blank.qcow2"] {
        fs::write(rig.path(file), b"QFI\xfb\0\0\0\x03").unwrap();
        not_yet(&rig.store.remove(&order(&made, Duration::ZERO)).await, file);
        fs::remove_file(rig.path(file)).unwrap();
    }
    rig.store
        .remove(&order(&made, Duration::ZERO))
        .await
        .unwrap();
}

/// A kept volume that cannot be read might need what is to be removed.
#[tokio::test]
async fn a_damaged_kept_volume_blocks_removals_until_its_time_is_over() {
    let rig = Rig::new().await;
    let (kept, other) = (rig.base("kept.qcow2").await, rig.base("other.qcow2").await);
    let kept = order(&kept, LONG);
    rig.store.remove(&kept).await.unwrap();
    let own = rig.path(&format!(".livemerge/removals/{}", kept.id));
    let image = OpenOptions::new()
        .write(true)
        .open(own.join("volume"))
        .unwrap();
    image.set_len(8).unwrap();
    not_yet(
        &rig.store.remove(&order(&other, Duration::ZERO)).await,
        "kept.qcow2",
    );
    let text = fs::read_to_string(own.join("order")).unwrap();
    let mut over: serde_json::Value = serde_json::from_str(&text).unwrap();
    over["keep_until"] = "2001-01-01T00:00:00Z".into();
    fs::write(own.join("order"), over.to_string()).unwrap();
    rig.store
        .remove(&order(&other, Duration::ZERO))
        .await
        .unwrap();
}

/// A guest may write anything to its raw disk, an image's header with a backing name too. It is
/// never opened as that; but whether it was a guest cannot be told, so it counts as needed.
#[tokio::test]
async fn an_image_within_a_raw_volume_is_not_opened_and_holds_what_it_names() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    rig.overlay("top.qcow2", &below).await;
    fs::rename(rig.path("top.qcow2"), rig.path("disk.raw")).unwrap();
    let disk = rig.store.stat(&name("disk.raw")).await.unwrap();
    assert_eq!(
        (disk.format, disk.parent),
        (livemerge_storage::Format::Raw, None)
    );
    assert_eq!(
        disk.virtual_bytes,
        fs::metadata(rig.path("disk.raw")).unwrap().len()
    );
    let refused = rig.store.remove(&order(&below, Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    let dependents = rig
        .store
        .dependents(std::slice::from_ref(&below.locator))
        .await;
    assert_eq!(
        dependents.unwrap(),
        [Dependent {
            on: below.locator.clone(),
            volume: Some(name("disk.raw")),
            locator: disk.locator,
            kept: false,
        }]
    );
    fs::write(rig.path("disk.raw"), "anything else").unwrap();
    rig.store
        .remove(&order(&below, Duration::ZERO))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_raw_base_carries_overlays_grows_and_goes() {
    let rig = Rig::new().await;
    fs::write(rig.path("base.raw"), vec![6; 1 << 20]).unwrap();
    let base = rig.store.stat(&name("base.raw")).await.unwrap();
    let top = rig.overlay("top.qcow2", &base).await;
    assert!(Files.reads(&top, 0, 1 << 20, 6).await);
    let grown = rig.store.grow(&name("base.raw"), 2 << 20).await.unwrap();
    assert_eq!(grown.virtual_bytes, 2 << 20);
    let refused = rig.store.remove(&order(&base, Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    rig.store
        .remove(&order(&top, Duration::ZERO))
        .await
        .unwrap();
    let removal = rig
        .store
        .remove(&order(&base, Duration::ZERO))
        .await
        .unwrap();
    assert!(removal.freed_bytes >= 1 << 20);
    assert_eq!(rig.files(), []);
}
