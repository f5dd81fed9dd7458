//! What clients ask of the server, as its service takes it: the checks, then one transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use livemerge_api_server::snapshot::{
    Consistency, CreatePhase, DeletePhase, MergeOptions, Operation, OperationState, Origin,
    Quiesce, Snapshot, SnapshotState, Work,
};
use livemerge_api_server::store::{Change, SnapshotChange};
use livemerge_proto::ids::{OperationId, RequestId, SnapshotId, VmId};
use uuid::Uuid;

use super::server::Server;

/// The clients.
#[derive(Debug, Default)]
pub(super) struct Client {
    asked: u128,
}

impl Client {
    /// A request id that was never used.
    pub(super) fn next_request(&mut self) -> RequestId {
        self.asked += 1;
        RequestId::from(Uuid::from_u128(self.asked))
    }
}

impl Server {
    /// Accepts the taking of a snapshot, or gives what the request got before. `None` when the
    /// server does not run.
    pub(super) fn create(
        &mut self,
        request: RequestId,
        vm: VmId,
        now: Duration,
    ) -> Option<OperationId> {
        if let Some(known) = self.repeated(request) {
            return known;
        }
        let wall = self.clock.at(now);
        let snapshot = Snapshot {
            id: SnapshotId::from(self.process.as_mut()?.ids.next(wall)),
            vm,
            name: format!("s{}", Uuid::from(request).as_u128())
                .parse()
                .expect("a name"),
            description: String::new(),
            state: SnapshotState::Creating,
            was_incomplete: false,
            disks: vec![],
            created_at: wall,
            revision: 0,
            labels: BTreeMap::new(),
            deletion_protected: false,
            consistency: Consistency::Unknown,
            origin: Origin::Requested,
        };
        let work = Work::Create(CreatePhase::Planning);
        let options = MergeOptions::default();
        self.accept(request, work, vec![snapshot], options, now)
    }

    /// Accepts the deletion of snapshots, or gives what the request got before. `None` when it is
    /// refused, or the server does not run.
    pub(super) fn delete(
        &mut self,
        request: RequestId,
        snapshots: &[SnapshotId],
        options: MergeOptions,
        now: Duration,
    ) -> Option<OperationId> {
        if let Some(known) = self.repeated(request) {
            return known;
        }
        let record = &self.record.snapshots;
        let named = snapshots.iter().map(|id| record.get(id).cloned());
        let mut named: Vec<Snapshot> = named.collect::<Option<_>>()?;
        named.sort_by_key(|snapshot| snapshot.id);
        let settled = |snapshot: &Snapshot| {
            let state = snapshot.state;
            matches!(state, SnapshotState::Ready | SnapshotState::Incomplete)
        };
        if named.is_empty() || !named.iter().all(settled) {
            return None;
        }
        let work = Work::Delete(DeletePhase::Planning);
        let named = named.into_iter().map(Snapshot::deleting).collect();
        self.accept(request, work, named, options, now)
    }

    /// What a request that was accepted before gets, if the server runs.
    fn repeated(&self, request: RequestId) -> Option<Option<OperationId>> {
        let known = self.record.repeated(request)?;
        Some(self.process.is_some().then_some(known))
    }

    fn accept(
        &mut self,
        request: RequestId,
        work: Work,
        snapshots: Vec<Snapshot>,
        options: MergeOptions,
        now: Duration,
    ) -> Option<OperationId> {
        let wall = self.clock.at(now);
        let snapshot = snapshots.first()?;
        let process = self.process.as_mut()?;
        let queued = self.record.open_operations().next().is_some();
        let operation = Operation {
            id: OperationId::from(process.ids.next(wall)),
            vm: snapshot.vm,
            snapshot: snapshot.id,
            snapshot_name: snapshot.name.clone(),
            batch: snapshots[1..].iter().map(|other| other.id).collect(),
            options,
            cancel_requested: false,
            quiesce: Quiesce::IfPossible,
            state: if queued {
                OperationState::Queued
            } else {
                OperationState::Running
            },
            work,
            host: None,
            request,
            requested_by: "a client".to_owned(),
            trace: None,
            obstacle: None,
            created_at: wall,
            started_at: (!queued).then_some(wall),
            ended_at: None,
            revision: 0,
        };
        let id = operation.id;
        let change = Change {
            operation,
            snapshots: snapshots.into_iter().map(SnapshotChange::Put).collect(),
            events: vec![],
        };
        self.record.accept(request, &change).ok()?;
        process.enqueue(id);
        Some(id)
    }
}
