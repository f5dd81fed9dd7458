//! Storage domains, and what they keep of what was removed.

use super::{VolumeDocument, volume};
use crate::output::text::{seconds, time};
use livemerge_proto::v1;
use serde::Serialize;
use std::sync::LazyLock;

#[derive(Debug, Serialize)]
pub(crate) struct StorageDocument<'a> {
    host_id: &'a str,
    id: &'a str,
    free_bytes: i64,
    total_bytes: i64,
    promised_bytes: i64,
    thin: bool,
    provided: bool,
    keep_seconds: Option<f64>,
    wipe: bool,
    discard: bool,
    foreign: &'a [String],
    problem: &'a str,
}

impl<'a> From<&'a v1::HostStorage> for StorageDocument<'a> {
    fn from(of: &'a v1::HostStorage) -> Self {
        static NONE: LazyLock<v1::Storage> = LazyLock::new(v1::Storage::default);
        let storage = of.storage.as_ref().unwrap_or(&NONE);
        Self {
            host_id: &of.host_id,
            id: &storage.id,
            free_bytes: storage.free_bytes,
            total_bytes: storage.total_bytes,
            promised_bytes: storage.promised_bytes,
            thin: storage.thin,
            provided: storage.provided,
            keep_seconds: seconds(storage.keep_for.as_ref()),
            wipe: storage.wipe,
            discard: storage.discard,
            foreign: &storage.foreign,
            problem: &storage.problem,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct RemovalDocument<'a> {
    id: &'a str,
    volume: Option<VolumeDocument<'a>>,
    identity: &'a str,
    condemned_at: Option<String>,
    keep_until: Option<String>,
}

impl<'a> From<&'a v1::Removal> for RemovalDocument<'a> {
    fn from(removal: &'a v1::Removal) -> Self {
        Self {
            id: &removal.id,
            volume: volume(removal.volume.as_ref()),
            identity: &removal.identity,
            condemned_at: time(removal.condemned_at.as_ref()),
            keep_until: time(removal.keep_until.as_ref()),
        }
    }
}
