//! A name for a file, if nobody has that name yet.
//!
//! ```text
//!   rename without replacing ──EINVAL: NFS, and some others, have none──▶ link, unlink
//! ```
//!
//! Between link and unlink the file has both names. A crash there leaves both: whoever finds that
//! takes the new one away and begins again ([`super::removal`], the sweep of `new/`).

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// A path, seen from a directory.
type At<'a> = (BorrowedFd<'a>, &'a Path);

/// How files are renamed in a domain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renames {
    at_once: fn(At<'_>, At<'_>) -> Result<(), Errno>,
}

impl Default for Renames {
    fn default() -> Self {
        Self {
            at_once: |from, to| renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE),
        }
    }
}

impl Renames {
    /// Gives the file the new name in place of the old one.
    ///
    /// # Errors
    /// `EXIST` when somebody has the name: nothing was done then.
    pub(super) fn give(self, from: At<'_>, to: At<'_>) -> Result<(), Errno> {
        match (self.at_once)(from, to) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                linkat(from.0, from.1, to.0, to.1, AtFlags::empty())?;
                unlinkat(from.0, from.1, AtFlags::empty())
            }
            done => done,
        }
    }

    /// As on NFS.
    #[cfg(test)]
    pub(super) fn of_nfs() -> Self {
        Self {
            at_once: |_, _| Err(Errno::INVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;

    #[test]
    fn a_name_is_given_once_with_and_without_the_kernel_s_help() {
        for renames in [Renames::default(), Renames::of_nfs()] {
            let dir = tempfile::tempdir().unwrap();
            let (old, new) = (dir.path().join("old"), dir.path().join("new"));
            fs::write(&old, "one").unwrap();
            renames.give((CWD, &old), (CWD, &new)).unwrap();
            assert!(!old.exists());
            fs::write(&old, "other").unwrap();
            let taken = renames.give((CWD, &old), (CWD, &new));
            assert_eq!(taken, Err(Errno::EXIST));
            assert_eq!(fs::read(&new).unwrap(), b"one");
            assert_eq!(fs::read(&old).unwrap(), b"other");
        }
    }
}
