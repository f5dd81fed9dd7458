//! Frees the file of a condemned volume, so that its neighbours on the file system do not stall.
//!
//! ```text
//!   its lock ─▶ wipe: zeros over its data, in pieces, fsync ─▶ cut off its end, step by step ─▶ unlink
//! ```
//!
//! A file system frees a large or scattered file in one go, and whoever writes meanwhile waits. In steps
//! it is held for [`STEP_TIME`] at a time: a step that takes longer is followed by one half as large.
//! Each part can be repeated: what was cut off is gone, and a wipe begins again with what is left.

use super::removals::{VOLUME, sync_dir};
use crate::StorageError;
use crate::error::io_error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// The first step; later ones are as large as [`STEP_TIME`] allows.
const FIRST_STEP: u64 = 16 << 20;
const SMALLEST_STEP: u64 = 256 << 10;
const LARGEST_STEP: u64 = 4 << 30;
/// No single call should hold the file system longer.
const STEP_TIME: Duration = Duration::from_millis(20);
/// Zeros of one write.
const PIECE: usize = 1 << 20;
/// What is written before it is flushed: more would be a burst for the device.
const FLUSH_AFTER: u64 = 64 << 20;

/// Frees the volume in a removal's directory: durably, before its order goes. Gives the bytes freed.
///
/// # Errors
/// `Busy` while another call frees it.
pub(super) fn purge(dir: &Path, wipe: bool) -> Result<u64, StorageError> {
    let path = &dir.join(VOLUME);
    let failed = || io_error(path.display());
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed()(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StorageError::Busy {
                what: path.display().to_string(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed()(error)),
    }
    let freed = file.metadata().map_err(failed())?.blocks() * 512;
    if wipe {
        overwrite(&file).map_err(failed())?;
    }
    cut_off(&file).map_err(failed())?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(freed),
        removed => removed
            .and_then(|()| sync_dir(dir))
            .map_err(failed())
            .map(|()| freed),
    }
}

/// Writes zeros where the file has data. Where it has none nothing was written, or it was given back before.
fn overwrite(file: &File) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let end = file.metadata()?.len();
    let (mut at, mut unflushed) = (0, 0);
    while let Some((start, stop)) = data_from(file, at, end)? {
        at = start;
        while at < stop {
            let bytes = usize::try_from(stop - at).map_or(PIECE, |left| left.min(PIECE));
            file.write_all_at(&zeros[..bytes], at)?;
            at += bytes as u64;
            unflushed += bytes as u64;
            if unflushed >= FLUSH_AFTER {
                file.sync_data()?;
                unflushed = 0;
            }
        }
    }
    file.sync_data()
}

/// The next range that has data, from here on.
fn data_from(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?.min(end)))),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
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

    /// Looked at once it is overwritten and not yet cut off.
    #[test]
    fn what_has_data_is_overwritten_and_what_has_none_stays_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VOLUME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let places = [0, 5 << 20, (8 << 20) - 4096];
        file.set_len(8 << 20).unwrap();
        for place in places {
            file.write_all_at(&[7; 4096], place).unwrap();
        }
        file.sync_all().unwrap();
        let before = file.metadata().unwrap().blocks();
        overwrite(&file).unwrap();
        assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(file.metadata().unwrap().len(), 8 << 20);
        assert!(file.metadata().unwrap().blocks() <= before + 64);
        drop(file);
        assert!(purge(dir.path(), true).unwrap() > 0);
        assert!(!path.exists());
        assert_eq!(purge(dir.path(), true).unwrap(), 0);
    }
}
