//! The host agent: drives the block jobs of one hypervisor host, and goes on by itself when the
//! API server is down.
//!
//! ```text
//!   grpc (edge) ─▶ merge (orders, journal, steps) ─▶ hypervisor (port) ─▶ libvirt
//!        │                                      └──▶ volumes ─▶ livemerge-storage
//!        ├──▶ overlays, chains ─────────────────────────┘
//!        └──▶ machines (what runs here, kept fresh)
//! ```

pub mod agent;
mod chains;
pub mod config;
mod grpc;
pub mod hypervisor;
mod machines;
mod merge;
mod overlays;
mod registration;
mod volumes;
