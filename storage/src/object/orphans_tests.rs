//! Objects of no volume: told, condemned when nobody can be at work on them any more, and gone.

use super::bucket::Bucket;
use super::create::{NEW, create};
use super::domain::Domain;
use super::foreign::foreign;
use super::guarded::{Asked, Fate, Guarded};
use super::image::identity;
use super::lease::{Held, Times};
use super::listing;
use crate::condemned::now;
use crate::{
    Format, NewVolume, Parent, Removal, RemovalId, RemovalOrder, RemovalState, StorageError,
    VolumeName,
};
use object_store::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Rig {
    store: Guarded,
    domain: Arc<Domain>,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let (store, dir) = (Guarded::new(), tempfile::tempdir().unwrap());
        let bucket = Bucket::of(Arc::new(store.clone()), Path::parse("images").unwrap());
        let id = "objects".parse().unwrap();
        let domain = Domain::new(id, bucket, dir.path(), Times::default()).unwrap();
        std::fs::create_dir(domain.dir.join(NEW)).unwrap();
        Self {
            store,
            domain: Arc::new(domain),
            _dir: dir,
        }
    }

    async fn volume(&self, name: &str, below: Option<&str>) -> Result<(), StorageError> {
        let parent = below.map(|below| Parent {
            locator: self.domain.locator(&below.parse().unwrap()),
            format: Some(Format::Qcow2),
        });
        let volume = NewVolume {
            name: name.parse().unwrap(),
            virtual_bytes: 1 << 20,
            parent,
        };
        create(Arc::clone(&self.domain), volume).await.map(drop)
    }

    /// One whose maker died before it had its name.
    async fn half_made(&self, name: &str) -> Uuid {
        let before = self.domain.orphans().await.unwrap();
        self.store.rule(
            |asked, key| match asked == Asked::Put && key.contains("/names/") {
                true => Fate::Refused,
                false => Fate::Passes,
            },
        );
        self.volume(name, None).await.unwrap_err();
        self.store.rule(|_, _| Fate::Passes);
        let mut now = self.domain.orphans().await.unwrap();
        now.retain(|uuid| !before.contains(uuid));
        assert_eq!(now.len(), 1);
        now[0]
    }

    async fn condemned(&self, age: Duration) -> Vec<Uuid> {
        self.domain.condemn_orphans(age).await.unwrap()
    }

    /// As the reaper goes on with a removal, when its time is over.
    async fn reaped(&self, uuid: Uuid) -> Removal {
        let id = RemovalId::from(uuid);
        let at = self.domain.keys.removal(id);
        let read = self.domain.tombstone(id).await.unwrap().unwrap();
        let mut stone = read.record;
        stone.order.keep_until = Some(now());
        let put = self.domain.records.replace(&at, &stone, read.version);
        put.await.unwrap().unwrap();
        let order = RemovalOrder {
            resumes: true,
            ..RemovalOrder::new(id, stone.order.volume, identity(uuid))
        };
        self.domain.remove(&order).await.unwrap()
    }

    async fn objects(&self, uuid: Uuid) -> usize {
        let below = self.domain.keys.volume(uuid);
        let listed = listing::paths(&self.domain.bucket.patient, &below);
        listed.await.unwrap().len()
    }
}

#[tokio::test]
async fn what_a_dead_maker_has_left_is_told_condemned_and_goes() {
    let rig = Rig::new();
    rig.volume("whole", None).await.unwrap();
    let left = rig.half_made("half").await;
    let told = [format!("images/{left}/")];
    assert_eq!(foreign(&rig.domain).await.unwrap(), told);
    assert!(
        rig.condemned(DAY).await.is_empty(),
        "its maker may be at work"
    );
    assert_eq!(rig.condemned(Duration::ZERO).await, [left]);
    assert!(rig.condemned(Duration::ZERO).await.is_empty(), "once");
    assert!(foreign(&rig.domain).await.unwrap().is_empty());

    let removals = rig.domain.list_removals().await.unwrap();
    let [listed] = removals.as_slice() else {
        panic!("{removals:?}");
    };
    assert_eq!(listed.identity, identity(left));
    assert_eq!(listed.volume.name.as_str(), "half");
    let kept = RemovalState::Condemned { keep_until: None };
    assert_ne!(listed.state, kept, "it can be brought back for a while");
    assert!(rig.objects(left).await > 1);
    assert_eq!(rig.reaped(left).await.state, RemovalState::Gone);
    assert_eq!(rig.objects(left).await, 0);
    assert_eq!(rig.domain.list_removals().await.unwrap(), []);
    rig.domain.stat(&"whole".parse().unwrap()).await.unwrap();
}

