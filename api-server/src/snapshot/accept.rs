//! The moment from which an operation is driven: one transaction accepts it, then its machine's lane
//! has it. What is accepted once is the answer to its request from then on.

use super::hub::OperationView;
use super::lane::{Known, Run};
use super::queueing::places;
use super::service::{Lanes, Snapshots, deletable};
use super::traced;
use super::turns::Place;
use super::types::{NewEvent, Operation, OperationState, Snapshot, Work};
use crate::store::{
    Accepted, Change, OperationFilter, Page, RequestRecord, SnapshotChange, StateName, StoreError,
};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc;

impl Snapshots {
    /// The operation that the request has got already, driven from now on if it is not: an
    /// acceptance may have become durable though its answer was an error. What is refused asks here
    /// once more, because the same request may have been accepted beside it.
    pub(super) async fn repeated(
        &self,
        request: &RequestRecord,
    ) -> Result<Option<OperationView>, Problem> {
        let known = Known::by(&self.around.hub);
        let operation = self.around.store.repeated(request).await?;
        Ok(operation.map(|operation| self.driven(operation, known)))
    }

    fn driven(&self, operation: Operation, known: Known) -> OperationView {
        if !operation.state.ended() {
            self.enqueue(operation.clone(), known);
        }
        self.shown(operation)
    }

    pub(super) async fn has_open(&self, vm: VmId) -> Result<bool, Problem> {
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

    /// Where its merges take room, as far as is known now.
    fn places(&self, operation: &Operation, snapshots: &[Snapshot]) -> BTreeSet<Place> {
        if !matches!(operation.work, Work::Delete(_)) {
            return BTreeSet::new();
        }
        let host = self.around.hosts.of_vm(operation.vm).map(|host| host.id);
        places(snapshots, host)
    }

    pub(super) async fn accept(
        &self,
        request: &RequestRecord,
        mut operation: Operation,
        snapshots: Vec<Snapshot>,
        events: Vec<NewEvent>,
    ) -> Result<OperationView, Problem> {
        let name = operation.snapshot_name.clone();
        let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let _one_at_a_time = self.accepting.of(operation.vm).await;
        let mut known = Known::by(&self.around.hub);
        if !self.has_open(operation.vm).await? {
            // Behind others it may find something else.
            known.places = Some(self.places(&operation, &snapshots));
        }
        // Whether its work can begin at once, as far as is known now: its lane sees to that. Who would wait is
        // written down as one that waits, and not twice.
        let has_room = |places| self.around.turns.has_room(places);
        if known.places.as_ref().is_some_and(has_room) {
            operation.state = OperationState::Running;
            operation.started_at = Some(operation.created_at);
        }
        let change = Change {
            operation,
            snapshots: snapshots.into_iter().map(SnapshotChange::Put).collect(),
            events,
        };
        fail::fail_point!("api::before-accept");
        let accepted = self.around.store.accept(request, &change).await;
        fail::fail_point!("api::after-accept");
        match accepted {
            Ok(Accepted::New(operation) | Accepted::Repeated(operation)) => {
                Ok(self.driven(operation, known))
            }
            Err(StoreError::NameTaken) => {
                let text = format!("the virtual machine has a snapshot named {name}");
                Err(Problem::new(Reason::SnapshotAlreadyExists, text).with("name", name))
            }
            Err(StoreError::Conflict(text)) => {
                // Most likely another delete was faster: then that is what is said.
                for id in ids {
                    if let Some(now) = self.around.store.snapshot(id).await? {
                        deletable(&now, None)?;
                    }
                }
                Err(StoreError::Conflict(text).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hands an operation to its machine's lane, unless it is there: whatever is open and shown is
    /// in a lane. A lane works one after the other.
    fn enqueue(&self, operation: Operation, known: Known) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.around.hub.get(operation.id).is_some() {
            return;
        }
        self.show_open(&operation);
        self.hand_over(&mut lanes, operation, known);
    }

    /// Enqueues what was open when the server started, in this order. All of it is shown before the first
    /// lane begins: a lane looks for what others were promised.
    pub(super) fn enqueue_all(&self, open: Vec<Operation>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for operation in &open {
            self.show_open(operation);
        }
        for operation in open {
            self.hand_over(&mut lanes, operation, Known::by(&self.around.hub));
        }
    }

    fn show_open(&self, operation: &Operation) {
        let shown = OperationView::durable(operation.clone(), self.around.clock.now());
        self.around.hub.show(shown);
    }

    fn hand_over(&self, lanes: &mut Lanes, operation: Operation, known: Known) {
        if self.around.shutdown.is_cancelled() {
            // The next server takes it up.
            return;
        }
        let vm = operation.vm;
        let run = Box::new(Run::new(Arc::clone(&self.around), operation, known));
        let lane = lanes.entry(vm).or_insert_with(|| self.start_lane());
        if let Err(unsent) = lane.send(run) {
            tracing::error!(%vm, "a lane has died; another one takes its place");
            *lane = self.start_lane();
            let _to_a_new_lane = lane.send(unsent.0);
        }
    }

    /// Ends when the server stops: what is accepted from then on is in the store.
    fn start_lane(&self) -> mpsc::UnboundedSender<Box<Run>> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Box<Run>>();
        let shutdown = self.around.shutdown.clone();
        self.working.spawn(async move {
            while let Some(Some(run)) = shutdown.run_until_cancelled(receiver.recv()).await {
                traced::run(*run).await;
            }
        });
        sender
    }
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
