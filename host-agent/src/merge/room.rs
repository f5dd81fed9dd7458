//! Room in the storage domains, promised once.
//!
//! ```text
//!   free in the domain  −  what open merges will still take  −  what merges before this one take
//!                             promised − (kept volume now − kept volume then)
//! ```
//!
//! Where volumes are given their room that comes in chunks, and a promise is of whole ones. A promise stands in the merge's record, so it holds after a restart too. What a merge has taken of
//! its promise shows in its kept volume and in the domain alike, and is not counted twice. Where volumes
//! take what is written, the guest fills the kept volume of a pull as well: there the whole promise stands
//! until it ends. What merges of other hosts were promised in one domain is told with each question and
//! order, and stands in the record of what was ordered, which takes none of it however late it is given its room.
//!
//! Where volumes are given their room, that of a merge which came to nothing stays with its kept volume:
//!
//! ```text
//!   given since the first of them was accepted  −  filled since  =  unused, and not needed of the domain
//! ```

use super::bytes::{Work, largest, want_of_space};
use super::chunks::Given;
use super::elsewhere::Elsewhere;
use super::types::{Direction, MergeOrder, MergeRecord, Phase, VolumeMark};
use crate::volumes::Volumes;
use futures::future::join_all;
use livemerge_proto::problem::Problem;
use livemerge_storage::{Format, StorageId, VolumeRef};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The room that a merge was promised when it was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Bytes that the kept volume will take in addition.
    pub bytes: u64,
    /// Bytes that it took then, or when the first one was accepted of the merges before that were given room
    /// in it and came to nothing; the most there are when how it grows does not show what the merge takes.
    pub kept_bytes: u64,
    /// Bytes of data that it had then; `None` when that is not known, or it takes no more than is written.
    #[serde(default)]
    pub kept_data_bytes: Option<u64>,
}

impl Promise {
    /// The promise of a merge, and the volume for which it is, as long as it may take of it.
    pub(super) fn open(record: &MergeRecord) -> Option<(VolumeRef, Self)> {
        let open = !record.phase.ended() && record.promise.bytes > 0;
        open.then(|| (record.order.kept.volume.clone(), record.promise))
    }

    /// What is left of it, now that the kept volume takes so many bytes.
    pub(super) fn left(self, kept_bytes: u64) -> u64 {
        let taken = kept_bytes.saturating_sub(self.kept_bytes);
        self.bytes.saturating_sub(taken)
    }

    /// What the kept volume was given since and has not filled, now that it takes so many bytes and has so
    /// many of data.
    pub(super) fn unused(self, kept_bytes: u64, data_bytes: Option<u64>) -> u64 {
        if self == Self::default() {
            // It is not known what it had.
            return 0;
        }
        let given = kept_bytes.saturating_sub(self.kept_bytes);
        given.saturating_sub(self.filled(data_bytes))
    }

    fn filled(self, data_bytes: Option<u64>) -> u64 {
        let filled = data_bytes.zip(self.kept_data_bytes);
        filled.map_or(0, |(now, then)| now.saturating_sub(then))
    }
}

/// What is known of volumes in which the merges of these records ended that came to nothing, from the
/// latest one of each on; nothing once one was merged.
pub(super) fn given_before<'a>(
    records: impl Iterator<Item = &'a MergeRecord>,
) -> Vec<(VolumeMark, Promise)> {
    let ended = records.filter_map(|record| Some((record.phase.ended_at()?, record)));
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable_by_key(|(at, record)| Reverse((*at, record.order.id)));
    let mut told: Vec<(&VolumeMark, Option<Promise>)> = Vec::new();
    for (_, record) in ended {
        let kept = &record.order.kept;
        let merged = matches!(record.phase, Phase::Merged { .. });
        let known = record.promise.kept_data_bytes.is_some();
        if (merged || known) && told.iter().all(|(other, _)| *other != kept) {
            told.push((kept, (!merged).then_some(record.promise)));
        }
    }
    let given = told
        .into_iter()
        .filter_map(|(kept, promise)| Some((kept.clone(), promise?)));
    given.collect()
}

/// Room in the storage domains.
#[derive(Debug, Default)]
pub struct Room {
    open: Vec<(VolumeRef, Promise)>,
    elsewhere: Vec<Elsewhere>,
    given: Vec<(VolumeMark, Promise)>,
    left: BTreeMap<StorageId, Left>,
}

