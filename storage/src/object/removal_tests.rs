//! Removals on two hosts at once.

use super::bucket::Bucket;
use super::create::{NEW, create};
use super::domain::{Domain, Manifest};
use super::guarded::{Asked, Fate, Guarded};
use super::lease::Times;
use super::removal::{Stage, Tombstone};
use crate::condemned::{Condemned, now};
use crate::{
    Format, Identity, NewVolume, Parent, RemovalId, RemovalOrder, RemovalState, StorageError,
    VolumeInfo, VolumeName,
};
use object_store::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        std::fs::create_dir(rig.domain.dir.join(NEW)).unwrap();
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

    /// What a removal, or a restoration, has left behind that died on its way.
    async fn left_behind(&self, stage: Stage, made: &VolumeInfo, keep_for: Duration) -> RemovalId {
        let order = kept(made, keep_for);
        let stone = Tombstone {
            stage,
            order: Condemned::new(&order, now()),
        };
        let at = self.domain.keys.removal(order.id);
        self.domain.records.create(&at, &stone).await.unwrap();
        order.id
    }

    /// A volume with an image.
    async fn image(&self, name: &str) -> VolumeInfo {
        let volume = NewVolume {
            name: name.parse().unwrap(),
            virtual_bytes: 1 << 20,
            parent: None,
        };
        create(Arc::clone(&self.domain), volume).await.unwrap()
    }

    async fn is_written_down(&self, id: RemovalId) -> bool {
        self.domain.tombstone(id).await.unwrap().is_some()
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

/// A new removal of it.
fn kept(made: &VolumeInfo, keep_for: Duration) -> RemovalOrder {
    let id = RemovalId::from(Uuid::new_v4());
    let (name, identity) = (made.volume.name.clone(), made.identity.clone());
    RemovalOrder {
        keep_for,
        ..RemovalOrder::new(id, name, identity)
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

/// What was built on the volume just before its name was taken would be built on the new one.
#[tokio::test]
async fn no_volume_is_given_a_name_that_is_being_taken() {
    let rig = Rig::condemned(Stage::Taking, Duration::ZERO).await;
    let volume = NewVolume {
        name: rig.name.clone(),
        virtual_bytes: 1 << 20,
        parent: None,
    };
    let make = || create(Arc::clone(&rig.domain), volume.clone());
    let refused = make().await.unwrap_err();
    assert!(matches!(refused, StorageError::Busy { .. }), "{refused:?}");
    assert_eq!(rig.domain.names.holder(&rig.name).await.unwrap(), None);
    // Nothing was built on it, and it has gone.
    let at = rig.domain.keys.removal(rig.id);
    rig.domain.records.delete(&at).await.unwrap();
    make().await.unwrap();
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

const LONG: Duration = Duration::from_secs(3600);
/// Over at once.
const SHORT: Duration = Duration::from_nanos(1);

/// As a restoration, and a removal, leave it that die on their way.
#[tokio::test]
async fn what_an_earlier_removal_has_left_frees_nothing_that_a_later_one_keeps() {
    let rig = Rig::condemned(Stage::Purging, Duration::ZERO).await;
    for (stage, keep_for) in [
        (Stage::Kept, SHORT),
        (Stage::Taking, SHORT),
        (Stage::Taking, Duration::ZERO),
        (Stage::Restored, SHORT),
    ] {
        let made = rig.image("again").await;
        let earlier = rig.left_behind(stage, &made, keep_for).await;
        let later = kept(&made, LONG);
        let removal = rig.domain.remove(&later).await.unwrap();
        assert!(matches!(removal.state, RemovalState::Condemned { .. }));
        // Whoever goes on with what is due.
        let due = RemovalOrder {
            id: earlier,
            resumes: true,
            ..later.clone()
        };
        rig.domain.remove(&due).await.unwrap();
        assert!(!rig.is_written_down(earlier).await, "{stage:?}");
        rig.domain.restore(later.id).await.unwrap();
        let back = rig.domain.stat(&made.volume.name).await.unwrap();
        assert_eq!(back.identity, made.identity, "{stage:?}");
        let now = kept(&made, Duration::ZERO);
        assert_eq!(
            rig.domain.remove(&now).await.unwrap().state,
            RemovalState::Gone
        );
    }
    // One that frees it already goes on.
    assert!(rig.is_written_down(rig.id).await);
}

#[tokio::test]
async fn a_restoration_that_died_when_the_volume_had_its_name_is_ended() {
    for keep_for in [LONG, SHORT] {
        let rig = Rig::condemned(Stage::Purging, Duration::ZERO).await;
        let made = rig.image("again").await;
        let id = rig.left_behind(Stage::Kept, &made, keep_for).await;
        let name = rig.domain.restore(id).await.unwrap();
        assert_eq!(name, made.volume.name);
        assert!(!rig.is_written_down(id).await);
    }
}

/// What had been built on the one that is being removed would be built on it.
#[tokio::test]
async fn a_kept_volume_is_not_given_a_name_that_is_being_taken_from_another() {
    let rig = Rig::condemned(Stage::Purging, Duration::ZERO).await;
    let first = rig.image("n").await;
    let back = kept(&first, LONG);
    rig.domain.remove(&back).await.unwrap();
    let second = rig.image("n").await;
    let above = NewVolume {
        name: "above".parse().unwrap(),
        virtual_bytes: 1 << 20,
        parent: Some(Parent {
            locator: second.locator.clone(),
            format: Some(Format::Qcow2),
        }),
    };
    create(Arc::clone(&rig.domain), above).await.unwrap();
    // The second one is on its way when that is built on it.
    let taking = rig
        .left_behind(Stage::Taking, &second, Duration::ZERO)
        .await;
    let uuid: Uuid = second.identity.as_str().parse().unwrap();
    rig.domain
        .names
        .take(&second.volume.name, uuid)
        .await
        .unwrap();
    let on = RemovalOrder {
        id: taking,
        ..kept(&second, Duration::ZERO)
    };
    let holder = async || rig.domain.names.holder(&second.volume.name).await.unwrap();
    let refused = rig.domain.restore(back.id).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    assert_eq!(holder().await, None);
    // As a restoration leaves it that died before it looked again.
    let own: Uuid = first.identity.as_str().parse().unwrap();
    rig.domain
        .names
        .give(&first.volume.name, own)
        .await
        .unwrap();
    let waits = rig.domain.remove(&on).await.unwrap_err();
    assert!(matches!(waits, StorageError::Busy { .. }), "{waits:?}");
    rig.domain.restore(back.id).await.unwrap_err();
    assert_eq!(holder().await, None);
    // So it gets its name back.
    let refused = rig.domain.remove(&on).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    assert_eq!(holder().await, Some(uuid));
}

/// Between the two looks.
#[tokio::test]
async fn a_volume_that_was_given_a_name_as_that_was_being_taken_loses_it() {
    let rig = Rig::condemned(Stage::Purging, Duration::ZERO).await;
    let first = rig.image("n").await;
    let back = kept(&first, LONG);
    rig.domain.remove(&back).await.unwrap();
    let (gate, given) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (late, counted) = (Arc::clone(&gate), Arc::clone(&given));
    rig.store.rule(move |asked, key| match asked {
        Asked::Put if key.contains("names/") => {
            counted.fetch_add(1, Ordering::SeqCst);
            Fate::Waits(Arc::clone(&late))
        }
        _ => Fate::Passes,
    });
    let (domain, id) = (Arc::clone(&rig.domain), back.id);
    let restoring = tokio::spawn(async move { domain.restore(id).await });
    let domain = Arc::clone(&rig.domain);
    let new = NewVolume {
        name: "m".parse().unwrap(),
        virtual_bytes: 1 << 20,
        parent: None,
    };
    let making = tokio::spawn(async move { create(domain, new).await });
    // Both are about to be given theirs.
    while given.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for name in ["n", "m"] {
        let mut other = first.clone();
        other.volume.name = name.parse().unwrap();
        other.identity = Uuid::new_v4().to_string().parse().unwrap();
        rig.left_behind(Stage::Taking, &other, Duration::ZERO).await;
    }
    gate.add_permits(100);
    let refused = restoring.await.unwrap().unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    let refused = making.await.unwrap().unwrap_err();
    assert!(matches!(refused, StorageError::Busy { .. }), "{refused:?}");
    assert_eq!(rig.domain.names.all().await.unwrap(), []);
    assert!(rig.is_written_down(back.id).await);
}

/// A store that does not answer any more, and a caller who does not wait for ever.
#[tokio::test]
async fn a_removal_that_hangs_has_done_nothing_or_is_listed() {
    for hangs in [Asked::Put, Asked::Delete] {
        let rig = Rig::condemned(Stage::Purging, Duration::ZERO).await;
        let at = rig.domain.keys.removal(rig.id);
        rig.domain.records.delete(&at).await.unwrap();
        let made = rig.image("v").await;
        let wanted = kept(&made, Duration::ZERO);
        let (gate, met) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&met);
        rig.store.rule(move |asked, _| match asked == hangs {
            true => {
                counted.fetch_add(1, Ordering::SeqCst);
                Fate::Waits(Arc::clone(&gate))
            }
            false => Fate::Passes,
        });
        let (domain, order) = (Arc::clone(&rig.domain), wanted.clone());
        let removing = tokio::spawn(async move { domain.remove(&order).await });
        while met.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        removing.abort();
        removing.await.unwrap_err();
        rig.store.rule(|_, _| Fate::Passes);
        let there = rig.domain.stat(&made.volume.name).await;
        let listed = rig.domain.list_removals().await.unwrap();
        match hangs {
            Asked::Put => {
                assert_eq!(there.unwrap().identity, made.identity);
                assert_eq!(listed, []);
            }
            _ => {
                assert!(
                    matches!(there, Err(StorageError::NotFound { .. })),
                    "{there:?}"
                );
                assert_eq!(listed[0].id, wanted.id);
            }
        }
        let removal = rig.domain.remove(&wanted).await.unwrap();
        assert_eq!(removal.state, RemovalState::Gone);
    }
}
