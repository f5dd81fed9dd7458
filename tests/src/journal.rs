//! The agent's journal, read as the text that it is, while the agent runs or not.
//!
//! It is the earliest sign of what the agent is about to do: a line is there before its act.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A line is written a millisecond or two before the act that it announces.
const POLL: Duration = Duration::from_micros(100);

/// The directory of the merges' files.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
}

/// One line: where a merge stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `pending`, `copying`, `ready`, `pivoting`, `verifying`, `merged`, `failed`.
    pub phase: String,
    /// How often the block job was asked for; only of `copying`.
    pub starts: Option<u64>,
    /// `suspending`, `intent`, `releasing`; only of `pivoting`.
    pub window: Option<String>,
}

impl Journal {
    /// The journal in this directory.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The file of a merge.
    pub fn file(&self, merge: &str) -> PathBuf {
        self.dir.join(format!("{merge}.merge"))
    }

    /// Where the file of a merge is put when it is damaged.
    pub fn set_aside(&self, merge: &str) -> PathBuf {
        self.dir.join(format!("{merge}.corrupt"))
    }

    /// The merges that have a file, in no order.
    pub fn merges(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let own = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "merge"));
        own.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    /// Everything that was written down of a merge, oldest first. A line that is being written is
    /// not there yet.
    pub fn history(&self, merge: &str) -> Result<Vec<Line>> {
        let file = self.file(merge);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let whole = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        whole.map(parse).collect()
    }

    /// Waits until a merge that is none of the `known` ones has a line that `wanted` takes. Returns
    /// its id. Blocks.
    pub fn until(
        &self,
        known: &[String],
        limit: Duration,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<String> {
        let begun = Instant::now();
        loop {
            let mut merges = self.merges();
            merges.retain(|merge| !known.contains(merge));
            for merge in merges {
                // The file may be there before its first line.
                let lines = self.history(&merge).unwrap_or_default();
                if lines.iter().any(&wanted) {
                    return Ok(merge);
                }
            }
            if begun.elapsed() > limit {
                bail!("no merge came so far in {limit:?}");
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The highest count of starts in a history: 1 when the job was asked for once.
pub fn starts(history: &[Line]) -> u64 {
    let counts = history.iter().filter_map(|line| line.starts);
    counts.max().unwrap_or_default()
}

/// Cuts the file in the middle of its first line.
pub fn cut(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let first = text.find('\n').context("the file has no line")?;
    Ok(fs::write(file, &text[..first / 2])?)
}

/// Changes a byte in the middle of the first of several lines.
pub fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let first = bytes.iter().position(|byte| *byte == b'\n');
    let first = first.context("the file has no line")?;
    bytes[first / 2] ^= 1;
    Ok(fs::write(file, bytes)?)
}

fn parse(line: &str) -> Result<Line> {
    let (_sum, json) = line.split_once(' ').context("a line without a sum")?;
    let record: Value = serde_json::from_str(json)?;
    let phase = &record["phase"];
    let (name, of_it) = match phase.as_object().and_then(|phase| phase.iter().next()) {
        Some((name, of_it)) => (name.as_str(), of_it.clone()),
        None => (
            phase.as_str().context("a line without a phase")?,
            Value::Null,
        ),
    };
    Ok(Line {
        phase: name.to_owned(),
        starts: of_it["starts"].as_u64(),
        window: of_it["window"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00000000 {\"phase\":\"pending\"}\n\
        00000000 {\"phase\":{\"copying\":{\"starts\":2,\"since\":\"x\"}}}\n\
        00000000 {\"phase\":{\"pivoting\":{\"window\":\"intent\"}}}\n00000000 {\"pha";

    #[test]
    fn whole_lines_are_read_and_the_phase_is_waited_for() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let journal = Journal::at(dir.path().to_owned());
        fs::write(journal.file("a"), TEXT)?;
        let history = journal.history("a")?;
        let phases: Vec<_> = history.iter().map(|line| line.phase.as_str()).collect();
        assert_eq!(phases, ["pending", "copying", "pivoting"]);
        assert_eq!(starts(&history), 2);
        assert_eq!(history[2].window.as_deref(), Some("intent"));
        let short = Duration::from_millis(5);
        let copies = |line: &Line| line.phase == "copying";
        assert_eq!(journal.until(&[], short, copies)?, "a");
        assert!(journal.until(&["a".into()], short, copies).is_err());
        Ok(())
    }
}
