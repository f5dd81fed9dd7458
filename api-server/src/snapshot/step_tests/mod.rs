//! The decisions of an operation, row by row, and what must hold for all of them.

mod create;
mod delete;
mod plan;
mod properties;
mod refusal;
mod told;

use super::step::{Answer, Ask, Observation, Sign, Step, step};
use super::types::{
    CreatePhase, DeletePhase, DiskState, DiskTask, EventKind, Failure, Mark, NewOverlay, Obstacle,
    Operation, OperationState, Severity, Snapshot, SnapshotDisk, SnapshotState, Told, Work,
};
use crate::hosts::{
    Chain, HostError, Layer, LayerFormat, MergePhase, MergeSeen, MergeSight, Removed, VmChains,
    VmState,
};
use crate::store::{Change, SnapshotChange};
use jiff::Timestamp;
use livemerge_proto::ids::{MergeId, OperationId, RequestId, SnapshotId, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{RemovalId, VolumeRef};
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
    };
    Chain {
        disk: disk.parse().unwrap(),
        layers: layers.iter().map(layer).collect(),
        job_running: false,
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
        state: OperationState::Running,
        work,
        request: RequestId::from(Uuid::now_v7()),
        host: None,
        requested_by: "test".to_owned(),
        obstacle: None,
        created_at: now(),
        started_at: Some(now()),
        ended_at: None,
        revision: 1,
    }
}

fn task(disk: &str, base: &str, top: &str, state: DiskState) -> DiskTask {
    DiskTask {
        disk: disk.parse().unwrap(),
        base: mark(base),
        top: mark(top),
        earlier: None,
        active: false,
        merge: MergeId::from(Uuid::now_v7()),
        removal: RemovalId::from(Uuid::now_v7()),
        state,
        told: Told::default(),
    }
}

fn removing() -> DiskState {
    DiskState::Removing {
        copied_bytes: 5,
        longest_pause: Duration::ZERO,
    }
}

fn merge(phase: MergePhase) -> MergeSight {
    MergeSight::Seen(MergeSeen {
        phase,
        done_bytes: 5,
        total_bytes: 9,
        pivot_attempts: 0,
        longest_pause: Duration::from_millis(7),
        revision: 1,
    })
}

fn running(chains: Vec<Chain>) -> VmChains {
    VmChains {
        state: Some(VmState::Running),
        chains,
    }
}

fn read(chains: Vec<Chain>) -> Answer {
    Answer::Chains(running(chains))
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

/// What is seen, with nothing special.
struct Seen<'a> {
    snapshot: Option<&'a Snapshot>,
    others: &'a [Snapshot],
    merge: MergeSight,
    answer: Option<Answer>,
    attempts: u32,
    begun: bool,
    unseen: Duration,
}

impl<'a> Seen<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot: Some(snapshot),
            others: &[],
            merge: MergeSight::Absent,
            answer: None,
            attempts: 0,
            begun: false,
            unseen: Duration::ZERO,
        }
    }

    fn decide(&self, operation: &Operation) -> Step {
        let seen = Observation {
            snapshot: self.snapshot,
            others: self.others,
            host: None,
            merge: self.merge.clone(),
            unseen: self.unseen,
            answer: self.answer.as_ref(),
            attempts: self.attempts,
            refusals: self.attempts,
            begun: self.begun,
        };
        step(operation, &seen, now(), &mut Uuid::now_v7)
    }
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

fn tasks(change: &Change) -> &[DiskTask] {
    match &change.operation.work {
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
