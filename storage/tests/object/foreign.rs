//! What is not ours in a bucket, and images that say strange things: never touched, never passed
//! over.

use crate::rig::{Rig, address, order};
use livemerge_storage::{
    LiveVolumes as _, RemovalState, StorageError, VolumeInfo, VolumeStore as _,
};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use std::time::Duration;

const BLOCK: usize = 256 << 10;

async fn put(rig: &Rig, key: &str, data: &[u8]) {
    let at = Path::parse(key).unwrap();
    let payload = PutPayload::from(data.to_vec());
    rig.objects.put(&at, payload).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_are_told_and_left_alone() {
    let rig = Rig::memory().await;
    let volume = rig.base("v").await;
    let uuid = volume.identity.to_string();
    let other = uuid::Uuid::new_v4();
    let foreign = [
        "d/a file".to_owned(),
        "d/names/zz".to_owned(),
        "d/removals/no id".to_owned(),
        format!("d/{uuid}/notes"),
    ];
    let outside = [
        "other/domain".to_owned(),
        format!("{uuid}/b/0000000000000000"),
    ];
    for key in foreign.iter().chain(&outside) {
        put(&rig, key, b"precious").await;
    }
    put(&rig, "d/backups/x", b"precious").await;
    put(&rig, &format!("d/{other}/b/0000000000000000"), b"precious").await;
    let told = rig.store.foreign().await.unwrap();
    let mut expected: Vec<String> = foreign.to_vec();
    expected.push("d/backups/".to_owned());
    // It may be ours, but is no volume's.
    expected.push(format!("d/{other}/"));
    expected.sort();
    assert_eq!(told, expected);
    let removal = order(&volume, Duration::ZERO);
    // Condemned and freed, but for what somebody has put below its prefix.
    let refused = rig.store.remove(&removal).await.unwrap_err();
    assert!(
        matches!(&refused, StorageError::Corrupt { what, .. } if what.contains("notes")),
        "{refused:?}"
    );
    assert_eq!(rig.store.list_removals().await.unwrap().len(), 1);
    let keys = rig.keys().await;
    for key in foreign.iter().chain(&outside) {
        assert!(keys.contains(key), "{key}");
    }
    assert_eq!(
        keys.iter()
            .filter(|key| key.starts_with(&format!("d/{uuid}/")))
            .count(),
        1
    );
    let at = Path::parse(&foreign[3]).unwrap();
    rig.objects.delete(&at).await.unwrap();
    let removed = rig.store.remove(&removal).await.unwrap();
    assert_eq!(removed.state, RemovalState::Gone);
}

/// Puts another header in the place of a volume's own, as `qemu-img` writes it.
async fn name_as_backing(rig: &Rig, volume: &VolumeInfo, backing: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image").display().to_string();
    let args = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, &image, "8M",
    ];
    crate::rig::run("qemu-img", &args).await;
    let mut data = std::fs::read(&image).unwrap();
    data.resize(BLOCK.max(data.len()), 0);
    put(
        rig,
        &format!("d/{}/b/0000000000000000", volume.identity),
        &data[..BLOCK],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_header_may_mean_counts() {
    let rig = Rig::memory().await;
    let (below, above) = (rig.base("below").await, rig.base("above").await);
    let (_, socket) = address(&below.locator);
    let json = format!(
        r#"json:{{"driver":"qcow2","file":{{"driver":"nbd","export":"below","server":{{"type":"unix","path":"{socket}"}}}}}}"#
    );
    for backing in [
        &below.locator.to_string(),
        "nbd+unix:///below?socket=/on/another/host.sock",
        "nbd:unix:/x.sock:exportname=below",
        &json,
    ] {
        name_as_backing(&rig, &above, backing).await;
        let refused = rig.store.remove(&order(&below, Duration::ZERO)).await;
        assert!(
            matches!(refused, Err(StorageError::InUse { .. })),
            "{backing}: {refused:?}"
        );
        let asked = [below.locator.clone()];
        assert_eq!(
            rig.store.dependents(&asked).await.unwrap().len(),
            1,
            "{backing}"
        );
        assert!(
            rig.store
                .parent_of(&above.volume.name)
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_itself_or_a_loop_ends_no_call() {
    let rig = Rig::memory().await;
    let (one, other) = (rig.base("one").await, rig.base("other").await);
    name_as_backing(&rig, &one, &one.locator.to_string()).await;
    let told = rig
        .store
        .parent_of(&one.volume.name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.locator, one.locator);
    // It holds itself up for nobody else.
    name_as_backing(&rig, &one, &other.locator.to_string()).await;
    name_as_backing(&rig, &other, &one.locator.to_string()).await;
    for volume in [&one, &other] {
        let refused = rig.store.remove(&order(volume, Duration::ZERO)).await;
        assert!(
            matches!(refused, Err(StorageError::InUse { .. })),
            "{refused:?}"
        );
    }
    let asked = [one.locator.clone(), other.locator.clone()];
    assert_eq!(rig.store.dependents(&asked).await.unwrap().len(), 2);
    use futures::TryStreamExt as _;
    let extents: Result<Vec<_>, StorageError> =
        rig.store.extents(&one.volume.name).try_collect().await;
    assert!(extents.is_err(), "a chain without an end has no extents");
    name_as_backing(&rig, &one, &one.locator.to_string()).await;
    // Whoever is built on itself needs nobody else.
    for volume in [&other, &one] {
        let removed = rig
            .store
            .remove(&order(volume, Duration::ZERO))
            .await
            .unwrap();
        assert_eq!(removed.state, RemovalState::Gone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_read_might_need_anything() {
    let rig = Rig::memory().await;
    let (volume, broken) = (rig.base("v").await, rig.base("broken").await);
    put(
        &rig,
        &format!("d/{}/b/0000000000000000", broken.identity),
        &[7; BLOCK],
    )
    .await;
    let refused = rig.store.remove(&order(&volume, Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(StorageError::Unreachable { .. })),
        "{refused:?}"
    );
    rig.store.stat(&volume.volume.name).await.unwrap();
    let corrupt = rig.store.stat(&broken.volume.name).await;
    assert!(
        matches!(corrupt, Err(StorageError::Corrupt { .. })),
        "{corrupt:?}"
    );
    // A base that cannot be read holds itself up, too, until somebody looks at it.
    put(
        &rig,
        &format!("d/{}/b/0000000000000000", broken.identity),
        &[7; 100],
    )
    .await;
    let corrupt = rig.store.stat(&broken.volume.name).await;
    assert!(
        matches!(corrupt, Err(StorageError::Corrupt { .. })),
        "{corrupt:?}"
    );
    rig.store.activate(&volume.volume.name).await.unwrap();
}
