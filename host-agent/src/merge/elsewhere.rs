//! Room that merges of other hosts were promised in domains that this host has, too, as the server tells it.

use super::chunks::Given;
use super::room::Promise;
use super::types::VolumeMark;
use crate::volumes::Volumes;
use livemerge_proto::reason::Reason;
use serde::{Deserialize, Serialize};

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
