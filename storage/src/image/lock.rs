//! Who has an image open: QEMU's image locks.
//!
//! QEMU marks what it does with an image by shared locks on single bytes of the file: one byte for
//! each permission that it holds, and one for each that it does not share
//! (`block/file-posix.c`: from 100 and 200 on). Reading takes the first of them, so any such lock
//! means that a process has the image open, as the top of a chain or as a backing. Who holds all
//! of them alone keeps every process of QEMU's from opening the image.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::io;

const FIRST: i64 = 100;
const BYTES: i64 = 200;
/// The byte of the permission to write.
const WRITES: i64 = 101;

/// Whether a process has the image open for writing. Takes nothing.
pub(crate) fn is_written(image: &File) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_start: WRITES,
        l_len: 1,
        ..all_bytes(libc::F_WRLCK)
    };
    fcntl(image, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

/// Whether a process has the image open. Takes nothing.
pub(crate) fn is_held(image: &File) -> io::Result<bool> {
    let mut lock = all_bytes(libc::F_WRLCK);
    fcntl(image, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

/// An image that is held alone, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

/// Takes the image alone; `None` when a process has it open. The file must be open for writing.
pub(crate) fn take(image: &File) -> io::Result<Option<Held<'_>>> {
    match fcntl(image, FcntlArg::F_OFD_SETLK(&all_bytes(libc::F_WRLCK))) {
        Ok(_) => Ok(Some(Held(image))),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Held<'_> {
    /// Leaves the image held, until [`release`].
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        release(self.0);
    }
}

/// Gives an image back. Not left to closing: a process that is being spawned has a copy of the open
/// file for a moment. If this fails, closing does it.
pub(crate) fn release(image: &File) {
    let _ = fcntl(image, FcntlArg::F_OFD_SETLK(&all_bytes(libc::F_UNLCK)));
}

fn all_bytes(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: FIRST,
        l_len: BYTES,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_takes_it_and_gives_it_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (one, other) = (file.reopen().unwrap(), file.reopen().unwrap());
        assert!(!is_held(&other).unwrap());
        let held = take(&one).unwrap().unwrap();
        assert!(is_held(&other).unwrap());
        assert!(take(&other).unwrap().is_none());
        drop(held);
        assert!(!is_held(&other).unwrap());
        assert!(take(&other).unwrap().is_some());
    }

    #[test]
    fn a_writer_is_told_from_a_reader() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let seen_while = |how: &[&str]| {
            let mut process = std::process::Command::new("qemu-io")
                .args(how)
                .args(["-f", "raw"])
                .arg(image.path())
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("qemu-io is needed here");
            let file = image.reopen().unwrap();
            while !is_held(&file).unwrap() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let written = is_written(&file).unwrap();
            drop(process.stdin.take());
            process.wait().unwrap();
            written
        };
        assert!(seen_while(&[]));
        assert!(!seen_while(&["-r"]));
        assert!(!is_written(&image.reopen().unwrap()).unwrap());
    }

    #[test]
    fn what_is_taken_cannot_be_opened_by_qemu() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let opens = || {
            let mut reader = std::process::Command::new("qemu-io");
            reader
                .args(["-r", "-f", "raw", "-c", "read 0 512"])
                .arg(image.path());
            reader
                .output()
                .expect("qemu-io is needed here")
                .status
                .success()
        };
        let alone = image.reopen().unwrap();
        let held = take(&alone).unwrap().unwrap();
        assert!(!opens());
        drop(held);
        assert!(opens());
    }
}
