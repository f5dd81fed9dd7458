//! A volume as a device: bytes at offsets, over blocks that are read and written whole.
//!
//! ```text
//!   read, write, zero, trim ─▶ slots (blocks in memory) ─▶ flush, or too many changed ─▶ objects
//!                                └─ spill: the same on this host, for the process's death
//! ```
//!
//! - What is written is on this host until it is flushed, and durable after that: a flush returns when
//!   every block that had changed before it is in the store. Each block is there as it was, or as it
//!   became, never in between.
//! - Who writes first takes the volume's lease, and with it knows which blocks there are: one of them
//!   that is not found is lost, and an error. Readers ask for each block, and soon again.
//! - A block that holds nothing but zeros has no object.
//! - A slot is locked while its block is read or written, so no older state overtakes a newer one.

use super::blocks::{BLOCK_BYTES, BULK, Blocks};
use super::lease::Held;
use super::slots::{Content, Slot, Slots};
use super::spill::Spill;
use super::write_back::{self, every};
use crate::StorageError;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use roaring::RoaringTreemap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks of one request that are worked on at once.
pub(super) const AT_ONCE: usize = 16;
/// When so many blocks have changed, the next write waits until half of them are in the store.
const MOST_CHANGED: usize = 128;

/// A volume's device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) blocks: Blocks,
    pub(super) slots: Slots,
    pub(super) spill: Spill,
    bytes: u64,
    /// Set while somebody writes.
    writer: Mutex<Option<Arc<Writer>>>,
}

/// What only a writer knows.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) lease: Held,
    /// Blocks that may have an object: put on before it is put, taken off when it is deleted.
    present: Mutex<RoaringTreemap>,
}

impl Writer {
    pub(super) fn new(lease: Held, present: RoaringTreemap) -> Self {
        lease.count(present.len());
        Self {
            lease,
            present: Mutex::new(present),
        }
    }

    pub(super) fn present(&self) -> MutexGuard<'_, RoaringTreemap> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        let blocks = self.present().len();
        self.lease.count(blocks);
    }
}

impl Device {
    pub(super) fn new(blocks: Blocks, spill: Spill, bytes: u64) -> Self {
        Self {
            blocks,
            slots: Slots::default(),
            spill,
            bytes,
            writer: Mutex::default(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many blocks it has.
    pub(super) fn count(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES)
    }

    /// Whether another process writes to it by now: nothing that is known of it holds any more.
    pub(super) fn is_lost(&self) -> bool {
        self.writer().is_some_and(|writer| writer.lease.is_lost())
    }

    /// Makes it writable, or no more.
    pub(super) fn set_writer(&self, writer: Option<Writer>) {
        // What was read without a lease may be old by now, or become so.
        self.slots.begin(writer.is_some());
        *self.held() = writer.map(Arc::new);
    }

    pub(super) fn writer(&self) -> Option<Arc<Writer>> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Writer>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn read(&self, at: u64, bytes: usize) -> Result<Bytes, StorageError> {
        let read = pieces(at..at + bytes as u64).map(|piece| async {
            let read = self.read_piece(piece).await;
            self.slots.shrink();
            read
        });
        let read: Vec<_> = read.collect();
        let read: Vec<Bytes> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        if let [one] = read.as_slice() {
            return Ok(one.clone());
        }
        let mut whole = BytesMut::with_capacity(bytes);
        read.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    async fn read_piece(&self, piece: Piece) -> Result<Bytes, StorageError> {
        let slot = self.slots.get(piece.block);
        let mut content = slot.content.lock().await;
        self.load(piece.block, &mut content).await?;
        Ok(match &*content {
            Content::Data(data) => Bytes::copy_from_slice(&data[piece.within]),
            _ => Bytes::from(vec![0; piece.within.len()]),
        })
    }

    /// Writes; durable after the next flush. Somebody must have made it writable.
    pub(super) async fn write(&self, at: u64, data: &Bytes) -> Result<(), StorageError> {
        let pieces = pieces(at..at + data.len() as u64);
        let written = pieces.map(|piece| {
            let from = (piece.start() - at) as usize;
            let part = data.slice(from..from + piece.within.len());
            async move { self.write_piece(piece, &part).await }
        });
        every(written.collect()).await?;
        self.bound().await
    }

    async fn write_piece(&self, piece: Piece, part: &[u8]) -> Result<(), StorageError> {
        let slot = self.slots.get(piece.block);
        let mut content = slot.content.lock().await;
        if piece.is_whole() {
            *content = Content::Data(part.to_vec());
        } else {
            self.load(piece.block, &mut content).await?;
            content.data()[piece.within.clone()].copy_from_slice(part);
        }
        self.slots.changed(piece.block);
        // Of a block that is there already, what has changed is enough.
        let there = slot.spilled.swap(false, Ordering::Relaxed);
        let (at, bytes) = match there {
            true => (piece.within.start, part.to_vec()),
            false => (0, content.data().clone()),
        };
        self.spill.keep(piece.block, at, bytes).await?;
        slot.spilled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a range read zeros. Whole blocks of it need no room any more.
    pub(super) async fn zero(&self, range: Range<u64>) -> Result<(), StorageError> {
        let zeros = Bytes::from(vec![0; BLOCK_BYTES as usize]);
        for edge in edges(&range) {
            let part = zeros.slice(..edge.within.len());
            self.write_piece(edge, &part).await?;
        }
        self.trim(range).await
    }

    /// Lets the whole blocks of a range go. The rest of it stays as it is.
    pub(super) async fn trim(&self, range: Range<u64>) -> Result<(), StorageError> {
        let whole = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
        if whole.is_empty() {
            return self.bound().await;
        }
        let writer = self.writer().ok_or_else(write_back::no_writer)?;
        // In this order: a block that is put meanwhile leaves the first for the second.
        let held = self.slots.within(whole.clone());
        let mut blocks = writer.present().clone();
        blocks.remove_range(..whole.start);
        blocks.remove_range(whole.end..);
        blocks.extend(held);
        for block in blocks {
            self.empty(&writer, block).await?;
            self.bound().await?;
        }
        Ok(())
    }

    /// Makes a block read zeros. Whether it has an object is known only with its slot locked: one may
    /// be on its way.
    async fn empty(&self, writer: &Writer, block: u64) -> Result<(), StorageError> {
        let slot = self.slots.get(block);
        let mut content = slot.content.lock().await;
        *content = Content::Absent;
        if !writer.present().contains(block) {
            return self.kept(block, &slot).await;
        }
        self.slots.changed(block);
        slot.spilled.store(false, Ordering::Relaxed);
        self.spill.gone(block).await
    }

    /// The store has a block as it is here. Called with its slot's lock held.
    pub(super) async fn kept(&self, block: u64, slot: &Slot) -> Result<(), StorageError> {
        slot.spilled.store(false, Ordering::Relaxed);
        self.spill.forget(block).await?;
        self.slots.kept(block);
        Ok(())
    }

    /// Returns when everything that was written before is in the store.
    pub(super) async fn flush(&self) -> Result<(), StorageError> {
        self.write_back(self.slots.all_changed()).await
    }

    /// The same for the blocks of a range.
    pub(super) async fn flush_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let mut changed = self.slots.all_changed();
        changed.retain(|block| blocks.contains(block));
        self.write_back(changed).await
    }

    /// Keeps what is in memory within its bounds.
    async fn bound(&self) -> Result<(), StorageError> {
        let changed = self.slots.all_changed();
        if changed.len() >= MOST_CHANGED {
            let half = changed.len() / 2;
            self.write_back(changed.into_iter().take(half.max(1)).collect())
                .await?;
        }
        self.slots.shrink();
        Ok(())
    }

    async fn write_back(&self, blocks: Vec<u64>) -> Result<(), StorageError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let Some(writer) = self.writer() else {
            // Unless whoever wrote them has just ended, and they are in the store.
            let none = self.slots.all_changed().is_empty();
            return if none {
                Ok(())
            } else {
                Err(write_back::no_writer())
            };
        };
        for some in blocks.chunks(BULK) {
            write_back::write_back(self, &writer, some).await?;
        }
        writer.count();
        Ok(())
    }

    /// Fetches what is not in memory.
    async fn load(&self, block: u64, content: &mut Content) -> Result<(), StorageError> {
        if !matches!(content, Content::Unknown) {
            return Ok(());
        }
        let there = self.writer().map(|writer| writer.present().contains(block));
        let got = match there {
            Some(false) => None,
            Some(true) | None => self.blocks.get(block).await?,
        };
        if there == Some(true) && got.is_none() {
            return Err(self.blocks.lost(block));
        }
        *content = got.map_or(Content::Absent, |bytes| Content::Data(bytes.to_vec()));
        Ok(())
    }
}

/// The part of a range that lies in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    block: u64,
    within: Range<usize>,
}

impl Piece {
    fn start(&self) -> u64 {
        self.block * BLOCK_BYTES + self.within.start as u64
    }

