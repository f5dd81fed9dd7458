//! How much of a server its clients may hold, and what is refused beyond that.
//!
//! ```text
//!   request ─▶ a health check? ────────────────────────────────────────▶ served, and not counted
//!                 │ no
//!                 ▼
//!              who asks: an agent or a server │ anybody else       each has places of its own
//!              what for: a call │ a watch or a wait                and streams of health and
//!                 │                                                reflection have some
//!                 │
//!                 ├─ a place is free, and the client leaves as many as it holds ─▶ served
//!                 └─ else RESOURCE_EXHAUSTED: SERVER_OVERLOADED, WATCH_LIMIT_REACHED
//! ```
//!
//! Invariants:
//! - Nothing waits for a place: a server that is full says so at once.
//! - A place is held to the end of the answer's body, not to its headers.
//! - No client, and no number of clients that hold something, takes the last place: whoever holds
//!   nothing finds one as long as one is free ([`shares`]).
//! - What agents and servers ask of each other is never refused because others ask much.
//! - An answer that its client does not take gives its place back after a while ([`answer`]).

mod answer;
mod layer;
mod shares;
mod shed;

pub(crate) use layer::{Limiter, Limits};
pub(crate) use shares::{Holder, Place, Shares};
pub(crate) use shed::{Limit, Shed};
