//! The spans of operations. Each stands in its operation's record and is recorded at its end, so that
//! it is one over restarts; what is asked of hosts meanwhile is a part of it.

use super::lane::Run;
use super::types::{Operation, OperationState, Work};
use livemerge_runtime::trace::scope;
use tracing::Instrument as _;

/// Takes an operation to its end, within its trace.
pub(super) async fn run(run: Run) {
    let context = run.operation.trace.map(|span| span.context());
    let trace = context.map(|context| context.trace_id());
    let span = tracing::info_span!("operation", id = %run.operation.id, trace_id = trace);
    scope(context, run.finish().instrument(span)).await;
}

/// Records an operation that has ended.
pub(super) fn ended(operation: &Operation) {
    let (Some(span), Some(ended_at)) = (&operation.trace, operation.ended_at) else {
        return;
    };
    let (outcome, error) = match &operation.state {
        OperationState::Queued | OperationState::Running => return,
        OperationState::Succeeded => ("succeeded", None),
        OperationState::Failed(failure) => ("failed", Some(failure.reason.to_string())),
        OperationState::Cancelled => ("cancelled", None),
    };
    let name = match &operation.work {
        Work::Create(_) => "operation create",
        Work::Delete(_) => "operation delete",
    };
    let attributes = [
        ("livemerge.operation", operation.id.to_string()),
        ("livemerge.vm", operation.vm.to_string()),
        ("livemerge.snapshot", operation.snapshot.to_string()),
        ("livemerge.outcome", outcome.to_owned()),
    ];
    let time = (operation.created_at.into(), ended_at.into());
    span.end(name, time, &attributes, error);
}
