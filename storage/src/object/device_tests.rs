//! A device while its requests meet, fail, or come late.

use super::blocks::{BLOCK_BYTES, Blocks};
use super::device::{Device, Writer};
use super::guarded::{Asked, Fate, Guarded};
use super::keys::Keys;
use super::lease::{Held, Times};
use super::records::Records;
use super::spill::Spill;
use crate::StorageError;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;

const B: u64 = BLOCK_BYTES;
const COUNT: u64 = 1024;
const MOMENT: Duration = Duration::from_millis(200);
const TIMES: Times = Times {
    lease: Duration::from_secs(30),
    request: Duration::from_secs(10),
};

struct Rig {
    store: Guarded,
    device: Arc<Device>,
    keys: Keys,
    uuid: Uuid,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let (store, dir) = (Guarded::new(), tempfile::tempdir().unwrap());
        let (keys, uuid) = (Keys::new(Path::default()), Uuid::new_v4());
        let blocks = Blocks::new(shared(&store), keys.clone(), uuid, TIMES);
        let spill = Spill::new(dir.path().join("v"));
        Self {
            store,
            device: Arc::new(Device::new(blocks, spill, COUNT * B)),
            keys,
            uuid,
            _dir: dir,
        }
    }

    async fn writable() -> Self {
        let rig = Self::new();
        rig.make_writable().await;
        rig
    }

    async fn make_writable(&self) {
        let records = Records::new(shared(&self.store));
        let holder = Uuid::new_v4();
        let lease = Held::take(records, self.keys.clone(), self.uuid, TIMES, holder).await;
        self.device.spill.begin(holder).await.unwrap();
        let present = self.device.blocks.present(COUNT).await.unwrap();
        self.device
            .set_writer(Some(Writer::new(lease.unwrap(), present)));
    }

    async fn write(&self, block: u64, byte: u8) {
        let data = Bytes::from(vec![byte; B as usize]);
        self.device.write(block * B, &data).await.unwrap();
    }

    async fn reads(&self, block: u64) -> u8 {
        self.device.read(block * B, 4096).await.unwrap()[0]
    }

    /// What the store has of a block.
    async fn object(&self, block: u64) -> Option<u8> {
        let got = self
            .store
            .inner
            .get(&self.keys.block(self.uuid, block))
            .await;
        Some(got.ok()?.bytes().await.unwrap()[0])
    }

    /// As if another process had.
    async fn put(&self, block: u64, byte: u8) {
        let at = self.keys.block(self.uuid, block);
        let data = vec![byte; B as usize];
        self.store.inner.put(&at, data.into()).await.unwrap();
    }

    fn flush(&self) -> tokio::task::JoinHandle<Result<(), StorageError>> {
        let device = Arc::clone(&self.device);
        tokio::spawn(async move { device.flush().await })
    }
}

