//! Merges and overlays of a machine that is shut off, on a real libvirt and the real `qemu-img`.
//!
//! Each test has a root directory of its own. Needs libvirt, its QEMU driver, qemu-system-x86_64,
//! qemu-img and qemu-io, and root; and a process for each test, as nextest gives it: libvirt's
//! embedded driver is opened once a process.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

mod beside;
mod copying;
mod rig;
