//! Room that merges were promised in storage domains of several hosts.
//!
//! Each host keeps what it has promised itself, and sees no other host's. The server knows every open
//! merge, so with a question for a plan, and with an order, it says what those of other hosts will still
//! take. What such a merge has copied shows in the domain already, and counts no more.

use super::hub::Hub;
use super::types::{DeletePhase, DiskState, Operation, Work};
use crate::hosts::Promised;
use crate::store::{Store, StoreError};
use livemerge_proto::ids::{HostId, MergeId};

/// What open merges of all hosts but this one will still take.
pub(super) async fn promised_elsewhere(
    here: &HostId,
    store: &dyn Store,
    hub: &Hub,
) -> Result<Vec<Promised>, StoreError> {
    let mut promised = Vec::new();
    for operation in store.open_operations().await? {
        if operation.host.as_ref() != Some(here) {
            let view = hub.get(operation.id);
            promised.extend(promised_to(&operation, |merge| {
                let seen = &view.as_ref()?.merges.get(&merge)?.seen;
                (seen.total_bytes > 0).then(|| seen.total_bytes.saturating_sub(seen.done_bytes))
            }));
        }
    }
    Ok(promised)
}

/// What those merges of an operation that were ordered will still take; `left` is what one has still to
/// copy, where that is seen.
fn promised_to(operation: &Operation, left: impl Fn(MergeId) -> Option<u64>) -> Vec<Promised> {
    let Work::Delete(DeletePhase::Disks(tasks)) = &operation.work else {
        return vec![];
    };
    let merging = tasks
        .iter()
        .filter(|task| matches!(task.state, DiskState::Merging));
    let promised = merging.map(|task| {
        let needed = task.foreseen.needed_bytes;
        Promised {
            kept: task.kept.clone(),
            bytes: left(task.merge).map_or(needed, |left| needed.min(left)),
        }
    });
    promised.filter(|promised| promised.bytes > 0).collect()
}
