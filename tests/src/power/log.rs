//! What a disk was given, and what it may hold after a power cut.
//!
//! The log has the format of the kernel's dm-log-writes: a block with the count of entries, then each
//! entry's header in a block of its own, and what was written behind it.
//!
//! ```text
//!   w w w F w w w w F w w w ✂      what was written before a flush that was answered is on the disk
//!                   ├───────┤      of what came after it the disk may have any part
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::disks::copy;
use crate::kills::SplitMix;

const BLOCK: u64 = 512;
/// What a disk writes wholly or not at all: a record of the guest that overwrites an older one leaves one
/// of the two.
const ATOM: u64 = 4096;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Of so many writes that survive one does in a part.
const TORN_EVERY: u64 = 4;

/// What a disk was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write { at: u64, bytes: u64 },
    Discard,
    Flush,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    /// Where in the log what was written stands, and where the entry ends.
    data: u64,
    end: u64,
}

/// What becomes of what was written after the last flush before a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it is lost.
    All,
    /// Nothing.
    Nothing,
    /// Each write by chance, and some in a part.
    Some,
}

/// A disk's log, played back from its beginning on.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    entries: Vec<Entry>,
    /// What the disk holds for certain after the first `played` entries.
    image: PathBuf,
    played: usize,
}

impl Log {
    /// Reads a log. What the disk held at first becomes what it holds later.
    pub(super) fn open(first: PathBuf, log: &Path) -> Result<Self> {
        let file = File::open(log)?;
        let size = file.metadata()?.len();
        let mut entries = Vec::new();
        let mut at = BLOCK;
        while at + BLOCK <= size {
            let entry = entry(&file, at)?;
            at = entry.end;
            entries.push(entry);
        }
        ensure!(at == size, "the log ends within an entry");
        Ok(Self {
            file,
            entries,
            image: first,
            played: 0,
        })
    }

    /// The ends of the entries beyond one place and up to another.
    pub(super) fn ends(&self, from: u64, to: u64) -> Vec<u64> {
        let ends = self.entries.iter().map(|entry| entry.end);
        ends.filter(|end| *end > from && *end <= to).collect()
    }

    /// How many flushes there were.
    pub(super) fn flushes(&self) -> usize {
        let flush = |entry: &&Entry| entry.kind == Kind::Flush;
        self.entries.iter().filter(flush).count()
    }

    /// What the disk holds when the power is cut at this place of the log, as a new file. Cuts are
    /// made in their order.
    pub(super) fn cut(
        &mut self,
        at: u64,
        loss: Loss,
        random: &mut SplitMix,
        to: &Path,
    ) -> Result<()> {
        let before = self.entries.partition_point(|entry| entry.end <= at);
        let flush = |entry: &Entry| entry.kind == Kind::Flush;
        let flushed = self.entries[..before].iter().rposition(flush).unwrap_or(0);
        ensure!(self.played <= flushed, "a cut goes back");
        let image = File::options().write(true).open(&self.image)?;
        for entry in &self.entries[self.played..flushed] {
            self.play(entry, &image, u64::MAX)?;
        }
        self.played = flushed;
        copy(&self.image, to)?;
        let cut = File::options().write(true).open(to)?;
        for entry in &self.entries[flushed..before] {
            let most = match loss {
                Loss::All => 0,
                Loss::Nothing => u64::MAX,
                Loss::Some if random.next().is_multiple_of(2) => 0,
                Loss::Some if !random.next().is_multiple_of(TORN_EVERY) => u64::MAX,
                Loss::Some => random.next() % 16 * ATOM,
            };
            self.play(entry, &cut, most)?;
        }
        Ok(())
    }

    /// What is discarded may read as it did.
    fn play(&self, entry: &Entry, image: &File, most: u64) -> Result<()> {
        if let Kind::Write { at, bytes } = entry.kind {
            let mut data = vec![0; usize::try_from(bytes.min(most))?];
            self.file.read_exact_at(&mut data, entry.data)?;
            image.write_all_at(&data, at)?;
        }
        Ok(())
    }
}

