//! `livemerge.v1.OperationService`.

use super::{caller, detached, operation, page::Pager, snapshot_service::problem};
use crate::snapshot::{OperationView, Snapshots, Wish};
use crate::store::{OperationFilter, StateName, Store};
use futures::Stream;
use livemerge_proto::fields::{Fields, duration, page_size, unsigned};
use livemerge_proto::ids::OperationId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::operation_service_server::OperationService;
use livemerge_runtime::Shutdown;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// A quiet watch repeats the operation so often.
const REPEAT_EVERY: Duration = Duration::from_secs(10);
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const WAIT_MOST: Duration = Duration::from_secs(3600);
/// A wait answers so much before the call's own deadline.
const WAIT_MARGIN: Duration = Duration::from_millis(100);

/// Serves operations.
pub struct OperationApi {
    /// The open operations.
    pub snapshots: Arc<Snapshots>,
    /// For lists.
    pub store: Arc<dyn Store>,
    /// Ends the watches.
    pub shutdown: Shutdown,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchOperationResponse, Status>> + Send>>;

#[tonic::async_trait]
impl OperationService for OperationApi {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let request = request.get_ref();
        let id = parse_id(request, &request.operation_id)?;
        let operation = Some(operation::operation(
            self.snapshots.operation_view(id).await?,
        ));
        Ok(Response::new(v1::GetOperationResponse { operation }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse_optional("vm_id", &request.vm_id);
        let vm = fields.finish(vm)?;
        // A set: what is named twice is asked for once.
        let states: BTreeSet<_> = request.states().filter_map(state_name).collect();
        let states = Vec::from_iter(states);
        let size = page_size(request.page_size);
        let pager = Pager::new(("operations", vm, &states), size);
        let page = pager.page(&request.page_token)?;
        let filter = OperationFilter { vm, states };
        let mut found = self
            .store
            .operations(&filter, &page)
            .await
            .map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |operation| operation.id);
        let shown = found
            .into_iter()
            .map(|operation| self.snapshots.shown(operation));
        let operations = shown.map(operation::operation).collect();
        Ok(Response::new(v1::ListOperationsResponse {
            operations,
            next_page_token,
        }))
    }

    type WatchOperationStream = WatchStream;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let request = request.get_ref();
        let id = parse_id(request, &request.operation_id)?;
        let first = self.snapshots.operation_view(id).await?;
        let stream = watch_stream(
            Arc::clone(&self.snapshots),
            id,
            first,
            self.shutdown.clone(),
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::WaitOperationResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let id = parse_id(&request, &request.operation_id)?;
        let unset = deadline.unwrap_or(WAIT_DEFAULT).min(WAIT_MOST);
        let time = duration(request.timeout, unset);
        let time = deadline.map_or(time, |deadline| time.min(deadline));
        let operation = Some(operation::operation(self.wait(id, time).await?));
        Ok(Response::new(v1::WaitOperationResponse { operation }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let caller = caller(&request);
        let request = request.get_ref();
        let id = parse_id(request, &request.operation_id)?;
        let snapshots = Arc::clone(&self.snapshots);
        let view = detached(async move { snapshots.wish(id, Wish::Cancel, &caller).await }).await?;
        let operation = Some(operation::operation(view));
        Ok(Response::new(v1::CancelOperationResponse { operation }))
    }

    async fn update_operation(
        &self,
        request: Request<v1::UpdateOperationRequest>,
    ) -> Result<Response<v1::UpdateOperationResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let id = parse_id(&request, &request.operation_id)?;
        let limit = unsigned(request.bytes_per_second);
        let snapshots = Arc::clone(&self.snapshots);
        let view =
            detached(async move { snapshots.wish(id, Wish::Limit(limit), &caller).await }).await?;
        let operation = Some(operation::operation(view));
        Ok(Response::new(v1::UpdateOperationResponse { operation }))
    }
}

impl OperationApi {
    /// The operation when it has ended, or as it stands when the time is over.
    async fn wait(&self, id: OperationId, time: Duration) -> Result<OperationView, Status> {
        let Some(mut shown) = self.snapshots.hub().watch(id) else {
            return Ok(self.snapshots.operation_view(id).await?);
        };
        let ended = shown.wait_for(|view| view.operation.state.ended());
        tokio::select! {
            ended = tokio::time::timeout(time, ended) => drop(ended),
            () = self.shutdown.cancelled() => return Err(draining()),
        }
        Ok(self.snapshots.operation_view(id).await?)
    }
}

/// The operation, then every change that the reader has time for, to its end.
fn watch_stream(
    snapshots: Arc<Snapshots>,
    id: OperationId,
    first: OperationView,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<v1::WatchOperationResponse, Status>> + Send {
    async_stream::try_stream! {
        let mut view = first;
        let mut changes = snapshots.hub().watch(id);
        loop {
            let ended = view.operation.state.ended();
            yield v1::WatchOperationResponse { operation: Some(operation::operation(view.clone())) };
            if ended {
                return;
            }
            view = match changes.as_mut() {
                // It ended between the look and the watch.
                None => snapshots.operation_view(id).await?,
                Some(changes) => {
                    let change = tokio::time::timeout(REPEAT_EVERY, changes.changed());
                    if shutdown.run_until_cancelled(change).await.is_none() {
                        Err(draining())?;
                    }
                    changes.borrow_and_update().clone()
                }
            };
        }
    }
}

/// The id of a request that names an operation and nothing else to be parsed.
fn parse_id(request: &impl prost::Name, id: &str) -> Result<OperationId, Problem> {
    let mut fields = Fields::of(request);
    let id = fields.parse("operation_id", id);
    fields.finish(id)
}

fn state_name(state: v1::OperationState) -> Option<StateName> {
    match state {
        v1::OperationState::Queued => Some(StateName::Queued),
        v1::OperationState::Running => Some(StateName::Running),
        v1::OperationState::Succeeded => Some(StateName::Succeeded),
        v1::OperationState::Failed => Some(StateName::Failed),
        v1::OperationState::Cancelled => Some(StateName::Cancelled),
        v1::OperationState::Unspecified => None,
    }
}

/// The time that the caller gave the call, less what the answer needs on its way.
fn deadline(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(time.saturating_sub(WAIT_MARGIN))
}

fn draining() -> Status {
    Problem::new(Reason::ServerDraining, "the server is stopping").into()
}
