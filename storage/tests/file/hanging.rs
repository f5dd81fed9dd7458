//! A file system that hangs: here a lock that somebody else never gives back.

use crate::rig::Rig;
use futures::stream::{FuturesUnordered, StreamExt as _};
use livemerge_storage::{StorageError, VolumeStore as _};
use std::fs::OpenOptions;

/// More than a domain may have at once.
const CALLS: usize = 40;
/// As many as it may.
const SHARE: usize = 32;

#[tokio::test]
async fn a_domain_that_hangs_says_so_and_holds_up_no_other() {
    let (hanging, other) = (Rig::new().await, Rig::new().await);
    let volume = hanging.base("v.qcow2").await;
    let beside = other.base("v.qcow2").await;
    let lock = hanging.path(".livemerge/naming.lock");
    let lock = OpenOptions::new().write(true).open(lock).unwrap();
    lock.lock().unwrap();
    let on = [volume.locator.clone()];
    let mut asked: FuturesUnordered<_> =
        (0..CALLS).map(|_| hanging.store.dependents(&on)).collect();
    for _ in SHARE..CALLS {
        let refused = asked.next().await.unwrap();
        assert!(
            matches!(refused, Err(StorageError::Unreachable { .. })),
            "{refused:?}"
        );
    }
    let name = &beside.volume.name;
    assert_eq!(other.store.stat(name).await.unwrap(), beside);
    lock.unlock().unwrap();
    for _ in 0..SHARE {
        assert!(asked.next().await.unwrap().unwrap().is_empty());
    }
    let name = &volume.volume.name;
    assert_eq!(hanging.store.stat(name).await.unwrap(), volume);
}
