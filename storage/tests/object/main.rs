//! The object back end on memory, a directory and a real S3 server, with QEMU's own programs as
//! clients of its exporter.

#![allow(clippy::unwrap_used, reason = "tests")]

mod azure;
mod client;
mod conformance;
mod counting;
mod crash;
mod exporter;
mod foreign;
mod permission;
mod removal;
mod rig;
mod s3;
