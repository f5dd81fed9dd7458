//! What an open volume owes to those whose exporter ends, and to those who come after others.

use super::blocks::BLOCK_BYTES;
use super::bucket::Bucket;
use super::domain::{Domain, Manifest};
use super::guarded::{Asked, Fate, Guarded};
use super::lease::Times;
use super::nbd::Export as _;
use super::open::{Client, Open};
use crate::StorageError;
use crate::condemned::now;
use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const BLOCK: usize = BLOCK_BYTES as usize;
const TIMES: Times = Times {
    lease: Duration::from_millis(600),
    request: Duration::from_millis(200),
};

struct Rig {
    store: Guarded,
    domain: Arc<Domain>,
    uuid: Uuid,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let (store, dir) = (Guarded::new(), tempfile::tempdir().unwrap());
        let bucket = Bucket::of(Arc::new(store.clone()), Path::default());
        let domain = Domain::new("objects".parse().unwrap(), bucket, dir.path(), TIMES);
        Self {
            store,
            domain: Arc::new(domain.unwrap()),
            uuid: Uuid::new_v4(),
            _dir: dir,
        }
    }

    /// As an exporter that has just begun.
    fn open(&self) -> Arc<Open> {
        let manifest = Manifest {
            name: "v".parse().unwrap(),
            uuid: self.uuid,
            device_bytes: 64 * BLOCK_BYTES,
            created_at: now(),
            blocks: 0,
        };
        Arc::new(Open::new(Arc::clone(&self.domain), manifest, None))
    }

    async fn object(&self, block: u64) -> Option<u8> {
        let at = self.domain.keys.block(self.uuid, block);
        let got = self.store.inner.get(&at).await;
        Some(got.ok()?.bytes().await.unwrap()[0])
    }

    fn refuse_blocks(&self) {
        self.store.rule(|asked, key| match asked {
            Asked::Put if key.contains("/b/") => Fate::Refused,
            _ => Fate::Passes,
        });
    }

    fn refuse_nothing(&self) {
        self.store.rule(|_, _| Fate::Passes);
    }
}

fn whole(byte: u8) -> Bytes {
    Bytes::from(vec![byte; BLOCK])
}

#[tokio::test]
async fn a_store_with_numbered_versions_keeps_conditions() {
    let rig = Rig::new();
    rig.domain.check().await.unwrap();
    rig.domain.check().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_one_has_left_outlives_a_recovery_that_fails() {
    let rig = Rig::new();
    let killed = rig.open();
    let client = Client::new(Arc::clone(&killed));
    client.write(0, whole(7)).await.unwrap();
    drop((client, killed));
    rig.refuse_blocks();
    let failed = rig.open().recover().await.unwrap_err();
    assert!(matches!(failed, StorageError::Denied { .. }), "{failed:?}");
    rig.refuse_nothing();
    // Ended on its way, and once more.
    let again = rig.open();
    let ended = tokio::time::timeout(TIMES.request / 2, again.recover()).await;
    assert!(ended.is_err(), "nobody knows yet that it is free");
    again.recover().await.unwrap();
    assert_eq!(rig.object(0).await, Some(7));
}

#[tokio::test]
async fn what_a_close_could_not_put_is_put_by_the_next_one() {
    let rig = Rig::new();
    let open = rig.open();
    let (writer, reader) = (Client::new(Arc::clone(&open)), Client::new(open));
    writer.write(0, whole(7)).await.unwrap();
    rig.refuse_blocks();
    writer.leaves();
    writer.close().await;
    assert!(reader.is_over(), "it would read what was before");
    reader.flush().await.unwrap_err();
    rig.refuse_nothing();
    let next = rig.open();
    next.recover().await.unwrap();
    assert_eq!(rig.object(0).await, Some(7));
    let client = Client::new(next);
    client.write(BLOCK_BYTES, whole(8)).await.unwrap();
    client.close().await;
    assert_eq!(rig.object(1).await, Some(8));
}

#[tokio::test]
async fn the_flush_of_one_who_connects_again_holds_what_he_wrote_before() {
    let rig = Rig::new();
    let open = rig.open();
    let before = Client::new(Arc::clone(&open));
    before.write(0, whole(7)).await.unwrap();
    Client::new(open).flush().await.unwrap();
    assert_eq!(rig.object(0).await, Some(7));
    before.close().await;
}

#[tokio::test]
async fn who_comes_after_one_that_leaves_waits_for_him() {
    let rig = Rig::new();
    let open = rig.open();
    let (first, next) = (Client::new(Arc::clone(&open)), Client::new(open));
    first.write(0, whole(1)).await.unwrap();
    let refused = next.write(0, whole(2)).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    first.leaves();
    let closed = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        first.close().await;
    };
    let (written, ()) = tokio::join!(next.write(0, whole(2)), closed);
    written.unwrap();
    next.close().await;
    assert_eq!(rig.object(0).await, Some(2));
}
