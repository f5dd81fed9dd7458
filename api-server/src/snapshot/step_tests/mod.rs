//! The decisions of an operation, row by row, and what must hold for all of them.

mod cancel;
mod costs;
mod create;
mod create_properties;
mod delete;
mod history;
mod left;
mod limit;
mod look;
mod needed;
mod plan;
mod properties;
mod refusal;
mod rounds;
mod runs;
mod together;
mod told;

use look::{Record, Seen};
use needed::needed;

use super::foreseen::Foreseen;
use super::needed_by;
use super::step::{
    Answer, Ask, Observation, Sign, Step, Wait, awaited_merges, next_removals, step,
};
use super::types::{
    Consistency, CreatePhase, DeletePhase, Deleted, Direction, DiskState, DiskTask, EventKind,
    Failure, Leaving, Mark, MergeKind, MergeOptions, Merging, NewOverlay, Obstacle, Operation,
    OperationState, Origin, Quiesce, Severity, Snapshot, SnapshotDisk, SnapshotState, Told, Work,
};
use crate::hosts::{
    Chain, HostError, Layer, LayerFormat, Measured, MeasuredWay, MergeOrder, MergePhase, MergeSeen,
    MergeSight, RemovalOrder, Removals, Removed, UnsupportedDisk, VmChains, VmState,
};
use crate::store::{Change, SnapshotChange};
use jiff::Timestamp;
use livemerge_proto::ids::{MergeId, OperationId, RequestId, SnapshotId, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{RemovalId, VolumeRef};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn volume(name: &str) -> VolumeRef {
    VolumeRef {
        storage: "default".parse().unwrap(),
        name: format!("{name}.qcow2").parse().unwrap(),
    }
}

fn mark(name: &str) -> Mark {
    Mark {
        volume: volume(name),
        identity: format!("id-{name}").parse().unwrap(),
    }
}

fn chain(disk: &str, layers: &[&str]) -> Chain {
    let layer = |name: &&str| Layer {
        mark: Some(mark(name)),
        locator: format!("/images/{name}.qcow2"),
        format: LayerFormat::Qcow2,
        virtual_bytes: 1 << 30,
        allocated_bytes: 1 << 20,
        shared_with: vec![],
        encrypted: false,
        bitmaps: vec![],
    };
    Chain {
        disk: disk.parse().unwrap(),
        layers: layers.iter().map(layer).collect(),
        job_running: false,
        libvirt_snapshots: vec![],
        guest_discards: false,
    }
}

fn snapshot(name: &str, disks: &[(&str, &str)]) -> Snapshot {
    let disk = |(disk, frozen): &(&str, &str)| SnapshotDisk {
        disk: disk.parse().unwrap(),
        volume: volume(frozen),
        merging: None,
    };
    Snapshot {
        id: SnapshotId::from(Uuid::now_v7()),
        vm: VmId::from(Uuid::from_u128(7)),
        name: name.parse().unwrap(),
        description: String::new(),
        origin: Origin::Requested,
        labels: BTreeMap::new(),
        deletion_protected: false,
        consistency: Consistency::Unknown,
        state: SnapshotState::Deleting,
        was_incomplete: false,
        disks: disks.iter().map(disk).collect(),
        created_at: now(),
        revision: 1,
    }
}

fn operation(snapshot: &Snapshot, work: Work) -> Operation {
    Operation {
        id: OperationId::from(Uuid::now_v7()),
        vm: snapshot.vm,
        snapshot: snapshot.id,
        snapshot_name: snapshot.name.clone(),
        batch: vec![],
        options: MergeOptions::default(),
        cancel_requested: false,
        quiesce: Quiesce::IfPossible,
        state: OperationState::Running,
        work,
        request: RequestId::from(Uuid::now_v7()),
        host: None,
        requested_by: "test".to_owned(),
        trace: None,
        obstacle: None,
        created_at: now(),
        started_at: Some(now()),
        ended_at: None,
        revision: 1,
    }
}

/// An operation that deletes several snapshots.
fn batch(snapshots: &[Snapshot], work: Work) -> Operation {
    Operation {
        batch: snapshots[1..].iter().map(|snapshot| snapshot.id).collect(),
        ..operation(&snapshots[0], work)
    }
}

/// A delete with these merges.
fn disks(tasks: Vec<DiskTask>) -> Work {
    Work::Delete(DeletePhase::Disks(tasks))
}

fn planning() -> Work {
    Work::Delete(DeletePhase::Planning)
}

/// A commit, of which these snapshots are deleted.
fn task(
    snapshots: &[Snapshot],
    disk: &str,
    kept: &str,
    removed: &[&str],
    state: DiskState,
) -> DiskTask {
    let leaving = |name: &&str| Leaving {
        volume: mark(name),
        removal: RemovalId::from(Uuid::now_v7()),
    };
    let deleted = |snapshot: &Snapshot| Deleted {
        snapshot: snapshot.id,
        earlier: None,
    };
    DiskTask {
        disk: disk.parse().unwrap(),
        round: 0,
        kind: MergeKind::Commit,
        kept: mark(kept),
        removed: removed.iter().map(leaving).collect(),
        deletes: snapshots.iter().map(deleted).collect(),
        merge: MergeId::from(Uuid::now_v7()),
        planned_bytes: 4,
        foreseen: Foreseen::default(),
        state,
        told: Told::default(),
    }
}

/// Of an intermediate commit or a pull of which the host has not said that it was done.
fn begun(kept: &str, removed: &[&str]) -> Merging {
    Merging {
        chain_tells: false,
        ..merging(kept, removed)
    }
}

fn merging(kept: &str, removed: &[&str]) -> Merging {
    Merging {
        kept: mark(kept),
        removed: removed.iter().map(|name| mark(name)).collect(),
        chain_tells: true,
    }
}

fn removing() -> DiskState {
    DiskState::Removing {
        copied_bytes: 5,
        longest_pause: Duration::ZERO,
        gone: 0,
        freed_bytes: 0,
        copy_time: Duration::from_secs(2),
    }
}

fn removed() -> DiskState {
    DiskState::Removed {
        copied_bytes: 5,
        longest_pause: Duration::ZERO,
        freed_bytes: 3,
        copy_time: Duration::from_secs(2),
    }
}

fn died() -> Failure {
    Failure::new(Reason::VmDied, "it died")
}

fn merge(phase: MergePhase) -> MergeSight {
    MergeSight::Seen(MergeSeen {
        phase,
        done_bytes: 5,
        total_bytes: 9,
        pivot_attempts: 0,
        longest_pause: Duration::from_millis(7),
        copy_time: Duration::from_secs(2),
        bytes_per_second: 0,
        limit_lifted: false,
        guest_bytes_per_second: 0,
        waiting: None,
        overlaid: false,
        revision: 1,
    })
}

fn is_gone() -> Removed {
    Removed {
        gone: true,
        freed_bytes: 3,
        kept_until: None,
        by: None,
    }
}

/// That the first of what is removed next is gone, and no word of the others, as an agent answers that
/// takes one at a time.
fn gone(operation: &Operation) -> Answer {
    let first = next_removals(operation).into_iter().take(1);
    Answer::Removals(first.map(|it| (it.removal, Ok(is_gone()))).collect())
}

/// That all of it is gone.
fn all_gone(orders: &[RemovalOrder]) -> Answer {
    let gone = |order: &RemovalOrder| (order.id, Ok(is_gone()));
    Answer::Removals(orders.iter().map(gone).collect())
}

fn running(chains: Vec<Chain>) -> VmChains {
    VmChains {
        state: Some(VmState::Running),
        chains,
        unsupported: vec![],
    }
}

fn read(chains: Vec<Chain>) -> Answer {
    Answer::Chains(running(chains))
}

/// What a plan is made from.
fn surveyed(chains: Vec<Chain>) -> Answer {
    Answer::Survey(running(chains), vec![])
}

fn refused(reason: Reason) -> Answer {
    Answer::Error(HostError::Refused(Problem::new(reason, "no")))
}

fn unknown() -> Answer {
    Answer::Error(HostError::Unknown(Problem::new(
        Reason::HostUnreachable,
        "silence",
    )))
}

/// The operation after it has told what is in its way.
fn hindered(operation: &Operation, reason: Reason) -> Operation {
    let obstacle = Obstacle {
        cause: Failure::new(reason, "in the way"),
        since: now(),
    };
    Operation {
        obstacle: Some(obstacle),
        ..operation.clone()
    }
}

fn note(step: Step) -> Change {
    match step {
        Step::Note(change) => *change,
        other => panic!("expected a note, got {other:?}"),
    }
}

fn change(step: Step) -> Change {
    match step {
        Step::Enter(change) => *change,
        other => panic!("expected a change, got {other:?}"),
    }
}

fn wait(step: Step) -> Wait {
    match step {
        Step::Wait(wait) => wait,
        other => panic!("expected a wait, got {other:?}"),
    }
}

fn ask(step: Step) -> Ask {
    match step {
        Step::Ask(ask) => ask,
        other => panic!("expected a question, got {other:?}"),
    }
}

fn orders(step: Step) -> Vec<MergeOrder> {
    match ask(step) {
        Ask::Merges(orders) => orders,
        other => panic!("expected orders, got {other:?}"),
    }
}

fn removals(step: Step) -> Vec<RemovalOrder> {
    match ask(step) {
        Ask::Removals(orders) => orders,
        other => panic!("expected removals, got {other:?}"),
    }
}

/// The first of them.
fn removal(step: Step) -> RemovalOrder {
    removals(step).swap_remove(0)
}

fn tasks(change: &Change) -> &[DiskTask] {
    work(&change.operation)
}

fn work(operation: &Operation) -> &[DiskTask] {
    match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks,
        other => panic!("expected disks, got {other:?}"),
    }
}

fn kinds(change: &Change) -> Vec<EventKind> {
    change.events.iter().map(|event| event.kind).collect()
}

fn put(change: &Change, id: SnapshotId) -> Option<&Snapshot> {
    change.snapshots.iter().find_map(|snapshot| match snapshot {
        SnapshotChange::Put(snapshot) if snapshot.id == id => Some(snapshot),
        _ => None,
    })
}

fn deletes(change: &Change, id: SnapshotId) -> bool {
    change
        .snapshots
        .iter()
        .any(|snapshot| matches!(snapshot, SnapshotChange::Delete(gone) if *gone == id))
}
