//! Room in a group that is files.

use super::scripted::Scripted;
use crate::{StorageError, VolumeStore as _};
use std::time::Duration;

const EXTENT: u64 = 4 << 20;

#[tokio::test]
async fn what_is_left_of_a_full_group_is_given() {
    let group = Scripted::new();
    group.volume("top", None);
    group.free(EXTENT + 512);
    let store = group.open().await;
    let name = "top".parse().unwrap();
    store.provide(&name, 3 * EXTENT).await.unwrap();
    let extended = format!("lvextend --size {}b -- vg/top", 2 * EXTENT);
    assert_eq!(group.calls(), [extended]);
    group.free(512);
    let full = store.provide(&name, 3 * EXTENT).await;
    assert!(
        matches!(full, Err(StorageError::NoSpace { free: 512, .. })),
        "{full:?}"
    );
}

/// The keeper of guests' room asks so, and must not wait for a removal.
#[tokio::test]
async fn nobody_who_gives_an_open_volume_room_waits_while_somebody_has_the_turn() {
    let group = Scripted::new();
    let top = group.volume("top", None);
    for (field, value) in [("major", "253"), ("minor", "253"), ("open", "1")] {
        group.set(&top, field, value);
    }
    let store = group.open().await;
    let lock = std::fs::File::create(group.dir().join("locks/vg/naming.lock"));
    lock.as_ref().unwrap().lock().unwrap();
    let name = "top".parse().unwrap();
    let looked = tokio::time::timeout(Duration::from_millis(200), store.stat(&name)).await;
    assert!(looked.is_err(), "it waits for its turn");
    let told = tokio::time::timeout(Duration::from_secs(20), store.provide(&name, 0)).await;
    // It has looked: there is no such device here.
    let read = told.expect("nobody is waited for").unwrap_err();
    let what = matches!(&read, StorageError::Unreachable { what, .. } if what.contains("top"));
    assert!(what, "{read:?}");
}

#[tokio::test]
async fn a_volume_that_is_to_grow_is_given_the_room_of_its_later_size() {
    let group = Scripted::new();
    group.volume("base", None);
    let store = group.open().await;
    let name = "base".parse().unwrap();
    store
        .provide_for(&name, 20 * EXTENT, 64 << 20)
        .await
        .unwrap();
    // A tenth more than 64 MiB, and the first tables.
    let extended = format!("lvextend --size {}b -- vg/base", 18 * EXTENT);
    assert_eq!(group.calls(), [extended]);
}
