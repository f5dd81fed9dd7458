//! The API server: knows hosts, virtual machines and snapshots, takes requests, runs durable
//! operations and keeps the audit log.
//!
//! ```text
//!   grpc (edge) ─▶ snapshot (operations, steps) ─▶ store (port) ─▶ SQLite
//!        │                    └──────────────────▶ hosts (port) ─▶ agents
//!        ├──▶ hosts (which there are, what they show)
//!        ├──▶ domains (storage, and what it keeps of what was removed) ─▶ hosts
//!        └──▶ consistency (record against hosts and storage) ─▶ store, hosts, snapshot
//! ```

pub mod access;
pub mod config;
pub mod consistency;
pub mod console;
pub mod domains;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod grpc;
pub mod hosts;
mod metrics;
mod opening;
pub mod server;
pub mod snapshot;
pub mod store;
