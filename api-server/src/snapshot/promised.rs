//! Room that merges were promised in storage domains of several hosts.
//!
//! Each host keeps what it has promised itself, and sees no other host's. The server knows every open
//! merge, so with a question for a plan, and with an order, it says what those of other hosts were
//! promised. How much of that a merge has taken shows in its kept volume, wherever it is looked at.
//!
//! They are looked for among the operations that are shown, and not in the record, which would be read
//! whole for each of them. What a lane writes it shows before it asks: of two that order at the same time
//! at least one sees the other.
//!
//! Of two merges that are ordered at the same time, the one whose operation was accepted first does not
//! count the other one, as long as that one's host says that it has none of it: else both would be refused
//! where there is room for one. What a host does not say is counted, but not for ever: see [`GONE`].

use super::hub::Hub;
use super::types::{DeletePhase, Direction, DiskState, DiskTask, Operation, Work};
use crate::hosts::{HostStatus, HostView, Hosts, MergeSight, Promised, VmState};
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::ids::{HostId, MergeId, OperationId, VmId};
use livemerge_storage::StorageId;
use std::collections::BTreeSet;

/// So many are told at most, the largest ones: a host looks at the volume of each.
const MOST: usize = 64;

/// A host that was silent for so long is taken for gone: what its merges were promised refuses nobody room
/// any more. If it lives they go on, and whatever they have taken by then shows in their domain.
const GONE: SignedDuration = SignedDuration::from_hours(1);

/// What open merges of all hosts but this one were promised, if these are there at all; for an operation that orders its own, those
/// that were accepted before it, or that their hosts may have.
pub(super) fn promised_elsewhere(
    here: &HostId,
    by: Option<OperationId>,
    hub: &Hub,
    hosts: &Hosts,
    now: Timestamp,
) -> Vec<Promised> {
    let merging = hub.open_that(|operation| {
        operation.host.as_ref() != Some(here) && tasks_of(operation).next().is_some()
    });
    let others = merging.iter();
    let others = others.filter(|operation| !is_over(operation, hosts, now));
    let promised = others.flat_map(|operation| {
        let host = operation.host.as_ref().and_then(|host| hosts.get(host));
        let view = host.map(|(_, view)| view);
        let counts = move |task: &&DiskTask| {
            let earlier = by.is_none_or(|by| operation.id < by);
            earlier || may_have(view.as_ref(), task.merge)
        };
        tasks_of(operation).filter(counts).map(promise)
    });
    promised.collect()
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

/// Whether the merges of an operation are over though nobody says so: their host is silent, and has been
/// for so long that it is gone, or the machine runs on another one.
fn is_over(operation: &Operation, hosts: &Hosts, now: Timestamp) -> bool {
    let host = operation.host.as_ref().and_then(|host| hosts.get(host));
    let view = host.map(|(_, view)| view);
    if is_gone(view.as_ref(), hosts.opened_at(), now) {
        return true;
    }
    let is_silent = view.is_none_or(|view| view.status == HostStatus::Unresponsive);
    let elsewhere = hosts.of_vm(operation.vm);
    let elsewhere = elsewhere.filter(|other| Some(&other.id) != operation.host.as_ref());
    is_silent && elsewhere.is_some_and(|other| runs(&other.view.borrow(), operation.vm))
}

/// Whether a host has been silent for long enough, as a server knows that was opened then.
fn is_gone(host: Option<&HostView>, opened_at: Timestamp, now: Timestamp) -> bool {
    if host.is_some_and(|view| view.status != HostStatus::Unresponsive) {
        return false;
    }
    let heard_at = host.and_then(|view| view.last_seen_at);
    now.duration_since(heard_at.unwrap_or(opened_at)) >= GONE
}

fn runs(view: &HostView, vm: VmId) -> bool {
    let seen = view.vms.as_ref().and_then(|vms| vms.get(&vm));
    view.status == HostStatus::Up && seen.is_some_and(|seen| seen.state != VmState::ShutOff)
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
    fn a_host_is_gone_when_nobody_has_heard_it_for_long() {
        let at = |minutes: i64| Timestamp::from_second(60 * minutes).unwrap();
        let seen = |status, minutes| HostView {
            status,
            last_seen_at: Some(at(minutes)),
            ..HostView::unheard()
        };
        let (silent, unheard) = (HostStatus::Unresponsive, HostView::unheard());
        for (host, now, gone) in [
            (Some(&unheard), 159, false),
            (Some(&unheard), 160, true),
            (None, 159, false),
            (None, 160, true),
            (Some(&seen(silent, 130)), 189, false),
            (Some(&seen(silent, 130)), 190, true),
            (Some(&seen(silent, 130)), 20, false),
            (Some(&seen(HostStatus::Up, 130)), 900, false),
            (Some(&seen(HostStatus::Incompatible, 130)), 900, false),
        ] {
            assert_eq!(is_gone(host, at(100), at(now)), gone, "{host:?} at {now}");
        }
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
