//! Overwriting what a condemned volume held, before its room is given back.
//!
//! ```text
//!   its turn ─▶ zeros over its data ─▶ flushed ─▶ given back, as a hole ─▶ … until it has no data
//! ```
//!
//! What was overwritten is no data any more, so that a wipe goes on where it was interrupted. Where a file system
//! makes no holes, as NFS before 4.2, it begins again.

use super::domain::Domain;
use crate::StorageError;
use crate::calls::blocking;
use crate::error::io_error;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Zeros of one write.
const PIECE: usize = 1 << 20;
/// What is written before it is flushed: more would be a burst for the device.
const FLUSH_AFTER: u64 = 64 << 20;

impl Domain {
    /// Overwrites a volume; gives it back with the bytes that it takes less. One after the other: each
    /// would take as long again, and their neighbours no less. It takes hours, so it is none of the domain's
    /// calls. When this process ends before, so does it.
    pub(super) async fn wipe_in_turn(
        &self,
        volume: File,
        what: String,
        bytes_per_second: u64,
    ) -> Result<(File, u64), StorageError> {
        let _one = self.wiping.lock().await;
        let (wipes, _waits) = oneshot::channel();
        blocking(move || {
            let freed = overwrite(&volume, bytes_per_second.max(1), &wipes);
            Ok((volume, freed.map_err(io_error(what))?))
        })
        .await
    }
}

/// Writes zeros where the file has data, no faster than the neighbours can bear. Where it has none nothing was
/// written, or it was given back before. Stops when nobody waits for it any more.
fn overwrite(file: &File, bytes_per_second: u64, wipes: &oneshot::Sender<()>) -> io::Result<u64> {
    let zeros = vec![0; PIECE];
    let before = file.metadata()?;
    let (begun, mut written) = (Instant::now(), 0);
    let mut unflushed = Unflushed::default();
    let mut at = 0;
    while let Some((start, stop)) = data_from(file, at, before.len())? {
        if wipes.is_closed() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes = usize::try_from(stop - start).map_or(PIECE, |left| left.min(PIECE));
        file.write_all_at(&zeros[..bytes], start)?;
        at = start + bytes as u64;
        written += bytes as u64;
        unflushed.add(start, at);
        if unflushed.bytes >= FLUSH_AFTER {
            unflushed.give_back(file)?;
        }
        let due = Duration::from_secs_f64(written as f64 / bytes_per_second as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    unflushed.give_back(file)?;
    let after = file.metadata()?.blocks();
    Ok(before.blocks().saturating_sub(after) * 512)
}

/// Ranges that were overwritten, maybe not yet on the device.
#[derive(Default)]
struct Unflushed {
    ranges: Vec<(u64, u64)>,
    bytes: u64,
}

impl Unflushed {
    fn add(&mut self, start: u64, stop: u64) {
        self.bytes += stop - start;
        match self.ranges.last_mut() {
            Some((_, end)) if *end == start => *end = stop,
            _ => self.ranges.push((start, stop)),
        }
    }

    /// Only once the zeros lie on the device: else it would keep what was there.
    fn give_back(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        for (start, stop) in self.ranges.drain(..) {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(file, hole, start, stop - start) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.bytes = 0;
        Ok(())
    }
}

/// The next range that has data, from here on.
fn data_from(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?.min(end)))),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with data at these places.
    fn sparse(bytes: u64, places: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        for place in places {
            file.write_all_at(&[7; 4096], *place).unwrap();
        }
        file.sync_all().unwrap();
        file
    }

    #[test]
    fn what_has_data_is_overwritten_and_none_of_it_is_left_for_the_next_time() {
        let (wipes, waits) = oneshot::channel();
        let file = sparse(8 << 20, &[0, 5 << 20, (8 << 20) - 4096]);
        assert!(overwrite(&file, u64::MAX, &wipes).unwrap() > 0);
        let mut all = vec![7; 8 << 20];
        file.read_exact_at(&mut all, 0).unwrap();
        assert!(all.iter().all(|byte| *byte == 0));
        assert_eq!(file.metadata().unwrap().len(), 8 << 20);
        assert_eq!(data_from(&file, 0, 8 << 20).unwrap(), None);
        // So one that was interrupted behind it does nothing of it again.
        drop(waits);
        assert_eq!(overwrite(&file, u64::MAX, &wipes).unwrap(), 0);
    }

    #[test]
    fn what_was_flushed_before_it_was_interrupted_is_not_done_again() {
        let file = sparse(8 << 20, &[0, 4 << 20, 6 << 20]);
        let mut unflushed = Unflushed::default();
        unflushed.add(0, 1 << 20);
        unflushed.add(1 << 20, 5 << 20);
        assert_eq!(unflushed.ranges, [(0, 5 << 20)]);
        unflushed.give_back(&file).unwrap();
        let left = data_from(&file, 0, 8 << 20).unwrap();
        assert_eq!(left, Some((6 << 20, (6 << 20) + 4096)));
    }

    #[test]
    fn a_wipe_for_which_nobody_waits_any_more_stops() {
        let file = sparse(1 << 20, &[0]);
        let (wipes, waits) = oneshot::channel();
        drop(waits);
        overwrite(&file, u64::MAX, &wipes).unwrap_err();
        let mut first = [0; 4096];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, [7; 4096]);
    }
}
