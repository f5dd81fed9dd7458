//! The edge: decode and check, call the domain, encode. Nothing generated goes further in, but for
//! the line to the agents (`hosts`).

mod convert;
mod delete_order;
mod domains;
mod event_service;
mod event_watch;
mod finding;
mod forecast;
mod inventory_service;
mod operation;
mod operation_service;
mod page;
mod registration;
mod snapshot_service;

pub use event_service::EventApi;
pub use inventory_service::InventoryApi;
pub use operation_service::OperationApi;
pub use snapshot_service::SnapshotApi;

use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Caller;
use livemerge_runtime::trace::inherited;
use tonic::{Request, Status};
use tracing::Instrument as _;

/// Who asks: the name of the caller's certificate or token, or else its address.
fn caller<T>(request: &Request<T>) -> String {
    if let Some(caller) = request.extensions().get::<Caller>() {
        return caller.name().to_owned();
    }
    request
        .remote_addr()
        .map_or_else(|| "local".to_owned(), |address| address.to_string())
}

/// Runs a mutation to its end even when the client goes away meanwhile, in the request's trace.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Status> {
    let work = inherited(work).instrument(tracing::Span::current());
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(Status::from),
        Err(died) => {
            tracing::error!(error = %died, "a request's task died");
            Err(Problem::new(Reason::InternalBug, "internal error").into())
        }
    }
}
