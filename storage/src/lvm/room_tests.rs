//! Room in a group that is files.

use super::scripted::Scripted;
use crate::{StorageError, VolumeStore as _};

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
