//! The server's durable record in memory, as the contract of the store says.

use std::collections::BTreeMap;

use livemerge_api_server::snapshot::{NewEvent, Operation, Snapshot};
use livemerge_api_server::store::{Change, SnapshotChange};
use livemerge_proto::ids::{OperationId, RequestId, SnapshotId};

/// What a restarted server finds.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) generation: u64,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    pub(super) snapshots: BTreeMap<SnapshotId, Snapshot>,
    pub(super) events: Vec<NewEvent>,
    requests: BTreeMap<RequestId, OperationId>,
    /// Operations as they were accepted, whatever a clock said then.
    accepted: Vec<OperationId>,
}

/// The record is another one than the change builds on. Nothing was written.
#[derive(Debug)]
pub(super) struct Conflict;

impl Record {
    /// The operation of a request that was accepted before.
    pub(super) fn repeated(&self, request: RequestId) -> Option<OperationId> {
        self.requests.get(&request).copied()
    }

    /// Operations that have not ended, the one that was accepted first before the others.
    pub(super) fn open_operations(&self) -> impl Iterator<Item = &Operation> {
        let accepted = self.accepted.iter().map(|id| &self.operations[id]);
        accepted.filter(|operation| !operation.state.ended())
    }

    /// Accepts a request: all or nothing.
    pub(super) fn accept(&mut self, request: RequestId, change: &Change) -> Result<(), Conflict> {
        self.apply(change)?;
        self.requests.insert(request, change.operation.id);
        self.accepted.push(change.operation.id);
        Ok(())
    }

    /// Makes a change: all or nothing.
    pub(super) fn apply(&mut self, change: &Change) -> Result<Operation, Conflict> {
        let stored = self.operations.get(&change.operation.id);
        let fits = stored.map_or(0, |stored| stored.revision) == change.operation.revision
            && change.snapshots.iter().all(|snapshot| self.fits(snapshot));
        if !fits {
            return Err(Conflict);
        }
        let mut operation = change.operation.clone();
        operation.revision += 1;
        self.operations.insert(operation.id, operation.clone());
        for snapshot in &change.snapshots {
            match snapshot {
                SnapshotChange::Put(snapshot) => {
                    let mut snapshot = snapshot.clone();
                    snapshot.revision += 1;
                    self.snapshots.insert(snapshot.id, snapshot);
                }
                SnapshotChange::Delete(id) => drop(self.snapshots.remove(id)),
            }
        }
        self.events.extend(change.events.iter().cloned());
        Ok(operation)
    }

    fn fits(&self, change: &SnapshotChange) -> bool {
        match change {
            SnapshotChange::Delete(_) => true,
            SnapshotChange::Put(snapshot) => {
                let stored = self.snapshots.get(&snapshot.id);
                stored.map_or(0, |stored| stored.revision) == snapshot.revision
            }
        }
    }
}
