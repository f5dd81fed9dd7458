//! How one LiveMerge program calls another.
//!
//! ```text
//!   generated client ─▶ Patient ─▶ Calls (metrics, trace) ─▶ Line (TLS, token) ─▶ one channel an endpoint
//!                        │ the time that is left, as `grpc-timeout`
//!                        └ once more, where that does no harm
//!
//!   Watch ─▶ a stream that is opened again behind what was seen last
//! ```
//!
//! Invariants:
//! - A call is repeated only if its method is one of [`Methods`] that may be, with the same bytes (and
//!   so with the same `request_id`), and only after UNAVAILABLE, an overload, or a connection that broke; after
//!   what `RetryInfo` says at least; within the call's time; within a budget that all calls over a line
//!   share, so that a server which is down is not asked several times as much as one which is up.
//! - A call made for another one ends when that one's time is over, whatever it asks for itself.
//! - A watch gives each item once and leaves none out, as far as its tokens tell, or says that it
//!   begins afresh.

mod calls;
pub(crate) mod deadline;
mod lost;
mod methods;
mod patient;
mod pool;
mod watch;

pub use calls::{CallPolicy, Patience};
pub use methods::Methods;
pub use patient::Patient;
pub use pool::Pool;
pub use watch::{Seen, Watch, WatchPolicy};
