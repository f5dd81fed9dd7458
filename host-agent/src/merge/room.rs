//! Room in the storage domains, promised once.
//!
//! ```text
//!   free in the domain  −  what open merges will still take  −  what merges before this one take
//!                             promised − (kept volume now − kept volume then)
//! ```
//!
//! A promise stands in the merge's record, so it holds after a restart too. What a merge has taken of
//! its promise shows in its kept volume and in the domain alike, and is not counted twice; of a pull, whose
//! kept volume the guest fills as well, the whole promise stands until it ends. What merges of other hosts
//! were promised in one domain is told with each question and order.

use super::bytes::{Work, want_of_space};
use super::types::{Direction, MergeOrder, MergeRecord, VolumeMark};
use crate::volumes::Volumes;
use futures::future::join_all;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{StorageId, VolumeRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The room that a merge was promised when it was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Bytes that the kept volume will take in addition.
    pub bytes: u64,
    /// Bytes that it took then; the most there are when how it grows does not show what the merge takes.
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

/// The room that a merge of another host was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The volume that it writes.
    pub kept: VolumeMark,
    /// What it was promised.
    pub promise: Promise,
}

impl Elsewhere {
    /// What is left of it: nothing in a domain without that volume, which only has the id of the one that
    /// is meant.
    async fn left(&self, volumes: &Volumes) -> u64 {
        match volumes.stat(&self.kept.volume).await {
            Ok(info) if info.identity != self.kept.identity => 0,
            Ok(info) => self.promise.left(info.allocated_bytes),
            Err(problem) if problem.reason == Reason::VolumeNotFound => 0,
            Err(_) => self.promise.left(0),
        }
    }
}

/// Room in the storage domains.
#[derive(Debug, Default)]
pub struct Room {
    open: Vec<(VolumeRef, Promise)>,
    elsewhere: Vec<Elsewhere>,
    free_bytes: BTreeMap<StorageId, u64>,
}

impl Room {
    /// Without what these merges will still take of their promises. Nothing is asked before room in a
    /// domain is: one that hangs holds up nobody else.
    pub fn beside(open: Vec<(VolumeRef, Promise)>, elsewhere: Vec<Elsewhere>) -> Self {
        Self {
            open,
            elsewhere,
            free_bytes: BTreeMap::new(),
        }
    }

    /// What other merges will still take in a domain.
    pub(super) async fn promised(&self, storage: &StorageId, volumes: &Volumes) -> u64 {
        let open = self
            .open
            .iter()
            .filter(|(kept, _)| kept.storage == *storage);
        let left = open.map(async |(kept, promise)| {
            // What cannot be looked at may have taken nothing yet.
            let now = volumes.stat(kept).await.map(|info| info.allocated_bytes);
            promise.left(now.unwrap_or(0))
        });
        let elsewhere = self
            .elsewhere
            .iter()
            .filter(|promised| promised.kept.volume.storage == *storage);
        let elsewhere = elsewhere.map(|promised| promised.left(volumes));
        let (own, others) = tokio::join!(join_all(left), join_all(elsewhere));
        own.iter().chain(&others).sum()
    }

    /// What is left in a domain.
    pub async fn free(&mut self, storage: &StorageId, volumes: &Volumes) -> Result<u64, Problem> {
        if let Some(free) = self.free_bytes.get(storage) {
            return Ok(*free);
        }
        let free = volumes.space(storage).await?.free_bytes;
        let free = free.saturating_sub(self.promised(storage, volumes).await);
        self.free_bytes.insert(storage.clone(), free);
        Ok(free)
    }

    /// Takes what a merge in this volume needs.
    ///
    /// # Errors
    /// `INSUFFICIENT_SPACE`, or what did not answer.
    pub async fn take(
        &mut self,
        kept: &VolumeRef,
        work: &Work,
        volumes: &Volumes,
    ) -> Result<(), Problem> {
        let free = self.free(&kept.storage, volumes).await?;
        if let Some(refused) = want_of_space(kept, work, free) {
            return Err(refused);
        }
        if !work.estimated {
            let left = free.saturating_sub(work.space_needed_bytes);
            self.free_bytes.insert(kept.storage.clone(), left);
        }
        Ok(())
    }

    /// The same, and promises it to the merge.
    ///
    /// # Errors
    /// As [`Room::take`].
    pub async fn promise(
        &mut self,
        order: &MergeOrder,
        work: &Work,
        volumes: &Volumes,
    ) -> Result<Promise, Problem> {
        let kept = &order.kept.volume;
        self.take(kept, work, volumes).await?;
        if work.estimated || work.space_needed_bytes == 0 {
            return Ok(Promise::default());
        }
        Ok(Promise {
            bytes: work.space_needed_bytes,
            kept_bytes: match order.direction {
                Direction::Commit => volumes.stat(kept).await?.allocated_bytes,
                // The guest writes it: how it grows says nothing of the merge.
                Direction::Pull => u64::MAX,
            },
        })
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
        let of_a_pull = Promise {
            kept_bytes: u64::MAX,
            ..promise
        };
        assert_eq!(of_a_pull.left(1 << 40), 100);
    }

    /// A record of an earlier build has none, and stands in nobody's way.
    #[test]
    fn a_record_without_a_promise_is_read() {
        let mut record = serde_json::to_value(super::super::samples::record(true)).unwrap();
        record.as_object_mut().unwrap().remove("promise").unwrap();
        let record: MergeRecord = serde_json::from_value(record).unwrap();
        assert_eq!(record.promise, Promise::default());
        assert_eq!(Promise::open(&record), None);
    }
}
