//! The storage domains of the site, and what was removed from them.

use super::{FREED, GIB, KEPT, at};
use livemerge_proto::v1;
use prost_types::Duration;

/// One that keeps what it removes and has other things in it, and one that does not.
pub(super) fn storages() -> Vec<v1::HostStorage> {
    let storage = |host: &str, keep_for, foreign: &[&str]| v1::HostStorage {
        host_id: host.into(),
        storage: Some(v1::Storage {
            id: "default".into(),
            free_bytes: 30 * GIB,
            total_bytes: 100 * GIB,
            promised_bytes: 2 * GIB,
            keep_for,
            foreign: foreign.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }),
    };
    let day = Duration {
        seconds: 86_400,
        nanos: 0,
    };
    vec![
        storage("host-1", Some(day), &["lost+found", "notes.txt"]),
        storage("host-2", None, &[]),
    ]
}

/// One that is kept, and one that is being freed.
pub(super) fn removals() -> Vec<v1::Removal> {
    let removal = |id: &str, name: &str, keep_until| v1::Removal {
        id: id.into(),
        volume: Some(v1::VolumeRef {
            storage: "default".into(),
            name: name.into(),
        }),
        state: v1::RemovalState::Condemned.into(),
        freed_bytes: 0,
        condemned_at: at(0),
        keep_until,
        identity: "12-34".into(),
    };
    vec![
        removal(KEPT, "web-1.qcow2", at(86_400)),
        removal(FREED, "web-2.qcow2", None),
    ]
}
