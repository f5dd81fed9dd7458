//! Everything that is tested from outside the crates, in one program: it is linked once.
//!
//! A module is one subject; a test runs alone in its process, started by nextest.

mod cancel_when_ready;
mod clients;
mod cluster;
mod consistency;
mod console;
mod convergence;
mod deploy;
mod discovered;
mod discovery;
mod documents;
mod domains;
mod events;
mod every_merge;
mod faults;
mod formats;
mod guest_rig;
mod hostile;
mod live_merge;
mod lvm;
mod mesh;
mod object_storage;
mod observability;
mod offline_merge;
mod power;
mod process_faults;
mod progress;
mod queue;
mod quiesce;
mod secured;
mod simulation;
mod storage_faults;
mod sweep;
