//! Who on this host has a volume open: locks on files of the domain's directory here, one a volume.
//!
//! ```text
//!   exporter   a connection is open ─▶ shared
//!   store      removes or grows it  ─▶ alone, or it is in use
//! ```
//!
//! They end with the process that holds them, and take the place of QEMU's image locks, which an
//! NBD export does not have. Volumes that other hosts write to are told by their leases.

use crate::StorageError;
use crate::error::io_error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A client that has just ended is not open any more as soon as that is noticed.
const NOTICED: Duration = Duration::from_millis(500);

/// The marks of a domain on this host.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    dir: PathBuf,
}

/// A mark, until it is dropped.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Marks {
    pub(super) fn open(dir: PathBuf) -> Result<Self, StorageError> {
        fs::create_dir_all(&dir).map_err(io_error(dir.display()))?;
        Ok(Self { dir })
    }

    /// Marks a volume as open; `None` while somebody has it alone. Waits a moment for one who only
    /// looks.
    pub(super) async fn shared(&self, uuid: Uuid) -> Result<Option<Mark>, StorageError> {
        self.wait(uuid, File::try_lock_shared).await
    }

    /// Takes a volume alone; `None` while it is open. Waits a moment for clients that have ended.
    pub(super) async fn alone(&self, uuid: Uuid) -> Result<Option<Mark>, StorageError> {
        self.wait(uuid, File::try_lock).await
    }

    async fn wait(
        &self,
        uuid: Uuid,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Mark>, StorageError> {
        let begun = Instant::now();
        loop {
            let taken = self.take(uuid, lock)?;
            if taken.is_some() || begun.elapsed() > NOTICED {
                return Ok(taken);
            }
            tokio::time::sleep(NOTICED / 25).await;
        }
    }

    /// Forgets a volume that is gone.
    pub(super) fn forget(&self, uuid: Uuid) {
        // One that is left behind is an empty file.
        let _ = fs::remove_file(self.path(uuid));
    }

    fn take(
        &self,
        uuid: Uuid,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Mark>, StorageError> {
        let path = self.path(uuid);
        let failed = |error: io::Error| io_error(path.display())(error);
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&path).map_err(failed)?;
        match lock(&file) {
            Ok(()) => Ok(Some(Mark { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn path(&self, uuid: Uuid) -> PathBuf {
        self.dir.join(uuid.hyphenated().to_string())
    }
}

impl Drop for Mark {
    /// Not left to closing: a process that is being spawned has a copy of the open file for a moment.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_volume_is_not_taken_alone() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::open(dir.path().join("open")).unwrap();
        let uuid = Uuid::new_v4();
        let shared = async |uuid| marks.shared(uuid).await.unwrap();
        let open = [shared(uuid).await.unwrap(), shared(uuid).await.unwrap()];
        assert!(marks.alone(uuid).await.unwrap().is_none());
        drop(open);
        let alone = marks.alone(uuid).await.unwrap().unwrap();
        assert!(shared(uuid).await.is_none());
        assert!(shared(Uuid::new_v4()).await.is_some());
        drop(alone);
        assert!(shared(uuid).await.is_some());
    }
}
