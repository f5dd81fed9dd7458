//! Room in the storage domains, promised once.
//!
//! ```text
//!   free in the domain  −  what open merges will still take  −  what merges before this one take
//!                             promised − (kept volume now − kept volume then)
//! ```
//!
//! A promise stands in the merge's record, so it holds after a restart too. What a merge has taken of
//! its promise shows in its kept volume and in the domain alike, and is not counted twice. Merges of
//! other hosts in one domain are not seen here.

use super::bytes::{Work, want_of_space};
use super::types::MergeRecord;
use crate::volumes::Volumes;
use livemerge_proto::problem::Problem;
use livemerge_storage::{StorageId, VolumeRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The room that a merge was promised when it was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Bytes that the kept volume will take in addition.
    pub bytes: u64,
    /// Bytes that it took then.
    pub kept_bytes: u64,
}

impl Promise {
    /// The promise of a merge, and the volume for which it is, as long as it may take of it.
    pub(super) fn open(record: &MergeRecord) -> Option<(VolumeRef, Self)> {
        let open = !record.phase.ended() && record.promise.bytes > 0;
        open.then(|| (record.order.kept.volume.clone(), record.promise))
    }

    /// What is left of it, now that the kept volume takes so many bytes.
    fn left(self, kept_bytes: u64) -> u64 {
        let taken = kept_bytes.saturating_sub(self.kept_bytes);
        self.bytes.saturating_sub(taken)
    }
}

/// Room in the storage domains.
#[derive(Debug, Default)]
pub struct Room {
    promised: BTreeMap<StorageId, u64>,
    free_bytes: BTreeMap<StorageId, u64>,
}

impl Room {
    /// Without what these merges will still take of their promises.
    pub async fn beside(open: Vec<(VolumeRef, Promise)>, volumes: &Volumes) -> Self {
        let mut room = Self::default();
        for (kept, promise) in open {
            // What cannot be looked at may have taken nothing yet.
            let now = volumes.stat(&kept).await.map(|info| info.allocated_bytes);
            let left = promise.left(now.unwrap_or(0));
            *room.promised.entry(kept.storage).or_default() += left;
        }
        room
    }

    /// What other merges will still take in a domain.
    pub(super) fn promised(&self, storage: &StorageId) -> u64 {
        self.promised.get(storage).copied().unwrap_or(0)
    }

    /// What is left in a domain.
    pub async fn free(&mut self, storage: &StorageId, volumes: &Volumes) -> Result<u64, Problem> {
        if let Some(free) = self.free_bytes.get(storage) {
            return Ok(*free);
        }
        let free = volumes.space(storage).await?.free_bytes;
        let free = free.saturating_sub(self.promised(storage));
        self.free_bytes.insert(storage.clone(), free);
        Ok(free)
    }

    /// Promises what a merge needs.
    ///
    /// # Errors
    /// `INSUFFICIENT_SPACE`, or what did not answer.
    pub async fn take(
        &mut self,
        kept: &VolumeRef,
        work: &Work,
        volumes: &Volumes,
    ) -> Result<Promise, Problem> {
        let free = self.free(&kept.storage, volumes).await?;
        if let Some(refused) = want_of_space(kept, work, free) {
            return Err(refused);
        }
        if work.estimated || work.space_needed_bytes == 0 {
            return Ok(Promise::default());
        }
        let bytes = work.space_needed_bytes;
        let left = free.saturating_sub(bytes);
        self.free_bytes.insert(kept.storage.clone(), left);
        let kept_bytes = volumes.stat(kept).await?.allocated_bytes;
        Ok(Promise { bytes, kept_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_of_a_promise_is_not_promised_any_more() {
        let promise = Promise {
            bytes: 100,
            kept_bytes: 30,
        };
        for (kept_bytes, left) in [(0, 100), (30, 100), (31, 99), (129, 1), (130, 0), (500, 0)] {
            assert_eq!(promise.left(kept_bytes), left, "{kept_bytes}");
        }
    }
}
