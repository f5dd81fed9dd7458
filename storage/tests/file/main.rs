//! The file back end on real directories, with QEMU's own programs as its neighbours.

#![allow(clippy::unwrap_used, reason = "tests")]

mod allocation;
mod conformance;
mod crash;
mod faults;
mod foreign;
mod hanging;
mod headers;
mod in_use;
mod names;
mod rig;
mod together;