/// What is left in a domain.
#[derive(Debug, Clone, Copy)]
struct Left {
    bytes: u64,
    /// No other merge will take of it: what is there of a chunk may be given.
    alone: bool,
}

impl Room {
    /// Without what these merges will still take of their promises. Nothing is asked before room in a
    /// domain is: one that hangs holds up nobody else.
    pub fn beside(open: Vec<(VolumeRef, Promise)>, elsewhere: Vec<Elsewhere>) -> Self {
        Self {
            open,
            elsewhere,
            given: vec![],
            left: BTreeMap::new(),
        }
    }

    /// With what these volumes have of merges that came to nothing.
    pub(super) fn given(self, given: Vec<(VolumeMark, Promise)>) -> Self {
        Self { given, ..self }
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
        Ok(self.left(storage, volumes).await?.bytes)
    }

    async fn left(&mut self, storage: &StorageId, volumes: &Volumes) -> Result<Left, Problem> {
        if let Some(left) = self.left.get(storage) {
            return Ok(*left);
        }
        let free = volumes.space(storage).await?.free_bytes;
        let promised = self.promised(storage, volumes).await;
        let left = Left {
            bytes: free.saturating_sub(promised),
            alone: promised == 0,
        };
        self.left.insert(storage.clone(), left);
        Ok(left)
    }

    /// Why a merge of the removed volumes in the kept one does not have the room that it needs, if it does
    /// not.
    ///
    /// # Errors
    /// What did not answer.
    pub(super) async fn want(
        &mut self,
        (kept, removed): (&VolumeMark, &[VolumeMark]),
        work: &Work,
        volumes: &Volumes,
    ) -> Result<Option<Problem>, Problem> {
        let left = self.left(&kept.volume.storage, volumes).await?;
        let lacking = self.lacking(kept, work, volumes).await?;
        let wanting = want_of_space(&kept.volume, &lacking, left.bytes);
        if wanting.is_some() || left.alone {
            return Ok(wanting);
        }
        let taken = Work {
            space_needed_bytes: self.taken((kept, removed), work, volumes).await?,
            ..lacking
        };
        let too_much = taken.space_needed_bytes > left.bytes;
        let wanting = || want_of_space(&kept.volume, &taken, left.bytes);
        Ok(too_much.then(wanting).flatten())
    }

    /// What a merge in this volume needs beside the room that was given to it before, and lies unused.
    async fn lacking(
        &self,
        kept: &VolumeMark,
        work: &Work,
        volumes: &Volumes,
    ) -> Result<Work, Problem> {
        match self.before(kept) {
            Some(before) if !work.estimated => {
                let has = volumes.stat(&kept.volume).await?.allocated_bytes;
                Ok(work.beside(before.unused(has, work.kept_data_bytes)))
            }
            _ => Ok(*work),
        }
    }

    /// What it will take of its domain.
    async fn taken(
        &self,
        (kept, removed): (&VolumeMark, &[VolumeMark]),
        work: &Work,
        volumes: &Volumes,
    ) -> Result<u64, Problem> {
        let lacking = self.lacking(kept, work, volumes).await?.space_needed_bytes;
        let Some(chunk) = volumes.chunk(&kept.volume.storage).filter(|_| lacking > 0) else {
            return Ok(lacking);
        };
        let mut info = volumes.stat(&kept.volume).await?;
        if info.format == Format::Raw {
            return Ok(lacking);
        }
        // It is made so large before it is given this.
        let layers: Vec<_> = removed
            .iter()
            .chain([kept])
            .map(|mark| &mark.volume)
            .collect();
        info.virtual_bytes = largest(&layers, volumes).await?;
        let (has, before) = (info.allocated_bytes, self.before(kept));
        let given = Given {
            has,
            unused: before.map_or(0, |before| before.unused(has, work.kept_data_bytes)),
            chunk,
            most: volumes.most_room(&info).unwrap_or(u64::MAX),
        };
        Ok(given.taken(work.space_needed_bytes))
    }

    fn before(&self, kept: &VolumeMark) -> Option<Promise> {
        let mut given = self.given.iter();
        given
            .find(|(of, _)| of == kept)
            .map(|(_, promise)| *promise)
    }

