//! Frees the file of a condemned volume, so that its neighbours on the file system do not stall.
//!
//! ```text
//!   its lock ─▶ wiped, if asked ─▶ cut off its end, step by step ─▶ unlink
//! ```
//!
//! A file system frees a large or scattered file in one go, and whoever writes meanwhile waits. In steps
//! it is held for [`STEP_TIME`] at a time: a step that takes longer is followed by one half as large.
//! Each part can be repeated: what was cut off is gone.

use super::removals::{VOLUME, sync_dir};
use crate::StorageError;
use crate::error::io_error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first step, of a file that may be scattered over the disk; later ones are as large as
/// [`STEP_TIME`] allows.
const FIRST_STEP: u64 = 1 << 20;
const SMALLEST_STEP: u64 = 256 << 10;
const LARGEST_STEP: u64 = 4 << 30;
/// No single call should hold the file system longer.
const STEP_TIME: Duration = Duration::from_millis(20);

/// Takes the volume in a removal's directory, for one call; `None` when it was freed.
///
/// # Errors
/// `Busy` while another call has it.
pub(super) fn take(dir: &Path) -> Result<Option<File>, StorageError> {
    let path = &dir.join(VOLUME);
    let failed = || io_error(path.display());
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::Busy {
            what: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// Frees a volume that was taken: durably, before its order goes. Gives the bytes freed.
pub(super) fn purge(dir: &Path, volume: &File) -> Result<u64, StorageError> {
    let path = &dir.join(VOLUME);
    let failed = || io_error(path.display());
    let freed = volume.metadata().map_err(failed())?.blocks() * 512;
    cut_off(volume).map_err(failed())?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(freed),
        removed => removed
            .and_then(|()| sync_dir(dir))
            .map_err(failed())
            .map(|()| freed),
    }
}

/// Cuts the file off from its end, in steps.
fn cut_off(file: &File) -> io::Result<()> {
    let stat = file.metadata()?;
    let mut left = if stat.blocks() == 0 { 0 } else { stat.len() };
    let mut step = FIRST_STEP;
    while left > 0 {
        left = left.saturating_sub(step);
        let begun = Instant::now();
        file.set_len(left)?;
        step = if begun.elapsed() > STEP_TIME {
            (step / 2).max(SMALLEST_STEP)
        } else if begun.elapsed() < STEP_TIME / 4 {
            (step * 2).min(LARGEST_STEP)
        } else {
            step
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_frees_a_volume_and_the_next_finds_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VOLUME);
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        let taken = take(dir.path()).unwrap().unwrap();
        let second = take(dir.path());
        assert!(
            matches!(second, Err(StorageError::Busy { .. })),
            "{second:?}"
        );
        assert!(purge(dir.path(), &taken).unwrap() > 0);
        assert!(!path.exists());
        assert!(take(dir.path()).unwrap().is_none());
    }
}
