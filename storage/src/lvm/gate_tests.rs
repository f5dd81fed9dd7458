//! Who needs a volume, on a group that is files: nothing of it is active.

use super::scripted::{Scripted, order};
use crate::{Locator, StorageError, VolumeStore as _};
use futures::TryStreamExt as _;
use std::time::Duration;

/// What is said of the removal of a volume.
async fn removal(group: &Scripted, name: &str, id: &str) -> String {
    let store = group.open().await;
    match store.remove(&order(name, id, Duration::ZERO)).await {
        Ok(_) => "gone".to_owned(),
        Err(StorageError::InUse { by, .. }) => by,
        Err(StorageError::Unreachable { what, .. }) => format!("unreachable: {what}"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_snapshot_of_lvms_own_is_not_removed_with_what_it_was_made_of() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let snapshot = group.foreign("theirs");
    group.set(&snapshot, "origin", "base");
    let by = removal(&group, "base", &base).await;
    assert!(by.contains("vg/theirs"), "{by}");
    assert_eq!(group.calls(), Vec::<String>::new());
    group.set(&snapshot, "origin", "another");
    assert_eq!(removal(&group, "base", &base).await, "gone");
}

#[tokio::test]
async fn every_spelling_of_a_backing_name_holds_a_volume_that_is_not_active() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let top = group.volume("top", None);
    let link = group.dir().join("link");
    std::os::unix::fs::symlink("/dev/mapper/vg-base", &link).unwrap();
    for spelled in [
        "/dev/vg/base",
        "base",
        "host_device:/dev/vg/base",
        "/dev/disk/by-id/dm-name-vg-base",
        link.to_str().unwrap(),
        r#"json:{"driver":"quorum","children":[{"driver":"raw","file.filename":"/dev/vg/base"}]}"#,
    ] {
        group.image(&top, Some(spelled));
        let by = removal(&group, "base", &base).await;
        assert!(by.contains("vg/top"), "{spelled}: {by}");
    }
    for untold in ["/dev/dm-100000", "/dev/disk/by-id/dm-uuid-LVM-x"] {
        group.image(&top, Some(untold));
        let by = removal(&group, "base", &base).await;
        assert!(by.starts_with("unreachable"), "{untold}: {by}");
    }
    // An image elsewhere, or another group's.
    for other in ["/no/such/image", "/dev/other/image"] {
        group.image(&top, Some(other));
        let id = group.volume("free", None);
        assert_eq!(removal(&group, "free", &id).await, "gone", "{other}");
    }
}

#[tokio::test]
async fn an_image_that_is_nobodys_might_need_what_cannot_be_told() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let theirs = group.foreign("theirs");
    for untold in ["/dev/dm-100000", "/dev/disk/by-id/dm-uuid-LVM-x"] {
        group.image(&theirs, Some(untold));
        let by = removal(&group, "base", &base).await;
        assert!(by.starts_with("unreachable"), "{untold}: {by}");
    }
    assert_eq!(group.calls(), Vec::<String>::new());
    // Whatever else it holds.
    group.write(&theirs, &[0; 4096]);
    assert_eq!(removal(&group, "base", &base).await, "gone");
}

#[tokio::test]
async fn a_header_that_names_itself_ends_no_call() {
    let group = Scripted::new();
    let own = group.volume("own", Some("/dev/vg/own"));
    let store = group.open().await;
    let name = "own".parse().unwrap();
    let locator = store.stat(&name).await.unwrap().locator;
    assert_eq!(store.dependents(&[locator]).await.unwrap(), []);
    let extents: Result<Vec<_>, _> = store.extents(&name).try_collect().await;
    assert!(
        matches!(extents, Err(StorageError::Invalid(_))),
        "{extents:?}"
    );
    assert_eq!(group.calls(), Vec::<String>::new());
    // What is built on itself needs nobody else.
    assert_eq!(removal(&group, "own", &own).await, "gone");
}

