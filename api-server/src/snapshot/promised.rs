//! Room that merges were promised in storage domains of several hosts.
//!
//! Each host keeps what it has promised itself, and sees no other host's. The server knows every open
//! merge, so with a question for a plan, and with an order, it says what those of other hosts were
//! promised. How much of that a merge has taken shows in its kept volume, wherever it is looked at.
//!
//! Of two merges that are ordered at the same time, the one whose operation was accepted first does not
//! count the other one, as long as no host has shown that: else both would be refused where there is room
//! for one.

use super::hub::Hub;
use super::types::{DeletePhase, Direction, DiskState, Operation, Work};
use crate::hosts::Promised;
use crate::store::{Store, StoreError};
use livemerge_proto::ids::{HostId, OperationId};

/// So many are told at most, the largest ones: a host looks at the volume of each.
const MOST: usize = 64;

/// What open merges of all hosts but this one were promised; for an operation that orders its own, those
/// that were accepted before it, or that their hosts show.
pub(super) async fn promised_elsewhere(
    here: &HostId,
    by: Option<OperationId>,
    store: &dyn Store,
    hub: &Hub,
) -> Result<Vec<Promised>, StoreError> {
    let open = store.open_operations().await?;
    let others = open.iter().filter(|operation| {
        let elsewhere = operation.host.as_ref() != Some(here);
        let shown = || {
            hub.get(operation.id)
                .is_some_and(|view| !view.merges.is_empty())
        };
        elsewhere && by.is_none_or(|by| operation.id < by || shown())
    });
    let mut promised: Vec<Promised> = others.flat_map(promised_to).collect();
    promised.sort_by_key(|promised| std::cmp::Reverse(promised.bytes));
    promised.truncate(MOST);
    Ok(promised)
}

/// What those merges of an operation were promised that were ordered. Nothing is for bytes that were only
/// guessed: its own host promises none either.
fn promised_to(operation: &Operation) -> impl Iterator<Item = Promised> {
    let tasks = match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks.as_slice(),
        _ => &[],
    };
    let promised = tasks.iter().filter(|task| {
        let known = !task.foreseen.guessed && task.foreseen.needed_bytes > 0;
        known && matches!(task.state, DiskState::Merging)
    });
    promised.map(|task| Promised {
        kept: task.kept.clone(),
        bytes: task.foreseen.needed_bytes,
        // Of a pull the guest fills the kept volume, too: how it grows tells nothing.
        kept_bytes: (task.kind.direction() == Direction::Commit)
            .then_some(task.foreseen.kept_bytes),
    })
}
