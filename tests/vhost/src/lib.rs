//! A virtual host: this machine's root file system, read-only, under a kernel of its own that has a
//! device-mapper, run by QEMU's emulator.
//!
//! ```text
//!   this machine                                  virtual host (seconds to start)
//!     / ─── virtiofsd ───────────────────────────▶ / with a tmpfs over it: changes are forgotten
//!     target/rig/kernel, target/rig/host-….cpio ─▶ kernel, drivers
//!     sparse files ──────────────────────────────▶ /dev/vda, /dev/vdb, … empty disks
//!     output, exit code ◀──────────────────────── serial ports, of one program
//! ```
//!
//! Everything that a host starts is ended by its process id when it is dropped, and its files go.
//! A test's binary may run itself in there: see [`VirtualHost::run_this_test`].

#![allow(clippy::print_stdout, reason = "a rig shows what was said in it")]

mod image;
mod initramfs;
mod machine;

pub use image::HostImage;
pub use initramfs::pack;
pub use machine::{Ended, VirtualHost, is_here};
