//! The agent's durable memory of its merges: one append-only file a merge.
//!
//! ```text
//!   <dir>/0192…0f.merge      <crc32 of the text, 8 hex digits> <the whole record as JSON>\n
//!                            <crc32> <the record after the next change>\n
//!                            …
//! ```
//!
//! - A change is one appended line and one `fdatasync`; what [`Journal::write`] returned for is
//!   on disk. The last whole line is the record; the lines before it are its history.
//! - The first line is written beside, as `*.new`, and gets its name once it is on disk: what bears a
//!   merge's name begins with a whole line. What is left beside was never acknowledged, and goes.
//! - A last line without its end, or with a wrong sum, was never acknowledged (the machine stopped
//!   in the middle of it): it is cut off. Any other damage, and a file without a whole line, is
//!   somebody's doing: the file is set aside as `*.corrupt`, reported, and the other merges go on.
//! - A record of a merge that ended long ago is removed when the journal is opened; while it is
//!   open, when it is told so.

use super::types::MergeRecord;
use jiff::Timestamp;
use livemerge_proto::ids::MergeId;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SUFFIX: &str = "merge";
/// Of a file that is not one of the journal yet.
const UNFINISHED: &str = "new";
/// Of a file that cannot be read.
const LOST: &str = "corrupt";

/// The directory of the merges' files. Its calls block.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
}

/// What an opened journal holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// One record a merge, oldest first.
    pub(super) records: Vec<MergeRecord>,
}

impl Journal {
    /// Opens the directory, makes it if it is missing, and reads it. Merges that ended more than
    /// `keep` before `now` are forgotten.
    ///
    /// # Errors
    /// When the directory cannot be made, listed or written.
    pub(super) fn open(dir: &Path, keep: Duration, now: Timestamp) -> io::Result<(Self, Contents)> {
        fs::create_dir_all(dir)?;
        let journal = Self {
            dir: dir.to_owned(),
        };
        let mut contents = Contents::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let suffix = path.extension().and_then(OsStr::to_str);
            if suffix == Some(UNFINISHED) {
                fs::remove_file(&path)?;
                tracing::warn!(file = %path.display(), "a merge that was never accepted was dropped");
            }
            if suffix != Some(SUFFIX) {
                continue;
            }
            match read_file(&path)? {
                Found::Record(record) if outlived(&record, keep, now) => fs::remove_file(&path)?,
                Found::Record(record) => contents.records.push(*record),
                Found::Corrupt => set_aside(&path)?,
            }
        }
        journal.sync_dir()?;
        contents
            .records
            .sort_by_key(|record| (record.accepted_at, record.order.id));
        Ok((journal, contents))
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// When it cannot be told that it is durable. Nothing of what it announces may then be done.
    pub(super) fn write(&self, record: &MergeRecord) -> io::Result<()> {
        fail::fail_point!("agent::before-journal");
        let path = self.path(record.order.id);
        let line = encode(record)?;
        match OpenOptions::new().append(true).open(&path) {
            Ok(file) => append(file, &line)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(&path, &line)?,
            Err(error) => return Err(error),
        }
        fail::fail_point!("agent::after-journal");
        Ok(())
    }

    /// The first line of a file. One that is refused must not be there after a restart.
    fn begin(&self, path: &Path, line: &str) -> io::Result<()> {
        let unfinished = path.with_extension(UNFINISHED);
        let begun = File::create(&unfinished)
            .and_then(|mut file| {
                file.write_all(line.as_bytes())?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&unfinished, path))
            .and_then(|()| self.sync_dir());
        begun.inspect_err(|_| {
            for left in [&unfinished, path] {
                // What cannot be taken away is found by the next start.
                let _ = fs::remove_file(left);
            }
        })
    }

