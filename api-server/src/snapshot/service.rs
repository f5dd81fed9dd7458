//! What the public API can ask for: checks first, then it is accepted (`accept.rs`), and the machine's
//! lane does the work.

use super::accepting::Accepting;
use super::create::plan_create;
use super::details;
use super::hub::{Hub, OperationView};
use super::lane::{Known, Run};
use super::plan::{Wanted, plan_delete};
use super::surroundings::Surroundings;
use super::turns::{Limits, Turns};
use super::types::{
    Consistency, CreatePhase, DeletePhase, EventKind, MergeOptions, NewEvent, Operation,
    OperationState, Origin, Quiesce, Severity, Snapshot, SnapshotState, Work,
};
use crate::hosts::{HostError, HostHandle, Hosts, VmChains};
use crate::store::{RequestRecord, Store, StoreError};
use livemerge_proto::ids::{OperationId, RequestId, SnapshotId, SnapshotName, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Clock, DurableSpan, Shutdown};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
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
    /// What its owner notes of it.
    pub labels: BTreeMap<String, String>,
    /// Whether deletes are refused until that is taken back.
    pub deletion_protected: bool,
    /// Whether the guest is frozen for it.
    pub quiesce: Quiesce,
}

/// Asks for the deletion of snapshots of one machine.
#[derive(Debug, Clone)]
pub struct DeleteOrder {
    /// The request.
    pub request: RequestRecord,
    /// Who asks.
    pub caller: String,
    /// The machine, when the request names it.
    pub vm: Option<VmId>,
    /// Which.
    pub snapshots: Vec<SnapshotId>,
    /// The revision that each must have, if any.
    pub revision: Option<u64>,
    /// Whether a missing one is no error.
    pub allow_missing: bool,
    /// How the data are merged.
    pub options: MergeOptions,
}

/// Of each machine where its lane takes operations. They are sent as pointers: a lane keeps room for many.
pub(super) type Lanes = HashMap<VmId, mpsc::UnboundedSender<Box<Run>>>;