fn shared(store: &Guarded) -> Arc<dyn ObjectStore> {
    Arc::new(store.clone())
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

#[tokio::test]
async fn a_block_that_is_zeroed_while_it_is_put_has_no_object() {
    let rig = Rig::writable().await;
    let gate = closed();
    rig.write(3, 7).await;
    rig.store
        .on(Asked::Put, "3", Fate::Waits(Arc::clone(&gate)));
    let flush = rig.flush();
    rig.store.asked(Asked::Put, "b/0000000000000003").await;
    let device = Arc::clone(&rig.device);
    let zero = tokio::spawn(async move { device.zero(3 * B..4 * B).await });
    tokio::time::sleep(MOMENT).await;
    gate.add_permits(100);
    flush.await.unwrap().unwrap();
    zero.await.unwrap().unwrap();
    rig.device.flush().await.unwrap();
    assert_eq!(rig.reads(3).await, 0);
    assert_eq!(rig.object(3).await, None);
}

#[tokio::test]
async fn a_put_that_fails_ends_no_other_on_its_way_and_none_is_begun_after_it() {
    let rig = Rig::writable().await;
    let gate = closed();
    let late = Arc::clone(&gate);
    for block in 0..3 {
        rig.write(block, 1).await;
    }
    rig.store.rule(move |asked, key| match (asked, key) {
        (Asked::Put, key) if key.ends_with("b/0000000000000000") => Fate::Waits(Arc::clone(&late)),
        (Asked::Put, key) if key.ends_with("b/0000000000000001") => Fate::Refused,
        _ => Fate::Passes,
    });
    let flush = rig.flush();
    rig.store.asked(Asked::Put, "b/0000000000000000").await;
    tokio::time::sleep(MOMENT).await;
    assert!(!flush.is_finished(), "one is on its way");
    gate.add_permits(100);
    let failed = flush.await.unwrap().unwrap_err();
    assert!(matches!(failed, StorageError::Denied { .. }), "{failed:?}");
    assert_eq!(rig.object(0).await, Some(1));
    assert_eq!(rig.device.slots.all_changed(), [1, 2]);
    rig.store.rule(|_, _| Fate::Passes);
    rig.device.flush().await.unwrap();
    assert_eq!(rig.object(1).await, Some(1));
}

#[tokio::test]
async fn a_block_that_must_be_there_and_is_not_is_no_zeros() {
    let rig = Rig::new();
    rig.put(5, 9).await;
    rig.make_writable().await;
    let at = rig.keys.block(rig.uuid, 5);
    rig.store.inner.delete(&at).await.unwrap();
    let lost = rig.device.read(5 * B, 512).await.unwrap_err();
    assert!(matches!(lost, StorageError::Corrupt { .. }), "{lost:?}");
    assert_eq!(rig.reads(6).await, 0, "one that was never there is");
}

#[tokio::test]
async fn a_flush_holds_what_was_zeroed_and_written_again_meanwhile() {
    let rig = Rig::writable().await;
    rig.write(0, 1).await;
    rig.device.flush().await.unwrap();
    rig.device.zero(0..B).await.unwrap();
    rig.write(1, 2).await;
    let gate = closed();
    let fate = Fate::Waits(Arc::clone(&gate));
    rig.store.on(Asked::Put, "b/0000000000000001", fate);
    let flush = rig.flush();
    rig.store.asked(Asked::Put, "b/0000000000000001").await;
    tokio::time::sleep(MOMENT).await;
    rig.write(0, 3).await;
    gate.add_permits(100);
    flush.await.unwrap().unwrap();
    assert_eq!(
        rig.object(0).await,
        Some(3),
        "not what was before the zeros"
    );
}

#[tokio::test]
async fn without_a_lease_a_block_is_soon_read_again() {
    let rig = Rig::new();
    rig.put(0, 1).await;
    assert_eq!(rig.reads(0).await, 1);
    rig.put(0, 2).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(rig.reads(0).await, 2);
}

#[tokio::test]
async fn what_was_asked_for_before_the_lease_is_not_known_under_it() {
    let rig = Rig::new();
    rig.put(0, 1).await;
    let gate = closed();
    let fate = Fate::Waits(Arc::clone(&gate));
    rig.store.on(Asked::Get, "b/0000000000000000", fate);
    let device = Arc::clone(&rig.device);
    let reader = tokio::spawn(async move { device.read(0, 512).await });
    rig.store.asked(Asked::Get, "b/0000000000000000").await;
    rig.put(0, 2).await;
    rig.make_writable().await;
    gate.add_permits(100);
    reader.await.unwrap().unwrap();
    assert_eq!(rig.reads(0).await, 2);
}

#[tokio::test]
async fn what_is_read_does_not_fill_the_memory() {
    let rig = Rig::writable().await;
    for block in 0..COUNT {
        rig.put(block, 1).await;
    }
    rig.device.set_writer(None);
    rig.make_writable().await;
    for block in (0..COUNT).step_by(8) {
        let bytes = 8 * B as usize;
        rig.device.read(block * B, bytes).await.unwrap();
    }
    let held = rig.device.slots.within(0..COUNT).len();
    assert!(held <= 100, "{held}");
}

#[tokio::test]
async fn a_listing_may_take_longer_than_a_request() {
    let rig = Rig::new();
    for block in 0..6 {
        rig.put(block, 1).await;
    }
    let times = Times {
        request: MOMENT,
        ..TIMES
    };
    let blocks = Blocks::new(shared(&rig.store), rig.keys.clone(), rig.uuid, times);
    rig.store.rule(|_, _| Fate::Slow(MOMENT / 3));
    assert_eq!(blocks.present(COUNT).await.unwrap().len(), 6);
}
