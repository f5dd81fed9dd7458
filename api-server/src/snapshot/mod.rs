//! Snapshots and the durable operations on them.
//!
//! ```text
//!   grpc ──▶ service (checks, accepts: one transaction) ──▶ lane (one a virtual machine)
//!                                                             │ observe ─▶ step ─▶ persist ─▶ act
//!                                                             ▼
//!                                            Store                    HostAgent
//! ```
//!
//! Invariants:
//! - The record is written before the act, and says at least what happened to the data.
//! - `step` is pure: everything it knows is in its arguments.
//! - Unknown leads to waiting, never to an end and never to a removal.

mod accept;
mod accepting;
mod asking;
mod create;
mod delete;
mod details;
mod discovery;
mod follow;
mod forecast;
mod foreseen;
mod hub;
mod lane;
mod left;
mod merging;
mod needed;
mod news;
mod obstacle;
pub mod plan;
mod promised;
mod queueing;
mod removing;
mod service;
mod stand_in;
pub mod step;
#[cfg(test)]
mod step_tests;
mod surroundings;
mod telling;
mod traced;
mod turns;
mod types;
mod undone;
mod update;
mod warning;
mod wishes;

pub use discovery::Discovery;
pub use forecast::Forecast;
pub use foreseen::Foreseen;
pub(crate) use foreseen::time_of_all;
pub use hub::{Hub, MergeProgress, OperationView, Waiting};
pub use needed::needed_by;
pub use service::{CreateOrder, DeleteOrder, Snapshots};
pub(crate) use service::{no_snapshot, no_vm};
pub use turns::{Limit, Limits};
pub use types::{
    Consistency, CreatePhase, DeletePhase, Deleted, Direction, DiskState, DiskTask, Event,
    EventKind, Failure, HostRecord, Leaving, Mark, MergeKind, MergeOptions, Merging, NewEvent,
    NewOverlay, Obstacle, Operation, OperationState, Origin, Quiesce, Severity, Snapshot,
    SnapshotDisk, SnapshotState, Told, VmRecord, Work,
};
pub use update::UpdateOrder;
pub use warning::{Warning, warnings};
pub use wishes::Wish;
