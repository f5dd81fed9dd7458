//! Removals on two hosts at once.

use super::bucket::Bucket;
use super::domain::{Domain, Manifest};
use super::guarded::{Asked, Fate, Guarded};
use super::lease::Times;
use super::removal::{Stage, Tombstone};
use crate::condemned::{Condemned, now};
use crate::{Identity, RemovalId, RemovalOrder, RemovalState, StorageError, VolumeName};
use object_store::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;

struct Rig {
    store: Guarded,
    domain: Arc<Domain>,
    name: VolumeName,
    uuid: Uuid,
    id: RemovalId,
    _dir: TempDir,
}

impl Rig {
    /// A volume that is condemned, but nothing of it has been freed.
    async fn condemned(stage: Stage, keep_for: Duration) -> Self {
        let (store, dir) = (Guarded::new(), tempfile::tempdir().unwrap());
        let bucket = Bucket::of(Arc::new(store.clone()), Path::default());
        let id = "objects".parse().unwrap();
        let domain = Domain::new(id, bucket, dir.path(), Times::default());
        let rig = Self {
            store,
            domain: Arc::new(domain.unwrap()),
            name: "v".parse().unwrap(),
            uuid: Uuid::new_v4(),
            id: RemovalId::from(Uuid::new_v4()),
            _dir: dir,
        };
        rig.manifest(&rig.name, rig.uuid).await;
        let order = RemovalOrder {
            keep_for,
            ..rig.order()
        };
        let order = Condemned::new(&order, now());
        let at = rig.domain.keys.removal(rig.id);
        let stone = Tombstone { stage, order };
        rig.domain.records.create(&at, &stone).await.unwrap();
        rig
    }

    fn order(&self) -> RemovalOrder {
        let identity: Identity = self.uuid.to_string().parse().unwrap();
        RemovalOrder::new(self.id, self.name.clone(), identity)
    }

    /// A volume without blocks: its header cannot be read.
    async fn manifest(&self, name: &VolumeName, uuid: Uuid) {
        let manifest = Manifest {
            name: name.clone(),
            uuid,
            device_bytes: 1 << 20,
            created_at: now(),
            blocks: 0,
        };
        let at = self.domain.keys.manifest(uuid);
        self.domain.records.create(&at, &manifest).await.unwrap();
    }
}

/// One whose header cannot be read, so that it may need anything.
#[tokio::test]
async fn a_volume_that_may_get_its_name_back_needs_what_is_below() {
    for (stage, counts) in [
        (Stage::Taking, true),
        (Stage::Kept, false),
        (Stage::Purging, false),
    ] {
        let rig = Rig::condemned(stage, Duration::ZERO).await;
        let below = ["below".parse().unwrap()];
        let needers = rig.domain.needers(&below).await;
        assert_eq!(needers.is_err(), counts, "{stage:?}: {needers:?}");
    }
}

/// What may need the name needs the one that has it.
#[tokio::test]
async fn a_removal_whose_name_is_another_volumes_by_now_goes_on() {
    let rig = Rig::condemned(Stage::Taking, Duration::ZERO).await;
    let (top, above): (VolumeName, _) = ("top".parse().unwrap(), Uuid::new_v4());
    rig.manifest(&top, above).await;
    rig.domain.names.give(&top, above).await.unwrap();
    rig.domain.remove(&rig.order()).await.unwrap_err();
    let other = Uuid::new_v4();
    rig.manifest(&rig.name, other).await;
    rig.domain.names.give(&rig.name, other).await.unwrap();
    let removal = rig.domain.remove(&rig.order()).await.unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
    let holder = rig.domain.names.holder(&rig.name).await.unwrap();
    assert_eq!(holder, Some(other));
}

#[tokio::test]
async fn what_was_freed_while_it_was_restored_has_no_name() {
    let rig = Rig::condemned(Stage::Kept, Duration::from_secs(3600)).await;
    let at = rig.domain.keys.removal(rig.id);
    let gate = Arc::new(Semaphore::new(0));
    let late = Arc::clone(&gate);
    rig.store.rule(move |asked, key| match asked {
        Asked::Put if key.contains("removals/") => Fate::Waits(Arc::clone(&late)),
        _ => Fate::Passes,
    });
    let (domain, id) = (Arc::clone(&rig.domain), rig.id);
    let restoring = tokio::spawn(async move { domain.restore(id).await });
    // Its name comes first.
    while rig.domain.names.holder(&rig.name).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let manifest = rig.domain.keys.manifest(rig.uuid);
    rig.domain.records.delete(&manifest).await.unwrap();
    rig.domain.records.delete(&at).await.unwrap();
    gate.add_permits(100);
    let gone = restoring.await.unwrap().unwrap_err();
    assert!(matches!(gone, StorageError::NotFound { .. }), "{gone:?}");
    assert_eq!(rig.domain.names.holder(&rig.name).await.unwrap(), None);
}