/// The snapshots of all machines, and the operations on them.
pub struct Snapshots {
    pub(super) around: Arc<Surroundings>,
    pub(super) lanes: Mutex<Lanes>,
    /// The lanes' tasks.
    pub(super) working: TaskTracker,
    pub(super) accepting: Accepting,
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
        limits: Limits,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, StoreError> {
        let around = Surroundings {
            turns: Turns::new(limits),
            store,
            hosts,
            hub: Arc::default(),
            clock,
            shutdown,
        };
        let snapshots = Arc::new(Self {
            around: Arc::new(around),
            lanes: Mutex::default(),
            working: TaskTracker::new(),
            accepting: Accepting::default(),
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
        for operation in &open {
            let around = Arc::clone(&snapshots.around);
            let known = Known::by(&around.hub);
            let mut run = Run::new(around, operation.clone(), known);
            if run.merges() {
                let turn = run.take_turn().await;
                snapshots.around.turns.put_by(operation.id, turn);
            }
        }
        snapshots.enqueue_all(open);
        Ok(snapshots)
    }

    /// Waits, once the server stops, until every lane stands between two steps. What was asked of a
    /// host is answered then, or its time was over; merges go on without.
    pub async fn stopped(&self) {
        self.working.close();
        self.working.wait().await;
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
        self.takes_work(order.vm)?;
        if !self.has_open(order.vm).await? {
            plan_create(&self.look(order.vm).await?, &mut Uuid::now_v7)?;
        }
        let now = self.around.clock.now();
        let snapshot = Snapshot {
            id: SnapshotId::from(Uuid::now_v7()),
            vm: order.vm,
            name: order.name,
            description: order.description,
            origin: Origin::Requested,
            labels: order.labels,
            deletion_protected: order.deletion_protected,
            consistency: Consistency::Unknown,
            state: SnapshotState::Creating,
            was_incomplete: false,
            disks: vec![],
            created_at: now,
            revision: 0,
        };
        let work = Work::Create(CreatePhase::Planning);
        let operation = Operation {
            quiesce: order.quiesce,
            ..self.operation(&snapshot, work, order.request.id, &order.caller)
        };
        let text = format!("snapshot {} was asked for", snapshot.name);
        let event = requested(
            &operation,
            EventKind::SnapshotCreateRequested,
            text,
            order.caller,
        );
        self.accept(&order.request, operation, vec![snapshot], vec![event])
            .await
    }

    /// Accepts the deletion of snapshots; `None` when all are missing and that is allowed.
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
        let deletes = self
            .named(&order.snapshots, order.vm, order.allow_missing)
            .await?;
        let Some(oldest) = deletes.first() else {
            return Ok(None);
        };
        for snapshot in &deletes {
            deletable(snapshot, order.revision)?;
        }
        self.takes_work(oldest.vm)?;
        if !self.has_open(oldest.vm).await? {
            let chains = self.look(oldest.vm).await?;
            let named = deletes.iter().map(|snapshot| snapshot.id).collect();
            let (_, others) = self.around.snapshots(oldest.vm, &named).await?;
            let wanted = Wanted {
                deletes: &deletes,
                others: &others,
                options: &order.options,
            };
            plan_delete(&wanted, &chains, &[], &mut Uuid::now_v7)?;
        }
        let work = Work::Delete(DeletePhase::Planning);
        let operation = Operation {
            batch: deletes[1..].iter().map(|snapshot| snapshot.id).collect(),
            options: order.options,
            ..self.operation(oldest, work, order.request.id, &order.caller)
        };
        let events = deletes.iter().map(|snapshot| {
            let text = format!("the deletion of snapshot {} was asked for", snapshot.name);
            let kind = EventKind::SnapshotDeleteRequested;
            NewEvent {
                snapshot: Some(snapshot.id),
                ..requested(&operation, kind, text, order.caller.clone())
            }
        });
        let events = events.collect();
        let deleting = deletes.into_iter().map(Snapshot::deleting).collect();
        self.accept(&order.request, operation, deleting, events)
            .await
            .map(Some)
    }

    /// The snapshots of these ids, oldest first, all of one machine.
    pub(super) async fn named(
        &self,
        ids: &[SnapshotId],
        vm: Option<VmId>,
        allow_missing: bool,
    ) -> Result<Vec<Snapshot>, Problem> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.around.store.snapshot(*id).await? {
                Some(snapshot) => found.push(snapshot),
                None if allow_missing => {}
                None => return Err(no_snapshot(*id)),
            }
        }
        found.sort_by_key(|snapshot| snapshot.id);
        let vm = vm.or_else(|| found.first().map(|snapshot| snapshot.vm));
        if let Some(foreign) = found.iter().find(|snapshot| Some(snapshot.vm) != vm) {
            let text = format!("snapshot {} is of another virtual machine", foreign.id);
            return Err(Problem::new(Reason::SnapshotNotFound, text).with("snapshot", foreign.id));
        }
        Ok(found)
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
        let now = self.around.clock.now();
        let ended = ended.map(|ended| OperationView::durable(ended, now));
        ended.ok_or_else(|| {
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
            .unwrap_or_else(|| OperationView::durable(operation, self.around.clock.now()))
    }

    async fn known_vm(&self, vm: VmId) -> Result<(), Problem> {
        let known =
            self.around.store.vm(vm).await?.is_some() || self.around.hosts.of_vm(vm).is_some();
        if known { Ok(()) } else { Err(no_vm(vm)) }
    }

    fn takes_work(&self, vm: VmId) -> Result<(), Problem> {
        let refusal = self.around.hosts.takes_no_work(vm);
        refusal.map_or(Ok(()), Err)
    }

    /// Looks at the machine, so that what cannot be done is refused before it is accepted.
    async fn look(&self, vm: VmId) -> Result<VmChains, Problem> {
        let chains = self.host_of(vm)?.agent.chains(vm, None).await;
        chains.map_err(HostError::into_problem)
    }

    /// The host that has the machine now.
    pub(super) fn host_of(&self, vm: VmId) -> Result<HostHandle, Problem> {
        self.around.hosts.of_vm(vm).ok_or_else(|| {
            let text = format!("no host that answers has virtual machine {vm}");
            Problem::new(Reason::VmStateUnknown, text).with("vm", vm)
        })
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
            batch: vec![],
            options: MergeOptions::default(),
            quiesce: Quiesce::default(),
            cancel_requested: false,
            state: OperationState::Queued,
            work,
            host: None,
            request,
            requested_by: caller.to_owned(),
            trace: DurableSpan::begin(),
            obstacle: None,
            created_at: now,
            started_at: None,
            ended_at: None,
            revision: 0,
        }
    }
}

pub(super) fn deletable(snapshot: &Snapshot, revision: Option<u64>) -> Result<(), Problem> {
    unchanged(snapshot, revision)?;
    settled(snapshot)?;
    if snapshot.deletion_protected {
        let text = format!("snapshot {} is protected against deletion", snapshot.name);
        return Err(Problem::new(Reason::SnapshotProtected, text).with("snapshot", snapshot.id));
    }
    Ok(())
}

pub(super) fn unchanged(snapshot: &Snapshot, revision: Option<u64>) -> Result<(), Problem> {
    if revision.is_some_and(|wanted| wanted != snapshot.revision) {
        let text = format!(
            "snapshot {} has changed since its etag was read",
            snapshot.name
        );
        return Err(Problem::new(Reason::EtagMismatch, text).with("snapshot", snapshot.id));
    }
    Ok(())
}

/// No operation works on it, or is to.
pub(super) fn settled(snapshot: &Snapshot) -> Result<(), Problem> {
    let doing = match snapshot.state {
        SnapshotState::Ready | SnapshotState::Incomplete => return Ok(()),
        SnapshotState::Creating => "taken",
        SnapshotState::Deleting => "deleted",
    };
    let text = format!("snapshot {} is being {doing}", snapshot.name);
    Err(Problem::new(Reason::SnapshotNotReady, text).with("snapshot", snapshot.id))
}

fn requested(operation: &Operation, kind: EventKind, message: String, caller: String) -> NewEvent {
    let mut event = about(operation, kind, message, operation.created_at);
    details::add(&mut event, "request_id", operation.request);
    NewEvent {
        actor: Some(caller),
        ..event
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

pub(super) fn about(
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
        details: BTreeMap::new(),
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
