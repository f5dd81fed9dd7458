//! Room that merges were promised in storage domains of several hosts.
//!
//! Each host keeps what it has promised itself, and sees no other host's. The server knows every open
//! merge, so with a question for a plan, and with an order, it says what those of other hosts were
//! promised. How much of that a merge has taken shows in its kept volume, wherever it is looked at.
//!
//! Of two merges that are ordered at the same time, the one whose operation was accepted first does not
//! count the other one, as long as that one's host says that it has none of it: else both would be refused
//! where there is room for one. What a host does not say is counted.

use super::types::{DeletePhase, Direction, DiskState, DiskTask, Operation, Work};
use crate::hosts::{HostStatus, HostView, Hosts, MergeSight, Promised};
use crate::store::{Store, StoreError};
use livemerge_proto::ids::{HostId, MergeId, OperationId};
use livemerge_storage::StorageId;
use std::collections::BTreeSet;

/// So many are told at most, the largest ones: a host looks at the volume of each.
const MOST: usize = 64;

/// What open merges of all hosts but this one were promised; for an operation that orders its own, those
/// that were accepted before it, or that their hosts may have.
pub(super) async fn promised_elsewhere(
    here: &HostId,
    by: Option<OperationId>,
    store: &dyn Store,
    hosts: &Hosts,
) -> Result<Vec<Promised>, StoreError> {
    let open = store.open_operations().await?;
    let others = open
        .iter()
        .filter(|operation| operation.host.as_ref() != Some(here));
    let promised = others.flat_map(|operation| {
        let host = operation.host.as_ref().and_then(|host| hosts.get(host));
        let view = host.map(|(_, view)| view);
        let counts = move |task: &&DiskTask| {
            let earlier = by.is_none_or(|by| operation.id < by);
            earlier || may_have(view.as_ref(), task.merge)
        };
        tasks_of(operation).filter(counts).map(promise)
    });
    Ok(promised.collect())
}

/// Those of a domain in which the volumes lie that are asked for.
pub(super) fn in_domains(promised: &[Promised], storages: &BTreeSet<&StorageId>) -> Vec<Promised> {
    let told = promised.iter();
    let told = told.filter(|promised| storages.contains(&promised.kept.volume.storage));
    let mut told: Vec<Promised> = told.cloned().collect();
    told.sort_by_key(|promised| std::cmp::Reverse(promised.bytes));
    told.truncate(MOST);
    told
}

/// Whether a host may have a merge: all but one that answers, and says that it has not.
fn may_have(host: Option<&HostView>, merge: MergeId) -> bool {
    host.is_none_or(|view| view.status != HostStatus::Up || view.merge(merge) != MergeSight::Absent)
}

/// The merges of an operation that were ordered and were promised room. Nothing is for bytes that were
/// only guessed: its own host promises none either.
fn tasks_of(operation: &Operation) -> impl Iterator<Item = &DiskTask> {
    let tasks = match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks.as_slice(),
        _ => &[],
    };
    tasks.iter().filter(|task| {
        let known = !task.foreseen.guessed && task.foreseen.needed_bytes > 0;
        known && matches!(task.state, DiskState::Merging)
    })
}

fn promise(task: &DiskTask) -> Promised {
    Promised {
        kept: task.kept.clone(),
        bytes: task.foreseen.needed_bytes,
        // Of a pull the guest fills the kept volume, too: how it grows tells nothing.
        kept_bytes: (task.kind.direction() == Direction::Commit)
            .then_some(task.foreseen.kept_bytes),
        kept_room_bytes: task.foreseen.kept_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Mark;
    use livemerge_storage::VolumeRef;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use uuid::Uuid;

    /// As of a server that was just started, too.
    #[test]
    fn only_a_host_that_answers_can_say_that_it_has_no_merge() {
        let merge = MergeId::from(Uuid::now_v7());
        let unheard = HostView::unheard();
        let up = HostView {
            status: HostStatus::Up,
            merges: Some(Arc::new(BTreeMap::new())),
            ..HostView::unheard()
        };
        let silent = HostView {
            status: HostStatus::Unresponsive,
            ..up.clone()
        };
        let half_heard = HostView {
            merges: None,
            ..up.clone()
        };
        for host in [None, Some(&unheard), Some(&silent), Some(&half_heard)] {
            assert!(may_have(host, merge), "{host:?}");
        }
        assert!(!may_have(Some(&up), merge));
    }

    #[test]
    fn what_many_merges_were_promised_in_one_domain_hides_nothing_of_another() {
        let promised = |storage: &str, bytes| Promised {
            kept: Mark {
                volume: VolumeRef {
                    storage: storage.parse().unwrap(),
                    name: format!("v{bytes}").parse().unwrap(),
                },
                identity: "id".parse().unwrap(),
            },
            bytes,
            kept_bytes: None,
            kept_room_bytes: 0,
        };
        let mut all: Vec<_> = (100..300).map(|bytes| promised("many", bytes)).collect();
        all.push(promised("own", 1));
        let own: StorageId = "own".parse().unwrap();
        let told = in_domains(&all, &BTreeSet::from([&own]));
        assert_eq!(told, [promised("own", 1)]);
        let many: StorageId = "many".parse().unwrap();
        let told = in_domains(&all, &BTreeSet::from([&many]));
        let bytes: Vec<_> = told.iter().map(|promised| promised.bytes).collect();
        assert_eq!((bytes.len(), bytes[0]), (MOST, 299), "the largest ones");
    }
}
