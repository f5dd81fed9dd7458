//! What the public API can ask for: checks first, then it is accepted (`accept.rs`), and the machine's
//! lane does the work.

use super::hub::{Hub, OperationView};
use super::lane::Surroundings;
use super::plan::{plan_create, plan_delete};
use super::types::{
    CreatePhase, DeletePhase, EventKind, NewEvent, Operation, OperationState, Severity, Snapshot,
    SnapshotState, Work,
};
use crate::hosts::{HostError, Hosts, VmChains};
use crate::store::{RequestRecord, Store, StoreError};
use livemerge_proto::ids::{OperationId, RequestId, SnapshotId, SnapshotName, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Asks for a snapshot.
#[derive(Debug, Clone)]
pub struct CreateOrder {
    /// The request.
    pub request: RequestRecord,
    /// Who asks.
    pub caller: String,
    /// Of which machine.
    pub vm: VmId,
    /// Its name.
    pub name: SnapshotName,
    /// Free text.
    pub description: String,
}

/// Asks for a snapshot's deletion.
#[derive(Debug, Clone)]
pub struct DeleteOrder {
    /// The request.
    pub request: RequestRecord,
    /// Who asks.
    pub caller: String,
    /// Which.
    pub snapshot: SnapshotId,
    /// The revision that it must have, if any.
    pub revision: Option<u64>,
    /// Whether a missing one is no error.
    pub allow_missing: bool,
}

/// The snapshots of all machines, and the operations on them.
pub struct Snapshots {
    pub(super) around: Arc<Surroundings>,
    pub(super) lanes: Mutex<HashMap<VmId, mpsc::UnboundedSender<Operation>>>,
    /// Held while one operation is accepted: a lane's order is the order of acceptance, and the
    /// record says rightly which one waits.
    pub(super) accepting: tokio::sync::Mutex<()>,
}

impl Snapshots {
    /// Over a store and hosts. Goes on with every operation that has not ended.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn open(
        store: Arc<dyn Store>,
        hosts: Arc<Hosts>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StoreError> {
        let around = Surroundings {
            store,
            hosts,
            hub: Arc::default(),
            clock,
        };
        let snapshots = Arc::new(Self {
            around: Arc::new(around),
            lanes: Mutex::default(),
            accepting: tokio::sync::Mutex::default(),
        });
        let open = snapshots.around.store.open_operations().await?;
        let now = snapshots.around.clock.now();
        let resumed: Vec<NewEvent> = open
            .iter()
            .map(|operation| resumed(operation, now))
            .collect();
        if !resumed.is_empty() {
            snapshots.around.store.add_events(&resumed).await?;
        }
        for operation in open {
            snapshots.enqueue(operation);
        }
        Ok(snapshots)
    }

    /// The open operations as they are shown.
    pub fn hub(&self) -> &Hub {
        &self.around.hub
    }

    /// Accepts the taking of a snapshot.
    ///
    /// # Errors
    /// Says why not; nothing was done then.
    pub async fn create(&self, order: CreateOrder) -> Result<OperationView, Problem> {
        let request = order.request.clone();
        match self.try_create(order).await {
            Err(refused) => self.repeated(&request).await?.ok_or(refused),
            accepted => accepted,
        }
    }

    async fn try_create(&self, order: CreateOrder) -> Result<OperationView, Problem> {
        if let Some(known) = self.repeated(&order.request).await? {
            return Ok(known);
        }
        self.known_vm(order.vm).await?;
        if !self.has_open(order.vm).await? {
            plan_create(&self.look(order.vm).await?, &mut Uuid::now_v7)?;
        }
        let now = self.around.clock.now();
        let snapshot = Snapshot {
            id: SnapshotId::from(Uuid::now_v7()),
            vm: order.vm,
            name: order.name,
            description: order.description,
            state: SnapshotState::Creating,
            was_incomplete: false,
            disks: vec![],
            created_at: now,
            revision: 0,
        };
        let work = Work::Create(CreatePhase::Planning);
        let operation = self.operation(&snapshot, work, order.request.id, &order.caller);
        let text = format!("snapshot {} was asked for", snapshot.name);
        let event = requested(
            &operation,
            EventKind::SnapshotCreateRequested,
            text,
            order.caller,
        );
        self.accept(&order.request, operation, snapshot, event)
            .await
    }

    /// Accepts the deletion of a snapshot; `None` when it is missing and that is allowed.
    ///
    /// # Errors
    /// Says why not; nothing was done then.
    pub async fn delete(&self, order: DeleteOrder) -> Result<Option<OperationView>, Problem> {
        let request = order.request.clone();
        match self.try_delete(order).await {
            Err(refused) => self.repeated(&request).await?.ok_or(refused).map(Some),
            accepted => accepted,
        }
    }

    async fn try_delete(&self, order: DeleteOrder) -> Result<Option<OperationView>, Problem> {
        if let Some(known) = self.repeated(&order.request).await? {
            return Ok(Some(known));
        }
        let Some(snapshot) = self.around.store.snapshot(order.snapshot).await? else {
            return if order.allow_missing {
                Ok(None)
            } else {
                Err(no_snapshot(order.snapshot))
            };
        };
        deletable(&snapshot, order.revision)?;
        if !self.has_open(snapshot.vm).await? {
            let chains = self.look(snapshot.vm).await?;
            let (_, others) = self.around.snapshots(snapshot.vm, snapshot.id).await?;
            plan_delete(&snapshot, &others, &chains, &mut Uuid::now_v7)?;
        }
        let work = Work::Delete(DeletePhase::Planning);
        let operation = self.operation(&snapshot, work, order.request.id, &order.caller);
        let text = format!("the deletion of snapshot {} was asked for", snapshot.name);
        let event = requested(
            &operation,
            EventKind::SnapshotDeleteRequested,
            text,
            order.caller,
        );
        self.accept(&order.request, operation, snapshot.deleting(), event)
            .await
            .map(Some)
    }

    /// An operation as it stands.
    ///
    /// # Errors
    /// `OPERATION_NOT_FOUND`, or that the store does not answer.
    pub async fn operation_view(&self, id: OperationId) -> Result<OperationView, Problem> {
        if let Some(open) = self.around.hub.get(id) {
            return Ok(open);
        }
        let ended = self.around.store.operation(id).await?;
        ended.map(OperationView::durable).ok_or_else(|| {
            Problem::new(
                Reason::OperationNotFound,
                format!("there is no operation {id}"),
            )
            .with("operation", id)
        })
    }

    /// As [`Self::operation_view`], for operations that were just read from the store.
    pub fn shown(&self, operation: Operation) -> OperationView {
        self.around
            .hub
            .get(operation.id)
            .unwrap_or_else(|| OperationView::durable(operation))
    }

    async fn known_vm(&self, vm: VmId) -> Result<(), Problem> {
        let known =
            self.around.store.vm(vm).await?.is_some() || self.around.hosts.of_vm(vm).is_some();
        if known { Ok(()) } else { Err(no_vm(vm)) }
    }

    /// Looks at the machine, so that what cannot be done is refused before it is accepted.
    async fn look(&self, vm: VmId) -> Result<VmChains, Problem> {
        let host = self.around.hosts.of_vm(vm).ok_or_else(|| {
            let text = format!("no host that answers has virtual machine {vm}");
            Problem::new(Reason::VmStateUnknown, text).with("vm", vm)
        })?;
        let chains = host.agent.chains(vm, None).await;
        chains.map_err(HostError::into_problem)
    }

    fn operation(
        &self,
        snapshot: &Snapshot,
        work: Work,
        request: RequestId,
        caller: &str,
    ) -> Operation {
        let now = self.around.clock.now();
        Operation {
            id: OperationId::from(Uuid::now_v7()),
            vm: snapshot.vm,
            snapshot: snapshot.id,
            snapshot_name: snapshot.name.clone(),
            state: OperationState::Queued,
            work,
            host: None,
            request,
            requested_by: caller.to_owned(),
            obstacle: None,
            created_at: now,
            started_at: None,
            ended_at: None,
            revision: 0,
        }
    }
}

pub(super) fn deletable(snapshot: &Snapshot, revision: Option<u64>) -> Result<(), Problem> {
    if revision.is_some_and(|wanted| wanted != snapshot.revision) {
        let text = format!(
            "snapshot {} has changed since its etag was read",
            snapshot.name
        );
        return Err(Problem::new(Reason::EtagMismatch, text).with("snapshot", snapshot.id));
    }
    let doing = match snapshot.state {
        SnapshotState::Ready | SnapshotState::Incomplete => return Ok(()),
        SnapshotState::Creating => "taken",
        SnapshotState::Deleting => "deleted",
    };
    let text = format!("snapshot {} is being {doing}", snapshot.name);
    Err(Problem::new(Reason::SnapshotNotReady, text).with("snapshot", snapshot.id))
}

fn requested(operation: &Operation, kind: EventKind, message: String, caller: String) -> NewEvent {
    NewEvent {
        actor: Some(caller),
        ..about(operation, kind, message, operation.created_at)
    }
}

fn resumed(operation: &Operation, now: jiff::Timestamp) -> NewEvent {
    about(
        operation,
        EventKind::OperationResumed,
        "the server has started and goes on".to_owned(),
        now,
    )
}

fn about(
    operation: &Operation,
    kind: EventKind,
    message: String,
    now: jiff::Timestamp,
) -> NewEvent {
    NewEvent {
        kind,
        severity: Severity::Info,
        occurred_at: now,
        host: operation.host.clone(),
        vm: Some(operation.vm),
        snapshot: Some(operation.snapshot),
        operation: Some(operation.id),
        actor: None,
        message,
        details: std::collections::BTreeMap::new(),
    }
}

pub(crate) fn no_snapshot(id: SnapshotId) -> Problem {
    Problem::new(
        Reason::SnapshotNotFound,
        format!("there is no snapshot {id}"),
    )
    .with("snapshot", id)
}

pub(crate) fn no_vm(vm: VmId) -> Problem {
    Problem::new(
        Reason::VmNotFound,
        format!("no host has reported virtual machine {vm}"),
    )
    .with("vm", vm)
}
