//! A host that loses its power at any object that an exporter writes.
//!
//! ```text
//!   writes, zeros, trims, FUAs, flushes ─▶ objects      the first N changes of them happen
//!                                            │ cut
//!   another host ─▶ blocks as they are ◀─────┘
//! ```
//!
//! What the host had beside the store is lost with it. Of each block the next one reads a state that it
//! had since the last answered flush, whole: that one, or a later one.

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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

const B: u64 = BLOCK_BYTES;
const COUNT: u64 = 6;
const STEPS: u64 = 24;
const TIMES: Times = Times {
    lease: Duration::from_secs(30),
    request: Duration::from_secs(10),
};

/// What a client asks for.
#[derive(Debug, Clone)]
enum Step {
    Write {
        at: u64,
        bytes: usize,
        byte: u8,
    },
    Zero {
        at: u64,
        bytes: u64,
    },
    Trim {
        at: u64,
        bytes: u64,
    },
    /// A write that is answered when it is in the store.
    Fua {
        block: u64,
        byte: u8,
    },
    Flush,
}

/// The same for a seed, for ever. Blocks are met by parts of them, by whole ones, and across their ends.
fn steps(seed: u64) -> Vec<Step> {
    let mut state = seed;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut steps = Vec::new();
    for number in 0..STEPS {
        let byte = u8::try_from(number + 1).unwrap();
        let (block, part) = (next(COUNT), next(B / 512 - 1) * 512);
        let bytes = (1 + next(2 * B / 512)) * 512;
        let at = block * B + part;
        let bytes = bytes.min(COUNT * B - at);
        steps.push(match next(10) {
            0 | 1 => Step::Flush,
            2 => Step::Zero { at, bytes },
            3 => Step::Trim {
                at: block * B,
                bytes: 2.min(COUNT - block) * B,
            },
            4 => Step::Fua { block, byte },
            5 | 6 => Step::Write {
                at: block * B,
                bytes: B as usize,
                byte,
            },
            _ => Step::Write {
                at,
                bytes: bytes as usize,
                byte,
            },
        });
    }
    steps.push(Step::Flush);
    steps
}

/// What each block may hold by now: the last state that was answered for, and those after it.
struct May(Vec<Vec<Vec<u8>>>);

impl May {
    fn new() -> Self {
        Self(vec![vec![vec![0; B as usize]]; COUNT as usize])
    }

    fn write(&mut self, at: u64, bytes: u64, byte: u8) {
        for block in at / B..(at + bytes).div_ceil(B) {
            let (from, to) = (at.max(block * B), (at + bytes).min((block + 1) * B));
            let states = &mut self.0[block as usize];
            let mut state = states.last().unwrap().clone();
            state[(from - block * B) as usize..(to - block * B) as usize].fill(byte);
            states.push(state);
        }
    }

    fn answered(&mut self, block: u64) {
        let states = &mut self.0[block as usize];
        states.drain(..states.len() - 1);
    }
}

struct Host {
    store: Guarded,
    device: Device,
    keys: Keys,
    uuid: Uuid,
    _dir: tempfile::TempDir,
}

impl Host {
    async fn on(store: Guarded, keys: Keys, uuid: Uuid) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shared: Arc<dyn ObjectStore> = Arc::new(store.clone());
        let blocks = Blocks::new(Arc::clone(&shared), keys.clone(), uuid, TIMES);
        let device = Device::new(blocks, Spill::new(dir.path().join("v")), COUNT * B);
        let holder = Uuid::new_v4();
        let lease = Held::take(Records::new(shared), keys.clone(), uuid, TIMES, holder);
        let lease = lease.await.unwrap();
        device.spill.begin(holder).await.unwrap();
        let present = device.blocks.present(COUNT).await.unwrap();
        device.set_writer(Some(Writer::new(lease, present)));
        Self {
            store,
            device,
            keys,
            uuid,
            _dir: dir,
        }
    }

    /// From here on so many changes of blocks happen, and nothing after them.
    fn cut_after(&self, changes: usize) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        self.store.rule(move |asked, key| {
            let changes_a_block =
                matches!(asked, Asked::Put | Asked::Delete) && key.contains("/b/");
            let passes = !changes_a_block || counted.fetch_add(1, Ordering::SeqCst) < changes;
            if passes { Fate::Passes } else { Fate::Refused }
        });
        asked
    }

    async fn play(&self, steps: &[Step], may: &mut May) -> Result<(), StorageError> {
        for step in steps {
            match step.clone() {
                Step::Write { at, bytes, byte } => {
                    may.write(at, bytes as u64, byte);
                    self.device
                        .write(at, &Bytes::from(vec![byte; bytes]))
                        .await?;
                }
                Step::Zero { at, bytes } => {
                    may.write(at, bytes, 0);
                    self.device.zero(at..at + bytes).await?;
                }
                Step::Trim { at, bytes } => {
                    may.write(at, bytes, 0);
                    self.device.trim(at..at + bytes).await?;
                }
                Step::Fua { block, byte } => {
                    may.write(block * B, B, byte);
                    let data = Bytes::from(vec![byte; B as usize]);
                    self.device.write(block * B, &data).await?;
                    self.device.flush_range(block * B..(block + 1) * B).await?;
                    may.answered(block);
                }
                Step::Flush => {
                    self.device.flush().await?;
                    (0..COUNT).for_each(|block| may.answered(block));
                }
            }
        }
        Ok(())
    }

    /// The host is gone, with whatever it had; so is its lease, after its time.
    async fn lose_power(self) -> Self {
        let Self {
            store, keys, uuid, ..
        } = self;
        store.rule(|_, _| Fate::Passes);
        store.inner.delete(&keys.lease(uuid)).await.unwrap();
        Self::on(store, keys, uuid).await
    }
}

#[tokio::test]
async fn a_cut_at_any_change_leaves_what_was_flushed_and_no_block_torn() {
    for seed in 1..=4 {
        let steps = steps(seed);
        let whole = Host::on(Guarded::new(), Keys::new(Path::default()), Uuid::new_v4()).await;
        let asked = whole.cut_after(usize::MAX);
        whole.play(&steps, &mut May::new()).await.unwrap();
        let changes = asked.load(Ordering::SeqCst);
        assert!(changes > 10, "{changes} changes are no test");
        let mut cut_short = 0;
        for cut in 0..=changes {
            let host = Host::on(Guarded::new(), Keys::new(Path::default()), Uuid::new_v4()).await;
            host.cut_after(cut);
            let mut may = May::new();
            cut_short += usize::from(host.play(&steps, &mut may).await.is_err());
            let next = host.lose_power().await;
            for (block, states) in may.0.iter().enumerate() {
                let at = block as u64 * B;
                let read = next.device.read(at, B as usize).await.unwrap();
                let is_one = states.iter().any(|state| read == state[..]);
                assert!(
                    is_one,
                    "seed {seed}, cut after {cut}, block {block}: none of its {} states",
                    states.len()
                );
            }
        }
        assert!(
            cut_short >= changes - 1,
            "{cut_short} of {changes} cuts were noticed"
        );
    }
}
