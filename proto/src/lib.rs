//! The contracts of LiveMerge: generated messages and services, the identifiers that they
//! carry as text, the closed list of error reasons, and how both are checked and converted.
//!
//! ```text
//!   request ──▶ rules (as declared) ──▶ fields::Fields ──▶ ids (newtypes) ──▶ the domain
//!   the domain's error ──▶ problem::Problem ──▶ tonic::Status (google.rpc details) ──▶ client
//! ```
//!
//! Nothing of the module [`v1`] may pass a server's `grpc` module; the identifiers of [`ids`] may.

pub mod agent_api;
pub mod failure;
pub mod fields;
pub mod ids;
pub mod problem;
pub mod reason;
pub mod rules;

/// Generated messages, clients and servers of the package `livemerge.v1`.
#[allow(missing_docs, unused_qualifications, clippy::all)] // generated; the comments of the .proto files are its docs
pub mod v1 {
    tonic::include_proto!("livemerge.v1");
}

/// The compiled contracts (a `google.protobuf.FileDescriptorSet` with comments), for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/livemerge.v1.bin"));
