//! Who has an image open: QEMU's image locks, asked without taking any.
//!
//! QEMU marks what it does with an image by shared locks on single bytes of the file: one byte for
//! each permission that it holds, and one for each that it does not share
//! (`block/file-posix.c`: from 100 and 200 on). Reading takes the first of them, so any such lock
//! means that a process has the image open, as the top of a chain or as a backing.

use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;

const FIRST: i64 = 100;
const BYTES: i64 = 200;

/// Whether a process has the image open.
pub(super) fn is_held(image: &File) -> io::Result<bool> {
    let mut lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: FIRST,
        l_len: BYTES,
        l_pid: 0,
    };
    fcntl(image, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != nix::libc::F_UNLCK as i16)
}