    fn is_whole(&self) -> bool {
        self.within.len() as u64 == BLOCK_BYTES
    }
}

/// A range, block by block.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Piece> {
    let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
    blocks.map(move |block| {
        let begin = block * BLOCK_BYTES;
        let from = range.start.max(begin) - begin;
        let to = range.end.min(begin + BLOCK_BYTES) - begin;
        Piece {
            block,
            within: from as usize..to as usize,
        }
    })
}

/// What of a range is no whole block.
fn edges(range: &Range<u64>) -> Vec<Piece> {
    let last = range.end.saturating_sub(1) / BLOCK_BYTES;
    let first = pieces(range.start..range.end.min((range.start / BLOCK_BYTES + 1) * BLOCK_BYTES));
    let end = pieces(range.start.max(last * BLOCK_BYTES)..range.end);
    let mut edges: Vec<Piece> = first.chain(end).filter(|piece| !piece.is_whole()).collect();
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_BYTES;

    #[test]
    fn a_range_falls_into_blocks() {
        let parts = |range| {
            let parts = pieces(range).map(|piece| (piece.block, piece.within));
            parts.collect::<Vec<_>>()
        };
        let whole = B as usize;
        assert_eq!(parts(0..0), []);
        assert_eq!(parts(5..9), [(0, 5..9)]);
        assert_eq!(parts(B..2 * B), [(1, 0..whole)]);
        assert_eq!(
            parts(B - 1..2 * B + 1),
            [(0, whole - 1..whole), (1, 0..whole), (2, 0..1)]
        );
    }

    #[test]
    fn edges_are_what_is_no_whole_block() {
        let blocks = |range: Range<u64>| {
            let edges = edges(&range).into_iter().map(|piece| piece.block);
            edges.collect::<Vec<_>>()
        };
        assert!(blocks(0..B).is_empty());
        assert!(blocks(0..3 * B).is_empty());
        assert_eq!(blocks(1..B), [0]);
        assert_eq!(blocks(1..3 * B), [0]);
        assert_eq!(blocks(0..2 * B + 1), [2]);
        assert_eq!(blocks(1..2 * B + 1), [0, 2]);
        assert_eq!(blocks(B + 1..B + 2), [1]);
    }
}
