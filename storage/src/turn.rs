//! Whose turn it is in a domain: advisory locks on two files of the domain's own directory.
//!
//! They hold between the calls of one process, between processes, and between hosts on NFS, and
//! end with the process that holds them.
//!
//! - `creating`: shared by whoever has a file in `new/`; alone by who sweeps it.
//! - `naming`: alone by who decides about a name from what the domain holds: the gate and its
//!   condemnation, a restoration, the publishing of a new volume on its parent. Shared by whoever
//!   opens a volume only to look at it, where that would count as use.

use crate::StorageError;
use crate::error::io_error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The two locks.
#[derive(Debug)]
pub(crate) struct Turns {
    creating: PathBuf,
    naming: PathBuf,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    locked: File,
}

impl Turns {
    pub(crate) fn new(own: &Path) -> Self {
        Self {
            creating: own.join("creating.lock"),
            naming: own.join("naming.lock"),
        }
    }

    pub(crate) fn create(&self) -> Result<Turn, StorageError> {
        let file = open(&self.creating)?;
        file.lock_shared()
            .map_err(io_error(self.creating.display()))?;
        Ok(Turn { locked: file })
    }

    /// `None` while somebody creates.
    pub(crate) fn sweep(&self) -> Result<Option<Turn>, StorageError> {
        try_alone(&self.creating)
    }

    /// `None` while somebody has the other turn.
    pub(crate) fn try_look(&self) -> Result<Option<Turn>, StorageError> {
        let file = open(&self.naming)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Turn { locked: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error(self.naming.display())(error)),
        }
    }

    /// `None` while somebody has any turn.
    pub(crate) fn try_name(&self) -> Result<Option<Turn>, StorageError> {
        try_alone(&self.naming)
    }

    pub(crate) fn name(&self) -> Result<Turn, StorageError> {
        let file = open(&self.naming)?;
        file.lock().map_err(io_error(self.naming.display()))?;
        Ok(Turn { locked: file })
    }
}

impl Turn {
    /// The open file: until the turn is dropped, or this process has ended and every copy is closed,
    /// it is locked.
    pub(crate) fn copy(&self) -> io::Result<File> {
        self.locked.try_clone()
    }
}

impl Drop for Turn {
    /// Not left to closing: a process that is being spawned has a copy of the open file for a
    /// moment. If this fails, closing does it.
    fn drop(&mut self) {
        let _ = self.locked.unlock();
    }
}

fn try_alone(path: &Path) -> Result<Option<Turn>, StorageError> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Turn { locked: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io_error(path.display())(error)),
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    options.open(path).map_err(io_error(path.display()))
}