    /// Forgets a merge that has ended.
    ///
    /// # Errors
    /// When it cannot be told that it is forgotten.
    pub(super) fn forget(&self, id: MergeId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_dir(),
        }
    }

    /// Whether the journal had a merge of that id, and lost it: its file was set aside.
    pub(super) fn has_lost(&self, id: MergeId) -> io::Result<bool> {
        self.path(id).with_extension(LOST).try_exists()
    }

    /// The files that were set aside and are still there, by name.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(super) fn set_aside(&self) -> io::Result<Vec<PathBuf>> {
        let mut lost = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| suffix == LOST) {
                lost.push(path);
            }
        }
        lost.sort();
        Ok(lost)
    }

    fn path(&self, id: MergeId) -> PathBuf {
        self.dir.join(format!("{id}.{SUFFIX}"))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// What a file holds.
pub(super) enum Found {
    Record(Box<MergeRecord>),
    Corrupt,
}

/// Reads one file, and cuts off a last line that was never acknowledged.
fn read_file(path: &Path) -> io::Result<Found> {
    let bytes = fs::read(path)?;
    let (found, good) = read(&bytes);
    if matches!(found, Found::Record(_)) && good < bytes.len() {
        tracing::warn!(file = %path.display(), "the unfinished last line of a merge's journal was cut off");
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(good as u64)?;
        file.sync_all()?;
    }
    Ok(found)
}

fn append(mut file: File, line: &str) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file
        .write_all(line.as_bytes())
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line must not stay in the way of the next one.
        file.set_len(before)?;
    }
    written
}

/// What a file holds, and how many of its bytes were acknowledged.
pub(super) fn read(bytes: &[u8]) -> (Found, usize) {
    let mut last = None;
    let mut good = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match decode(line) {
            Line::Record(record) => {
                last = Some(record);
                good += line.len();
            }
            // Whole, and acknowledged: only another version of the agent can tell what it says.
            Line::Foreign => return (Found::Corrupt, good),
            Line::Torn if good + line.len() == bytes.len() => break,
            Line::Torn => return (Found::Corrupt, good),
        }
    }
    (last.map_or(Found::Corrupt, Found::Record), good)
}

pub(super) fn encode(record: &MergeRecord) -> io::Result<String> {
    let json = serde_json::to_string(record).map_err(io::Error::other)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

enum Line {
    Record(Box<MergeRecord>),
    Foreign,
    Torn,
}

fn decode(line: &[u8]) -> Line {
    match checked(line).map(serde_json::from_str) {
        Some(Ok(record)) => Line::Record(Box::new(record)),
        Some(Err(_unknown)) => Line::Foreign,
        None => Line::Torn,
    }
}

/// The text of a line that is whole.
fn checked(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, json) = text.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (sum == crc32fast::hash(json.as_bytes())).then_some(json)
}

pub(super) fn outlived(record: &MergeRecord, keep: Duration, now: Timestamp) -> bool {
    let ended_at = record.phase.ended_at();
    ended_at
        .is_some_and(|at| Duration::try_from(now.duration_since(at)).is_ok_and(|age| age > keep))
}

fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_extension(LOST);
    fs::rename(path, &aside)?;
    tracing::error!(file = %aside.display(), "a merge's journal is damaged and was set aside");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::samples::record;
    use crate::merge::types::Phase;

    const KEEP: Duration = Duration::from_secs(3600);

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn reopen(dir: &Path) -> Contents {
        Journal::open(dir, KEEP, now()).unwrap().1
    }

    fn lost(dir: &Path) -> Vec<PathBuf> {
        let (journal, _) = Journal::open(dir, KEEP, now()).unwrap();
        journal.set_aside().unwrap()
    }

    fn only_file(dir: &Path) -> PathBuf {
        fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
    }

    #[test]
    fn the_last_write_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, empty) = Journal::open(dir.path(), KEEP, now()).unwrap();
        assert!(empty.records.is_empty());
        let mut record = record(true);
        journal.write(&record).unwrap();
        record.phase = Phase::Copying {
            starts: 1,
            since: now(),
        };
        record.revision += 1;
        journal.write(&record).unwrap();
        assert_eq!(reopen(dir.path()).records, [record]);
    }

    #[test]
    fn every_torn_tail_gives_the_write_before() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let first = record(true);
        journal.write(&first).unwrap();
        let mut second = first.clone();
        second.phase = Phase::Copying {
            starts: 1,
            since: now(),
        };
        journal.write(&second).unwrap();
        let file = only_file(dir.path());
        let bytes = fs::read(&file).unwrap();
        let first_len = encode(&first).unwrap().len();
        for cut in first_len..bytes.len() {
            fs::write(&file, &bytes[..cut]).unwrap();
            let contents = reopen(dir.path());
            assert!(lost(dir.path()).is_empty(), "cut at {cut}");
            assert_eq!(
                contents.records,
                std::slice::from_ref(&first),
                "cut at {cut}"
            );
        }
    }

    /// It was acknowledged once, so what is lost is told of.
    #[test]
    fn a_file_without_a_whole_line_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let record = record(true);
        journal.write(&record).unwrap();
        let file = only_file(dir.path());
        let bytes = fs::read(&file).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&file, &bytes[..cut]).unwrap();
            assert_eq!(reopen(dir.path()).records, [], "cut at {cut}");
            let aside = file.with_extension("corrupt");
            assert_eq!(
                lost(dir.path()),
                std::slice::from_ref(&aside),
                "cut at {cut}"
            );
            assert!(journal.has_lost(record.order.id).unwrap());
            fs::remove_file(aside).unwrap();
        }
    }

    /// A crash before the first line was whole leaves nothing, and nothing to tell of.
    #[test]
    fn what_was_never_acknowledged_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let record = record(true);
        let bytes = encode(&record).unwrap().into_bytes();
        for cut in [0, 1, bytes.len() - 1, bytes.len()] {
            let unfinished = journal.path(record.order.id).with_extension("new");
            fs::write(&unfinished, &bytes[..cut]).unwrap();
            assert_eq!(reopen(dir.path()).records, [], "cut at {cut}");
            assert!(lost(dir.path()).is_empty() && !unfinished.exists());
        }
        journal.write(&record).unwrap();
        assert_eq!(reopen(dir.path()).records, [record]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn after_a_torn_tail_the_next_write_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let record = record(true);
        journal.write(&record).unwrap();
        let file = only_file(dir.path());
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(b"00000000 {\"half");
        fs::write(&file, bytes).unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        journal.write(&record).unwrap();
        assert_eq!(reopen(dir.path()).records, [record]);
    }

    #[test]
    fn damage_is_set_aside_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let damaged = record(true);
        journal.write(&damaged).unwrap();
        journal.write(&damaged).unwrap();
        let file = only_file(dir.path());
        let mut bytes = fs::read(&file).unwrap();
        bytes[20] ^= 1;
        fs::write(&file, bytes).unwrap();
        let sound = record(false);
        journal.write(&sound).unwrap();
        let contents = reopen(dir.path());
        assert_eq!(contents.records, [sound]);
        let aside = [file.with_extension("corrupt")];
        // It is shown until somebody takes it away.
        assert_eq!(lost(dir.path()), aside);
        assert_eq!(lost(dir.path()), aside);
        fs::remove_file(&aside[0]).unwrap();
        assert!(lost(dir.path()).is_empty());
    }

    #[test]
    fn a_line_of_another_version_is_never_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        journal.write(&record(true)).unwrap();
        let file = only_file(dir.path());
        let mut bytes = fs::read(&file).unwrap();
        let json = "{\"phase\":\"of_tomorrow\"}";
        bytes.extend(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).bytes());
        fs::write(&file, &bytes).unwrap();
        let contents = reopen(dir.path());
        assert!(contents.records.is_empty());
        let aside = file.with_extension("corrupt");
        assert_eq!(lost(dir.path()), std::slice::from_ref(&aside));
        assert_eq!(fs::read(aside).unwrap(), bytes);
    }

    #[test]
    fn old_ends_are_forgotten_open_merges_never() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), KEEP, now()).unwrap();
        let open = record(true);
        journal.write(&open).unwrap();
        let mut ended = record(false);
        ended.phase = Phase::Merged {
            at: Timestamp::from_second(0).unwrap(),
        };
        journal.write(&ended).unwrap();
        assert_eq!(reopen(dir.path()).records, [open]);
    }
}
