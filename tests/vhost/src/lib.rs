//! A virtual host: this machine's root file system, read-only, under a kernel of its own that has a
//! device-mapper.
//!
//! ```text
//!   this machine                                      virtual host (seconds to start)
//!     /  ────────────────────────────────────────────▶ / with a tmpfs over it: changes are forgotten
//!     target/rig/{uml,kernel}, target/rig/host-….cpio ▶ kernel, drivers
//!     sparse files ──────────────────────────────────▶ /dev/vda, /dev/vdb, … empty disks
//!     output, exit code ◀───────────────────────────── of one program
//! ```
//!
//! The kernel is a program of this machine's (user-mode Linux), whose processes run at the processor's
//! own speed. Where that does not start, a whole machine is emulated, which takes ten times as long.
//!
//! Everything that a host starts is ended by its process id when it is dropped, and its files go.
//! A test's binary may run itself in there: see [`VirtualHost::run_this_test`].

#![allow(clippy::print_stdout, reason = "a rig shows what was said in it")]

mod emulated;
mod image;
mod initramfs;
mod machine;
mod user_mode;

pub use image::HostImage;
pub use initramfs::pack;
pub use machine::{Ended, Kind, VirtualHost, is_here};
