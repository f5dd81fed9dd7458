//! Blocks on their way from memory to the store.
//!
//! ```text
//!   changed ─┬─ holds something ─▶ put
//!            └─ holds nothing ───▶ deleted with others ─▶ written to meanwhile ─▶ once more
//! ```

use super::blocks::BLOCK_BYTES;
use super::device::{AT_ONCE, Device, Writer};
use super::slots::{Content, Slot};
use crate::StorageError;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes blocks that have changed, and takes those away that hold nothing.
pub(super) async fn write_back(
    device: &Device,
    writer: &Writer,
    blocks: &[u64],
) -> Result<(), StorageError> {
    let mut blocks = blocks.to_vec();
    while !blocks.is_empty() {
        let puts = blocks.iter().map(|block| put(device, writer, *block));
        let empty = every(puts.collect()).await?;
        let mut empty: Vec<u64> = empty.into_iter().flatten().collect();
        empty.sort_unstable();
        blocks = take_away(device, writer, &empty).await?;
    }
    Ok(())
}

/// Runs all to their end, and tells then what failed first. After that none is begun: each would wait
/// for a dead store as long again. One that is dropped on its way is not undone: it may land after what
/// comes next.
pub(super) async fn every<T>(
    work: Vec<impl Future<Output = Result<T, StorageError>>>,
) -> Result<Vec<T>, StorageError> {
    let failed = &AtomicBool::new(false);
    let all = work.into_iter().map(|one| async move {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let done = one.await;
        failed.fetch_or(done.is_err(), Ordering::Relaxed);
        Some(done)
    });
    let all: Vec<_> = stream::iter(all.collect::<Vec<_>>())
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    all.into_iter().flatten().collect()
}

/// Tells the block when it holds nothing but has an object: that is for later.
async fn put(device: &Device, writer: &Writer, block: u64) -> Result<Option<u64>, StorageError> {
    let slot = device.slots.get(block);
    let mut content = slot.content.lock().await;
    if !device.slots.is_changed(block) {
        return Ok(None);
    }
    if let Content::Data(data) = &*content {
        if data.iter().any(|byte| *byte != 0) {
            let bytes = Bytes::copy_from_slice(data);
            let lease = Some(&writer.lease);
            // It may be there even when the answer is lost.
            writer.present().insert(block);
            device.blocks.put(block, bytes, lease).await?;
            device.kept(block, &slot).await?;
            return Ok(None);
        }
        *content = Content::Absent;
    }
    if writer.present().contains(block) {
        return Ok(Some(block));
    }
    device.kept(block, &slot).await?;
    Ok(None)
}

/// In one request, with all their slots locked: in their order, and nobody else locks two. Tells those
/// that have been written to meanwhile.
async fn take_away(
    device: &Device,
    writer: &Writer,
    blocks: &[u64],
) -> Result<Vec<u64>, StorageError> {
    let slots: Vec<(u64, Arc<Slot>)> = blocks
        .iter()
        .map(|block| (*block, device.slots.get(*block)))
        .collect();
    let (mut locks, mut gone, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for (block, slot) in &slots {
        let content = slot.content.lock().await;
        let changed = device.slots.is_changed(*block);
        if changed && matches!(*content, Content::Absent) {
            locks.push(content);
            gone.push((*block, slot));
        } else if changed {
            again.push(*block);
        }
    }
    if gone.is_empty() {
        return Ok(again);
    }
    let keys: Vec<u64> = gone.iter().map(|(block, _)| *block).collect();
    device.blocks.delete(&keys, &writer.lease).await?;
    for (block, slot) in gone {
        writer.present().remove(block);
        device.kept(block, slot).await?;
    }
    Ok(again)
}

pub(super) fn no_writer() -> StorageError {
    StorageError::Invalid(format!(
        "blocks of {BLOCK_BYTES} bytes have changed and nobody writes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn after_a_failure_none_is_begun_and_all_that_were_come_to_their_end() {
        let (begun, ended) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let work = (0..10 * AT_ONCE).map(|number| async move {
            begun.fetch_add(1, Ordering::Relaxed);
            if number == 0 {
                return Err(no_writer());
            }
            yield_now().await;
            ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        every(work.collect()).await.unwrap_err();
        let [begun, ended] = [begun, ended].map(|count| count.load(Ordering::Relaxed));
        assert!((1..=AT_ONCE).contains(&begun), "{begun}");
        assert_eq!(begun - 1, ended);
    }
}
