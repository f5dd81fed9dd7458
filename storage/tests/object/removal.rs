//! A process that dies at any request of a removal, a restoration or a creation, and a fresh one
//! that goes on: the volume is whole under its name, or condemned and listed, or gone.

use crate::counting::{Dying, Last};
use crate::rig::{LONG, Objects, Rig, SIZE, name, open, order};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{
    LiveVolumes as _, NewVolume, ObjectVolumes, RemovalOrder, RemovalState, StorageError,
    VolumeInfo, VolumeStore as _,
};
use std::sync::Arc;
use std::time::Duration;

/// More than any of these has.
const MOST_REQUESTS: usize = 200;

/// A volume with some blocks.
async fn written(rig: &Rig, volume: &str) -> VolumeInfo {
    let made = rig.base(volume).await;
    let objects = Objects(rig.store.clone());
    objects.write(&made, 0, 2 << 20, 0x5a).await;
    made
}

async fn dying(rig: &Rig, at: usize, last: Last) -> Option<(Arc<Dying>, ObjectVolumes)> {
    let objects = Arc::new(Dying::new(Arc::clone(&rig.objects), at, last));
    let opened = open(Arc::clone(&objects) as _, &rig.dir).await;
    // It may die before it has begun.
    opened.ok().map(|store| (objects, store))
}

/// Exactly one of the three.
async fn assert_not_halved(store: &ObjectVolumes, volume: &VolumeInfo, order: &RemovalOrder) {
    let removals = store.list_removals().await.unwrap();
    let listed = removals.iter().any(|removal| removal.id == order.id);
    match store.stat(&volume.volume.name).await {
        Ok(there) => {
            assert_eq!(there.identity, volume.identity);
            assert!(!listed, "it is there and condemned");
            let objects = Objects(store.clone());
            assert!(objects.reads(volume, 0, 2 << 20, 0x5a).await);
        }
        Err(StorageError::NotFound { .. }) => {}
        Err(error) => panic!("neither there nor gone: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_resumed_from_any_request() {
    for last in [Last::Lost, Last::Done] {
        let rig = Rig::memory().await;
        let mut unharmed = false;
        for at in 1..MOST_REQUESTS {
            let volume = written(&rig, "v").await;
            let order = order(&volume, Duration::ZERO);
            if let Some((objects, store)) = dying(&rig, at, last).await {
                let removed = store.remove(&order).await;
                unharmed = objects.requests() < at;
                assert!(!unharmed || removed.is_ok(), "{at}: {removed:?}");
            }
            let fresh = rig.reopened().await;
            assert_not_halved(&fresh, &volume, &order).await;
            let removed = fresh.remove(&order).await.unwrap();
            assert_eq!(removed.state, RemovalState::Gone, "{at}");
            let keys = rig.keys().await;
            let uuid = volume.identity.as_str();
            assert!(!keys.iter().any(|key| key.contains(uuid)), "{at}: {keys:?}");
            assert!(fresh.list_removals().await.unwrap().is_empty());
            if unharmed {
                break;
            }
        }
        assert!(unharmed, "a removal has an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_volume_comes_back_whichever_request_is_the_last() {
    for last in [Last::Lost, Last::Done] {
        let rig = Rig::memory().await;
        let volume = written(&rig, "v").await;
        let mut unharmed = false;
        for at in 1..MOST_REQUESTS {
            let kept = order(&volume, LONG);
            rig.store.remove(&kept).await.unwrap();
            if let Some((objects, store)) = dying(&rig, at, last).await {
                let restored = store.restore(kept.id).await;
                unharmed = objects.requests() < at;
                assert!(!unharmed || restored.is_ok(), "{at}: {restored:?}");
            }
            let fresh = rig.reopened().await;
            assert_not_halved(&fresh, &volume, &kept).await;
            match fresh.restore(kept.id).await {
                Ok(back) => assert_eq!(back.identity, volume.identity),
                // It had come back.
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => panic!("{at}: {error:?}"),
            }
            let objects = Objects(fresh.clone());
            assert!(objects.reads(&volume, 0, 2 << 20, 0x5a).await);
            if unharmed {
                break;
            }
        }
        assert!(unharmed, "a restoration has an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_half_made_is_none() {
    for last in [Last::Lost, Last::Done] {
        let rig = Rig::memory().await;
        let below = rig.base("below").await;
        let mut unharmed = false;
        for at in 1..MOST_REQUESTS {
            let new = NewVolume {
                name: name("above"),
                virtual_bytes: SIZE,
                parent: below.clone().into_parent(),
            };
            if let Some((objects, store)) = dying(&rig, at, last).await {
                let created = store.create(&new).await;
                unharmed = objects.requests() < at;
                assert!(!unharmed || created.is_ok(), "{at}: {created:?}");
            }
            let fresh = rig.reopened().await;
            match fresh.stat(&new.name).await {
                Ok(there) => {
                    fresh.activate(&new.name).await.unwrap();
                    assert!(Objects(fresh.clone()).reads(&there, 0, SIZE, 0).await);
                }
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => panic!("{at}: {error:?}"),
            }
            let made = fresh.create(&new).await.unwrap();
            fresh.remove(&order(&made, Duration::ZERO)).await.unwrap();
            if unharmed {
                break;
            }
        }
        assert!(unharmed, "a creation has an end");
        let fresh = rig.reopened().await;
        fresh.remove(&order(&below, Duration::ZERO)).await.unwrap();
    }
}

trait IntoParent {
    fn into_parent(self) -> Option<livemerge_storage::Parent>;
}

impl IntoParent for VolumeInfo {
    fn into_parent(self) -> Option<livemerge_storage::Parent> {
        Some(livemerge_storage::Parent {
            locator: self.locator,
            format: Some(self.format),
        })
    }
}
