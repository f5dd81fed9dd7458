//! The host agent: drives the block jobs of one hypervisor host, and goes on by itself when the
//! API server is down.
//!
//! ```text
//!   grpc (edge) ─▶ merge (orders, journal, steps) ─▶ hypervisor (port) ─▶ libvirt
//!        │                                      └──▶ volumes ─▶ livemerge-storage
//!        ├──▶ overlays, chains ─────────────────────────┘
//!        │       └──▶ freeze (guests that stand still for a snapshot)
//!        ├──▶ growth (room for volumes that are given it), slack (taken back after a commit)
//!        ├──▶ machines (what runs here, kept fresh)
//!        └──▶ tenure (whether this is still the agent of its host), registration
//!
//!   export (a process of its own: the NBD server of a domain of objects)
//! ```

pub mod access;
pub mod agent;
pub mod chains;
pub mod config;
pub mod domains;
pub mod export;
pub mod freeze;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod growth;
pub mod grpc;
pub mod hypervisor;
mod lanes;
pub mod latest;
pub mod machines;
pub mod merge;
mod metrics;
pub mod overlays;
mod reaper;
pub mod registration;
#[cfg(test)]
mod rig;
mod slack;
pub mod tenure;
pub mod volumes;
