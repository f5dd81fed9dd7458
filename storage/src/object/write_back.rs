//! Blocks on their way from memory to the store.

use super::blocks::BLOCK_BYTES;
use super::device::{AT_ONCE, Device, Writer};
use super::slots::Content;
use crate::StorageError;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// Writes blocks that have changed, and takes those away that hold nothing.
pub(super) async fn write_back(
    device: &Device,
    writer: &Writer,
    blocks: &[u64],
) -> Result<(), StorageError> {
    let puts: Vec<_> = blocks
        .iter()
        .map(|block| put(device, writer, *block))
        .collect();
    let mut empty: Vec<u64> = stream::iter(puts)
        .buffer_unordered(AT_ONCE)
        .try_filter_map(|empty| std::future::ready(Ok(empty)))
        .try_collect()
        .await?;
    empty.sort_unstable();
    take_away(device, writer, &empty).await
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
            device.blocks.put(block, bytes, lease).await?;
            writer.present().insert(block);
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

/// In one request, with all their slots locked: in their order, and nobody else locks two.
async fn take_away(device: &Device, writer: &Writer, blocks: &[u64]) -> Result<(), StorageError> {
    let slots: Vec<_> = blocks
        .iter()
        .map(|block| device.slots.get(*block))
        .collect();
    let (mut locks, mut gone) = (Vec::new(), Vec::new());
    for (block, slot) in blocks.iter().zip(&slots) {
        let content = slot.content.lock().await;
        if device.slots.is_changed(*block) && matches!(*content, Content::Absent) {
            locks.push(content);
            gone.push((*block, slot));
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let keys: Vec<u64> = gone.iter().map(|(block, _)| *block).collect();
    device.blocks.delete(&keys, &writer.lease).await?;
    for (block, slot) in gone {
        writer.present().remove(block);
        device.kept(block, slot).await?;
    }
    Ok(())
}

pub(super) fn no_writer() -> StorageError {
    StorageError::Invalid(format!(
        "blocks of {BLOCK_BYTES} bytes have changed and nobody writes"
    ))
}
