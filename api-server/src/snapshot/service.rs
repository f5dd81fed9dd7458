//! What the public API can ask for: checks first, then one transaction that accepts, then the
//! machine's lane does the work.

use super::hub::{Hub, OperationView};
use super::lane::{Run, Surroundings};
use super::plan::{plan_create, plan_delete};
use super::types::{
    CreatePhase, DeletePhase, EventKind, NewEvent, Operation, OperationState, Severity, Snapshot,
    SnapshotState, Work,
};
use crate::hosts::{Hosts, VmState};
use crate::store::{
    Accepted, Change, OperationFilter, Page, RequestRecord, SnapshotChange, StateName, Store,
    StoreError,
};
use livemerge_proto::ids::{OperationId, RequestId, SnapshotId, SnapshotName, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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
    around: Arc<Surroundings>,
    lanes: Mutex<HashMap<VmId, mpsc::UnboundedSender<Operation>>>,
    /// Held while one operation is accepted: a lane's order is the order of acceptance, and the
    /// record says rightly which one waits.
    accepting: tokio::sync::Mutex<()>,
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
            let (state, chains) = self.look(order.vm).await?;
            plan_create(state, &chains, &mut Uuid::now_v7)?;
        }
        let now = self.around.clock.now();
        let snapshot = Snapshot {
            id: SnapshotId::from(Uuid::now_v7()),
            vm: order.vm,
            name: order.name,
            description: order.description,
            state: SnapshotState::Creating,
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
            let (state, chains) = self.look(snapshot.vm).await?;
            plan_delete(&snapshot, state, &chains, &mut Uuid::now_v7)?;
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
        let deleting = Snapshot {
            state: SnapshotState::Deleting,
            ..snapshot
        };
        self.accept(&order.request, operation, deleting, event)
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

    /// The operation that the request has got already, driven from now on if it is not: an
    /// acceptance may have become durable though its answer was an error. What is refused asks here
    /// once more, because the same request may have been accepted beside it.
    async fn repeated(&self, request: &RequestRecord) -> Result<Option<OperationView>, Problem> {
        let known = self.around.store.repeated(request).await?;
        Ok(known.map(|operation| self.driven(operation)))
    }

    fn driven(&self, operation: Operation) -> OperationView {
        if !operation.state.ended() {
            self.enqueue(operation.clone());
        }
        self.shown(operation)
    }

    async fn known_vm(&self, vm: VmId) -> Result<(), Problem> {
        let known =
            self.around.store.vm(vm).await?.is_some() || self.around.hosts.of_vm(vm).is_some();
        if known { Ok(()) } else { Err(no_vm(vm)) }
    }

    async fn has_open(&self, vm: VmId) -> Result<bool, Problem> {
        let states = vec![StateName::Queued, StateName::Running];
        let filter = OperationFilter {
            vm: Some(vm),
            states,
        };
        let open = self
            .around
            .store
            .operations(
                &filter,
                &Page {
                    after: None,
                    limit: 1,
                },
            )
            .await?;
        Ok(!open.is_empty())
    }

    /// Looks at the machine, so that what cannot be done is refused before it is accepted.
    async fn look(&self, vm: VmId) -> Result<(Option<VmState>, Vec<crate::hosts::Chain>), Problem> {
        let host = self.around.hosts.of_vm(vm).ok_or_else(|| {
            let text = format!("no host that answers has virtual machine {vm}");
            Problem::new(Reason::VmStateUnknown, text).with("vm", vm)
        })?;
        let state = host
            .view
            .borrow()
            .vms
            .as_ref()
            .and_then(|vms| vms.get(&vm).map(|vm| vm.state));
        let chains = host
            .agent
            .chains(vm, None)
            .await
            .map_err(crate::hosts::HostError::into_problem)?;
        Ok((state, chains))
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

    async fn accept(
        &self,
        request: &RequestRecord,
        mut operation: Operation,
        snapshot: Snapshot,
        event: NewEvent,
    ) -> Result<OperationView, Problem> {
        let (id, name) = (snapshot.id, snapshot.name.clone());
        let _one_at_a_time = self.accepting.lock().await;
        if !self.has_open(operation.vm).await? {
            operation.state = OperationState::Running;
            operation.started_at = Some(operation.created_at);
        }
        let change = Change {
            operation,
            snapshots: vec![SnapshotChange::Put(snapshot)],
            events: vec![event],
        };
        fail::fail_point!("api::before-accept");
        let accepted = self.around.store.accept(request, &change).await;
        fail::fail_point!("api::after-accept");
        match accepted {
            Ok(Accepted::New(operation) | Accepted::Repeated(operation)) => {
                Ok(self.driven(operation))
            }
            Err(StoreError::NameTaken) => {
                let text = format!("the virtual machine has a snapshot named {name}");
                Err(Problem::new(Reason::SnapshotAlreadyExists, text).with("name", name))
            }
            Err(StoreError::Conflict(text)) => {
                // Most likely another delete was faster: then that is what is said.
                if let Some(now) = self.around.store.snapshot(id).await? {
                    deletable(&now, None)?;
                }
                Err(StoreError::Conflict(text).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hands an operation to its machine's lane, unless it is there: whatever is open and shown is
    /// in a lane. A lane works one after the other.
    fn enqueue(&self, operation: Operation) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.around.hub.get(operation.id).is_some() {
            return;
        }
        let shown = OperationView::durable(operation.clone());
        self.around.hub.show(shown);
        let lane = lanes
            .entry(operation.vm)
            .or_insert_with(|| start_lane(Arc::clone(&self.around)));
        if let Err(unsent) = lane.send(operation) {
            tracing::error!(vm = %unsent.0.vm, "a lane has died; another one takes its place");
            *lane = start_lane(Arc::clone(&self.around));
            let _to_a_new_lane = lane.send(unsent.0);
        }
    }
}

fn start_lane(around: Arc<Surroundings>) -> mpsc::UnboundedSender<Operation> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(operation) = receiver.recv().await {
            Run::new(Arc::clone(&around), operation).finish().await;
        }
    });
    sender
}

fn deletable(snapshot: &Snapshot, revision: Option<u64>) -> Result<(), Problem> {
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

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Conflict(_) => Reason::ConcurrentChange,
            StoreError::NameTaken => Reason::SnapshotAlreadyExists,
            StoreError::RequestIdReused => Reason::RequestIdReused,
            StoreError::Stale { .. } => Reason::StaleGeneration,
            StoreError::Unavailable(_) | StoreError::Unknown(_) => Reason::StoreUnavailable,
            StoreError::Corrupt(_) => Reason::InternalBug,
        };
        if matches!(reason, Reason::StoreUnavailable | Reason::InternalBug) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the record cannot be used"
            );
        }
        match error {
            StoreError::Corrupt(_) => Self::new(reason, "internal error"),
            other => Self::new(reason, other.to_string()),
        }
    }
}
