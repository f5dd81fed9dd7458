//! Records for the checks, and for an adapter's own tests. Those with the same number are the same;
//! ids grow with the number.

use crate::snapshot::{
    Consistency, CreatePhase, Event, EventKind, Failure, HostRecord, MergeOptions, NewEvent,
    Operation, OperationState, Origin, Quiesce, Severity, Snapshot, SnapshotState, VmRecord, Work,
};
use crate::store::{Change, EventFilter, Page, RequestRecord, SnapshotChange, StateName, Store};
use jiff::Timestamp;
use livemerge_proto::ids::SnapshotId;
use livemerge_proto::reason::Reason;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Before the first id; a UUID of version 7.
const ZERO: u128 = 0x0192_f0c1_2b1a_7000_8000_0000_0000_0000;

/// The id of a number.
pub fn id<T: From<Uuid>>(number: u64) -> T {
    T::from(Uuid::from_u128(ZERO + u128::from(number)))
}

/// A second of 1970.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A host of a name.
pub fn host(name: &str, generation: u64) -> HostRecord {
    let endpoint = format!("http://{name}:7421");
    HostRecord {
        id: name.parse().unwrap(),
        endpoint,
        generation,
        version: "0.1.0".to_owned(),
    }
}

/// A machine that was seen on a host.
pub fn vm(number: u64, name: &str, host: &str) -> VmRecord {
    VmRecord {
        id: id(number),
        name: name.to_owned(),
        host: host.parse().unwrap(),
    }
}

/// A snapshot of a machine that is being taken, not stored yet.
pub fn snapshot(number: u64, vm: u64, name: &str) -> Snapshot {
    Snapshot {
        id: id(number),
        vm: id(vm),
        name: name.parse().unwrap(),
        description: String::new(),
        origin: Origin::Requested,
        labels: Default::default(),
        deletion_protected: false,
        consistency: Consistency::Unknown,
        state: SnapshotState::Creating,
        was_incomplete: false,
        disks: vec![],
        created_at: at(1_000),
        revision: 0,
    }
}

/// A queued operation on a machine, not stored yet.
pub fn operation(number: u64, vm: u64) -> Operation {
    Operation {
        id: id(number),
        vm: id(vm),
        snapshot: id(number),
        snapshot_name: "a".parse().unwrap(),
        batch: vec![],
        options: MergeOptions::default(),
        cancel_requested: false,
        quiesce: Quiesce::IfPossible,
        state: OperationState::Queued,
        work: Work::Create(CreatePhase::Planning),
        request: id(number),
        host: None,
        requested_by: "127.0.0.1".to_owned(),
        trace: None,
        obstacle: None,
        created_at: at(1_000),
        started_at: None,
        ended_at: None,
        revision: 0,
    }
}

/// The states, by name.
pub fn state(name: StateName) -> OperationState {
    match name {
        StateName::Queued => OperationState::Queued,
        StateName::Running => OperationState::Running,
        StateName::Succeeded => OperationState::Succeeded,
        StateName::Failed => OperationState::Failed(Failure::new(Reason::VmDied, "it stopped")),
        StateName::Cancelled => OperationState::Cancelled,
    }
}

/// An entry of the log about nothing.
pub fn event(message: &str) -> NewEvent {
    NewEvent {
        kind: EventKind::SnapshotCreateRequested,
        severity: Severity::Info,
        occurred_at: at(1_000),
        host: None,
        vm: None,
        snapshot: None,
        operation: None,
        actor: None,
        message: message.to_owned(),
        details: BTreeMap::new(),
    }
}

/// A request of a number; all have the same payload.
pub fn request(number: u64) -> RequestRecord {
    RequestRecord {
        id: id(number),
        fingerprint: "create".to_owned(),
    }
}

/// Only the operation.
pub fn change(operation: &Operation) -> Change {
    Change {
        operation: operation.clone(),
        snapshots: vec![],
        events: vec![],
    }
}

/// The operation, a snapshot, an entry of the log.
pub fn full_change(operation: &Operation, snapshot: &Snapshot, message: &str) -> Change {
    let snapshots = vec![SnapshotChange::Put(snapshot.clone())];
    Change {
        snapshots,
        events: vec![event(message)],
        ..change(operation)
    }
}

/// More than any check writes.
pub fn everything<K>() -> Page<K> {
    Page {
        after: None,
        limit: 100_000,
    }
}

/// The whole audit log.
pub async fn log(store: &dyn Store) -> Vec<Event> {
    store
        .events(&EventFilter::default(), &everything())
        .await
        .unwrap()
}

/// The texts of the audit log.
pub async fn messages(store: &dyn Store) -> Vec<String> {
    log(store)
        .await
        .into_iter()
        .map(|event| event.entry.message)
        .collect()
}

/// The ids of all snapshots.
pub async fn snapshot_ids(store: &dyn Store) -> Vec<SnapshotId> {
    let all = store.snapshots(None, &everything()).await.unwrap();
    all.into_iter().map(|snapshot| snapshot.id).collect()
}