#[tokio::test]
async fn one_that_is_built_on_its_namesake_elsewhere_is_told() {
    let group = Scripted::new();
    group.volume("base", Some("/dev/other/base"));
    let on = [Locator::Block("/dev/other/base".into())];
    let told = group.open().await.dependents(&on).await.unwrap();
    let by: Vec<_> = told.iter().map(|found| &found.locator).collect();
    assert_eq!(by, [&Locator::Block("/dev/vg/base".into())]);
    let own = [Locator::Block("/dev/vg/base".into())];
    assert!(
        group
            .open()
            .await
            .dependents(&own)
            .await
            .unwrap()
            .is_empty()
    );
}

/// What a guest writes to its raw disk.
#[tokio::test]
async fn a_guest_holds_up_nobody_by_what_it_writes() {
    let group = Scripted::new();
    let raw = group.volume("raw", None);
    group.tag(&raw, &["livemerge", "livemerge.format=raw"]);
    let mut garbage = b"QFI\xfb".to_vec();
    garbage.resize(4096, 0xff);
    group.write(&raw, &garbage);
    let free = group.volume("free", None);
    assert_eq!(removal(&group, "free", &free).await, "gone");
    let info = group.open().await.stat(&"raw".parse().unwrap()).await;
    assert_eq!(info.unwrap().virtual_bytes, 4 << 20);
    group.image(&raw, Some("/dev/disk/by-id/x"));
    let free = group.volume("free", None);
    assert_eq!(removal(&group, "free", &free).await, "gone");
    // An image that is broken might need anything, but not itself.
    let broken = group.volume("broken", None);
    group.write(&broken, &garbage);
    let free = group.volume("free", None);
    let by = removal(&group, "free", &free).await;
    assert!(by.starts_with("unreachable"), "{by}");
    assert_eq!(removal(&group, "broken", &broken).await, "gone");
}

/// A raw disk beside this program's volumes, which its owner has tagged as such.
#[tokio::test]
async fn a_guest_of_a_foreign_raw_disk_holds_up_nobody_either() {
    let group = Scripted::new();
    let theirs = group.foreign("theirs");
    let mut garbage = b"QFI\xfb".to_vec();
    garbage.resize(4096, 0xff);
    let write = |tags: &[&str], backing: Option<&str>| {
        group.tag(&theirs, tags);
        match backing {
            Some(backing) => group.image(&theirs, Some(backing)),
            None => group.write(&theirs, &garbage),
        }
        group.volume("free", None)
    };
    for backing in [None, Some("/dev/disk/by-id/x")] {
        let free = write(&["other"], backing);
        let by = removal(&group, "free", &free).await;
        assert!(by.starts_with("unreachable"), "{backing:?}: {by}");
        group.set(&free, "name", "rest");
        let free = write(&["other", "livemerge.format=raw"], backing);
        assert_eq!(removal(&group, "free", &free).await, "gone", "{backing:?}");
    }
    // What it names is needed all the same, and it is nobody's still.
    let free = write(&["livemerge.format=raw"], Some("/dev/vg/free"));
    let by = removal(&group, "free", &free).await;
    assert!(by.contains("vg/theirs"), "{by}");
    let theirs = group.open().await.foreign().await.unwrap();
    assert_eq!(theirs, ["theirs"]);
}

#[tokio::test]
async fn one_that_was_half_made_holds_nothing_for_ever() {
    let group = Scripted::new();
    let store = group.open().await;
    let base = group.volume("base", None);
    let draft = group.foreign(&format!("livemerge.new.{}", uuid::Uuid::nil()));
    group.tag(&draft, &["livemerge", "livemerge.parent=base"]);
    let wanted = order("base", &base, Duration::ZERO);
    let refused = store.remove(&wanted).await;
    assert!(matches!(refused, Err(StorageError::InUse { .. })));
    // While somebody makes one it may be that.
    let making = group.dir().join("locks/vg/creating.lock");
    let making = std::fs::File::create(making).unwrap();
    making.lock_shared().unwrap();
    store.list_removals().await.unwrap();
    assert_eq!(group.calls(), Vec::<String>::new());
    drop(making);
    store.list_removals().await.unwrap();
    let removal = store.remove(&wanted).await.unwrap();
    assert_eq!(removal.state, crate::RemovalState::Gone);
}
