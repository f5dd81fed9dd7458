//! Calls and watches against a server that fails as its script says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod deadline;
mod pool;
mod rig;
mod watching;