    /// Takes what a merge of the removed volumes in the kept one needs, and tells how much that is.
    ///
    /// # Errors
    /// `INSUFFICIENT_SPACE`, or what did not answer.
    pub async fn take(
        &mut self,
        (kept, removed): (&VolumeMark, &[VolumeMark]),
        work: &Work,
        volumes: &Volumes,
    ) -> Result<u64, Problem> {
        if let Some(refused) = self.want((kept, removed), work, volumes).await? {
            return Err(refused);
        }
        if work.estimated {
            return Ok(0);
        }
        let storage = &kept.volume.storage;
        let taken = self.taken((kept, removed), work, volumes).await?;
        let left = self.left(storage, volumes).await?;
        let left = Left {
            bytes: left.bytes.saturating_sub(taken),
            alone: left.alone && taken == 0,
        };
        self.left.insert(storage.clone(), left);
        Ok(taken)
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
        let kept = &order.kept;
        let taken = self.take((kept, &order.removed), work, volumes).await?;
        let known = volumes.gives(&kept.volume.storage) && work.kept_data_bytes.is_some();
        let needs = !work.estimated && work.space_needed_bytes > 0;
        let first = match (known || needs, order.direction) {
            (false, _) => Promise::default(),
            // The guest writes it: how it grows says nothing of the merge.
            (true, Direction::Pull) if !known => Promise {
                kept_bytes: u64::MAX,
                ..Promise::default()
            },
            (true, _) => Promise {
                kept_bytes: volumes.stat(&kept.volume).await?.allocated_bytes,
                kept_data_bytes: work.kept_data_bytes.filter(|_| known),
                ..Promise::default()
            },
        };
        // What was given before shows in the volume as what will be.
        let (promise, given) = match self.before(kept) {
            Some(before) => {
                let has = volumes.stat(&kept.volume).await?.allocated_bytes;
                (before, has.saturating_sub(before.kept_bytes))
            }
            None => (first, 0),
        };
        let bytes = taken.saturating_add(given);
        Ok(Promise {
            bytes: if needs { bytes } else { 0 },
            ..promise
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::now;
    use super::*;

    #[test]
    fn what_was_taken_of_a_promise_is_not_promised_any_more() {
        let promise = Promise {
            bytes: 100,
            kept_bytes: 30,
            kept_data_bytes: None,
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

    #[test]
    fn what_was_given_and_not_filled_is_unused() {
        let commit = Promise {
            bytes: 100,
            kept_bytes: 20,
            kept_data_bytes: Some(15),
        };
        for (kept_bytes, data_bytes, unused) in [
            (20, Some(15), 0),
            (130, Some(15), 110),
            // Some of it was copied.
            (130, Some(95), 30),
            (130, Some(200), 0),
            // Somebody has taken a part of it back.
            (50, Some(15), 30),
            (10, Some(5), 0),
            (130, None, 110),
        ] {
            let found = commit.unused(kept_bytes, data_bytes);
            assert_eq!(found, unused, "{kept_bytes} {data_bytes:?}");
        }
        let unknown = Promise::default();
        assert_eq!(unknown.unused(130, Some(15)), 0);
    }

    #[test]
    fn what_is_known_of_a_volume_is_of_the_latest_merge_in_it_that_came_to_nothing() {
        let record = |second: i64, phase: fn(jiff::Timestamp) -> Phase, data: Option<u64>| {
            let at = now() + jiff::SignedDuration::from_secs(second);
            MergeRecord {
                phase: phase(at),
                promise: Promise {
                    kept_data_bytes: data,
                    ..Promise::default()
                },
                ..super::super::samples::record(true)
            }
        };
        let cancelled = |at| Phase::Cancelled { at };
        let merged = |at| Phase::Merged { at };
        let open = |not_before| Phase::Ready { not_before };
        for (records, known) in [
            (vec![], None),
            (vec![record(1, cancelled, Some(7))], Some(7)),
            (
                vec![record(1, cancelled, Some(7)), record(2, cancelled, Some(8))],
                Some(8),
            ),
            (
                vec![record(2, cancelled, Some(7)), record(1, cancelled, Some(8))],
                Some(7),
            ),
            (
                vec![record(1, cancelled, Some(7)), record(2, cancelled, None)],
                Some(7),
            ),
            (
                vec![record(1, cancelled, Some(7)), record(2, open, Some(8))],
                Some(7),
            ),
            (
                vec![record(1, cancelled, Some(7)), record(2, merged, Some(8))],
                None,
            ),
            (
                vec![record(1, merged, None), record(2, cancelled, Some(8))],
                Some(8),
            ),
        ] {
            let given = given_before(records.iter());
            let found = given.first().and_then(|(_, given)| given.kept_data_bytes);
            assert_eq!(found, known, "{records:?}");
        }
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
