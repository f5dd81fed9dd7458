//! Room that merges of other hosts were promised in domains that this host has, too, as the server tells it.

use super::chunks::Given;
use super::room::Promise;
use super::types::{MergeRecord, VolumeMark};
use crate::volumes::Volumes;
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::reason::Reason;
use serde::{Deserialize, Serialize};

/// So long it counts what was told with an order: whether those merges are still there, or their host, is
/// not told again. What they have taken by then shows in the domain.
const COUNTS: SignedDuration = SignedDuration::from_hours(1);

/// What was told with a merge's order and still counts.
pub(super) fn told_elsewhere(record: &MergeRecord, now: Timestamp) -> &[Elsewhere] {
    if now.duration_since(record.accepted_at) < COUNTS {
        &record.elsewhere
    } else {
        &[]
    }
}

/// The room that a merge of another host was promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The volume that it writes.
    pub kept: VolumeMark,
    /// What it was promised.
    pub promise: Promise,
    /// Bytes that the volume took then, where it has only the room that it is given: the guest fills that,
    /// too, and takes none.
    #[serde(default)]
    pub kept_room_bytes: Option<u64>,
}

impl Elsewhere {
    /// What is left of it: nothing in a domain without that volume, which only has the id of the one that
    /// is meant.
    pub(super) async fn left(&self, volumes: &Volumes) -> u64 {
        let promise = self.promise_in(volumes);
        match volumes.stat(&self.kept.volume).await {
            Ok(info) if info.identity != self.kept.identity => 0,
            Ok(info) => promise.left(info.allocated_bytes),
            Err(problem) if problem.reason == Reason::VolumeNotFound => 0,
            Err(_) => promise.left(0),
        }
    }

    /// The promise as its host has made it in its domain.
    fn promise_in(&self, volumes: &Volumes) -> Promise {
        let chunk = volumes.chunk(&self.kept.volume.storage);
        let Some((kept_bytes, chunk)) = self.kept_room_bytes.zip(chunk) else {
            return self.promise;
        };
        let given = Given {
            has: kept_bytes,
            unused: 0,
            chunk,
            most: u64::MAX,
        };
        Promise {
            bytes: given.taken(self.promise.bytes),
            kept_bytes,
            ..self.promise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{now, record};
    use super::*;

    #[test]
    fn what_was_told_with_an_order_counts_for_an_hour() {
        let order = record(true);
        let told = Elsewhere {
            kept: order.order.kept.clone(),
            promise: Promise::default(),
            kept_room_bytes: None,
        };
        let order = MergeRecord {
            elsewhere: vec![told],
            ..order
        };
        let minutes = |minutes| now() + SignedDuration::from_mins(minutes);
        assert_eq!(told_elsewhere(&order, minutes(-10)).len(), 1);
        assert_eq!(told_elsewhere(&order, minutes(59)).len(), 1);
        assert_eq!(told_elsewhere(&order, minutes(60)).len(), 0);
    }
}
