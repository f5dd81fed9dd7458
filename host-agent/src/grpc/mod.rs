//! The edge: decode and check, call the domain, encode. Nothing generated goes further in.

mod convert;
#[cfg(test)]
mod fence_tests;
mod host_service;
mod merge_order;
mod merge_service;
mod page;
mod plan;
mod removal_order;
#[cfg(test)]
mod rule_tests;
mod volume_service;
#[cfg(test)]
mod volume_tests;

pub use host_service::HostApi;
pub use merge_service::MergeApi;
pub use volume_service::VolumeApi;

use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::trace::inherited;
use tonic::Status;
use tracing::Instrument as _;

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
