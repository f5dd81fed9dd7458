//! The server's side of NBD, as far as QEMU and libnbd use it.
//!
//! ```text
//!   greeting ─▶ options: LIST, INFO, GO, EXPORT_NAME ─▶ requests, several in flight, each with its reply
//!   wire (bytes ⟷ values, pure)    handshake    serve
//! ```
//!
//! After the protocol's specification: fixed newstyle; read, write, flush, trim, write zeroes; FUA;
//! simple replies. Structured replies and what needs them (block status) are declined: a qcow2 image
//! knows itself what it holds.

mod client;
mod handshake;
mod serve;
#[cfg(test)]
mod serve_tests;
pub(super) mod wire;

pub(crate) use client::read_head;
pub(super) use handshake::{Exports, Facts};
pub(super) use serve::{Export, serve};
