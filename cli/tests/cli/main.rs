//! The real binary against a scripted API server on a Unix socket or loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancelling;
mod commands;
mod data;
mod deleting;
mod diagnostics;
mod doctor;
mod errors;
mod following;
mod names;
mod program;
mod secured;
mod selecting;
mod server;
mod terminal;
mod usage;
mod waiting;