/// A table of names that is damaged takes no volume away.
#[tokio::test]
async fn what_was_written_to_or_is_named_by_an_image_is_never_condemned() {
    let rig = Rig::new();
    for (name, below) in [("base", None), ("top", Some("base")), ("alone", None)] {
        rig.volume(name, below).await.unwrap();
    }
    let uuid = async |name: &str| rig.domain.find(&name.parse().unwrap()).await.unwrap().uuid;
    let (base, top, alone) = (uuid("base").await, uuid("top").await, uuid("alone").await);
    let (records, keys) = (rig.domain.records.clone(), rig.domain.keys.clone());
    let holder = Uuid::new_v4();
    let lease = Held::take(records, keys, alone, rig.domain.times, holder).await;
    drop(lease.unwrap());
    for name in ["base", "alone"] {
        let name: VolumeName = name.parse().unwrap();
        let uuid = rig.domain.find(&name).await.unwrap().uuid;
        rig.domain.names.take(&name, uuid).await.unwrap();
    }
    assert_eq!(rig.domain.orphans().await.unwrap().len(), 2);
    assert!(rig.condemned(Duration::ZERO).await.is_empty());
    // Also when the image that names it has lost its own name.
    let name: VolumeName = "top".parse().unwrap();
    rig.domain.names.take(&name, top).await.unwrap();
    assert_eq!(rig.condemned(Duration::ZERO).await, [top]);
    assert!(rig.objects(base).await > 1 && rig.objects(alone).await > 1);
}

/// What cannot be read may name any of the others.
#[tokio::test]
async fn none_is_condemned_while_one_cannot_be_read() {
    let rig = Rig::new();
    rig.volume("base", None).await.unwrap();
    rig.volume("top", Some("base")).await.unwrap();
    for name in ["base", "top"] {
        let name: VolumeName = name.parse().unwrap();
        let uuid = rig.domain.find(&name).await.unwrap().uuid;
        rig.domain.names.take(&name, uuid).await.unwrap();
    }
    rig.store.rule(|asked, key| {
        let head = asked == Asked::Get && key.contains("/b/");
        if head { Fate::Refused } else { Fate::Passes }
    });
    let refused = rig.domain.condemn_orphans(Duration::ZERO).await;
    assert!(
        matches!(refused, Err(StorageError::Denied { .. })),
        "{refused:?}"
    );
    assert_eq!(rig.domain.list_removals().await.unwrap(), []);
    rig.store.rule(|_, _| Fate::Passes);
    assert_eq!(rig.condemned(Duration::ZERO).await.len(), 1, "the top");
}

/// What cannot be told is no answer.
#[tokio::test]
async fn one_that_cannot_be_read_is_brought_back_later() {
    let rig = Rig::new();
    let left = rig.half_made("half").await;
    assert_eq!(rig.condemned(Duration::ZERO).await, [left]);
    let id = RemovalId::from(left);
    rig.store.on(Asked::Get, "/manifest", Fate::Refused);
    let refused = rig.domain.restore(id).await;
    assert!(
        matches!(refused, Err(StorageError::Denied { .. })),
        "{refused:?}"
    );
    let name: VolumeName = "half".parse().unwrap();
    assert_eq!(rig.domain.names.holder(&name).await.unwrap(), None);
    rig.store.rule(|_, _| Fate::Passes);
    assert_eq!(rig.domain.restore(id).await.unwrap(), name);
}

#[tokio::test]
async fn one_that_has_its_name_after_all_is_not_freed() {
    let rig = Rig::new();
    let left = rig.half_made("late").await;
    assert_eq!(rig.condemned(Duration::ZERO).await, [left]);
    let name: VolumeName = "late".parse().unwrap();
    rig.domain.names.give(&name, left).await.unwrap();
    rig.reaped(left).await;
    assert_eq!(rig.domain.find(&name).await.unwrap().uuid, left);
    rig.domain.stat(&name).await.unwrap();
    assert_eq!(rig.domain.list_removals().await.unwrap(), []);
}

/// It slept for longer than anybody takes.
#[tokio::test]
async fn a_maker_that_comes_late_finds_that_it_was_condemned() {
    let rig = Rig::new();
    let gate = Arc::new(Semaphore::new(0));
    let waits = Fate::Waits(Arc::clone(&gate));
    rig.store.rule(
        move |asked, key| match asked == Asked::Put && key.contains("/names/") {
            true => waits.clone(),
            false => Fate::Passes,
        },
    );
    let name: VolumeName = "slow".parse().unwrap();
    let shard = rig.domain.keys.shard_of(&name).to_string();
    let volume = NewVolume {
        name: name.clone(),
        virtual_bytes: 1 << 20,
        parent: None,
    };
    let making = tokio::spawn(create(Arc::clone(&rig.domain), volume));
    rig.store.asked(Asked::Put, &shard).await;
    let condemned = rig.condemned(Duration::ZERO).await;
    assert_eq!(condemned.len(), 1);
    gate.add_permits(100);
    let late = making.await.unwrap();
    assert!(matches!(late, Err(StorageError::Busy { .. })), "{late:?}");
    assert_eq!(rig.domain.names.holder(&name).await.unwrap(), None);
    assert_eq!(rig.objects(condemned[0]).await, 0);
}