fn entry(log: &File, at: u64) -> Result<Entry> {
    let mut header = [0; 32];
    log.read_exact_at(&mut header, at)?;
    let field = |number: usize| -> Result<u64> {
        let bytes = header[number * 8..].first_chunk();
        Ok(u64::from_le_bytes(*bytes.context("a field of 8 bytes")?))
    };
    let (sector, sectors, flags) = (field(0)?, field(1)?, field(2)?);
    let bytes = sectors * BLOCK;
    let (kind, follow) = match flags {
        0 => (
            Kind::Write {
                at: sector * BLOCK,
                bytes,
            },
            bytes,
        ),
        FLUSH => (Kind::Flush, 0),
        DISCARD => (Kind::Discard, 0),
        _ => bail!("an entry with the flags {flags:#x} at {at}"),
    };
    Ok(Entry {
        kind,
        data: at + BLOCK,
        end: at + BLOCK + follow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of writes of one block each, of its number, to that block; `None` is a flush.
    fn log(dir: &Path, entries: &[Option<u8>]) -> Result<Log> {
        let (first, log) = (dir.join("first"), dir.join("log"));
        std::fs::write(&first, [0; 8 * BLOCK as usize])?;
        let mut text = vec![0; BLOCK as usize];
        for entry in entries {
            let (sector, sectors, flags) = match entry {
                Some(number) => (u64::from(*number), 1_u64, 0),
                None => (0, 0, FLUSH),
            };
            let mut header = [sector, sectors, flags, 0].map(u64::to_le_bytes).concat();
            header.resize(BLOCK as usize, 0);
            text.extend(header);
            text.extend(
                entry
                    .map(|number| [number; BLOCK as usize])
                    .iter()
                    .flatten(),
            );
        }
        std::fs::write(&log, text)?;
        Log::open(first, &log)
    }

    fn held(image: &Path) -> Result<Vec<u8>> {
        let bytes = std::fs::read(image)?;
        let blocks = bytes.chunks(BLOCK as usize).map(|block| block[0]);
        Ok(blocks.filter(|number| *number > 0).collect())
    }

    #[test]
    fn what_was_flushed_stays_and_of_the_rest_any_part() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut log = log(
            dir.path(),
            &[Some(1), Some(2), None, Some(3), Some(4), None, Some(5)],
        )?;
        let (to, mut random) = (dir.path().join("cut"), SplitMix::of(1));
        let ends = log.ends(0, u64::MAX);
        assert_eq!((ends.len(), log.flushes()), (7, 2));
        let mut holds = |at: usize, loss| -> Result<Vec<u8>> {
            log.cut(ends[at], loss, &mut random, &to)?;
            held(&to)
        };
        assert_eq!(holds(1, Loss::All)?, [0; 0]);
        assert_eq!(holds(1, Loss::Nothing)?, [1, 2]);
        assert_eq!(holds(4, Loss::All)?, [1, 2]);
        assert_eq!(holds(4, Loss::Nothing)?, [1, 2, 3, 4]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            seen.insert(holds(4, Loss::Some)?);
        }
        assert!(seen.iter().all(|held| held.starts_with(&[1, 2])));
        assert!(
            seen.contains(&vec![1, 2, 4]) && seen.contains(&vec![1, 2, 3]),
            "{seen:?}"
        );
        assert_eq!(holds(6, Loss::All)?, [1, 2, 3, 4]);
        Ok(())
    }

    #[test]
    fn a_log_that_is_cut_off_is_an_error() -> Result<()> {
        let dir = tempfile::tempdir()?;
        log(dir.path(), &[Some(1)])?;
        let file = File::options().write(true).open(dir.path().join("log"))?;
        file.set_len(2 * BLOCK + 10)?;
        let opened = Log::open(dir.path().join("first"), &dir.path().join("log"));
        assert!(opened.is_err());
        Ok(())
    }
}
