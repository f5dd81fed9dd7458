//! Traces: where in one a task works, the spans that it leaves, and where those are sent.
//!
//! ```text
//!   traceparent of a request ─▶ span of the request ─ scope ─▶ TraceContext::current
//!                                                                 │
//!        DurableSpan (kept in a record, over restarts) ◀── begin ─┤
//!             └─ scope ─▶ ...                                     ├─▶ LiveSpan, of a task
//!                                                                 └─▶ traceparent of a call
//!   ended spans ─▶ a queue ─▶ OTLP over gRPC       (only with `traces.endpoint`)
//! ```
//!
//! Contexts are always there, so that logs of both servers have one trace id and foreign traces go
//! through; spans are recorded only where they are sent somewhere, and only in traces that are
//! sampled. A span is recorded when it has ended: what takes days, and restarts meanwhile, is one
//! span all the same, since its id and its beginning stand in a record.

mod context;
mod durable;
mod export;
mod live;

pub(crate) use context::TRACEPARENT;
pub use context::TraceContext;
pub use durable::DurableSpan;
pub use export::{Export, TracesConfig, start};
pub use live::{LiveSpan, SpanKind};

use std::future::Future;
use std::time::SystemTime;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Works within this context; without one, as before.
pub async fn scope<F: Future>(context: Option<TraceContext>, work: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

/// A future that keeps the context of who makes it, for a task of its own.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    scope(TraceContext::current(), work)
}

fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// The beginnings and ends of spans are for people who look at a clock.
#[allow(
    clippy::disallowed_methods,
    reason = "no decision rests on the time of a span"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
