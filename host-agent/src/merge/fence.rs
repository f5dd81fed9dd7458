//! Refuses orders of a server that a newer one has replaced, and every order once this agent was replaced.
//!
//! The highest generation ever seen is kept in a file, so that a restart forgets nothing. The
//! same directory counts the agent's own starts, which is the generation that it registers with.

use livemerge_proto::{problem::Problem, reason::Reason};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The highest generation of the API server that this agent has obeyed.
#[derive(Debug)]
pub struct Fence {
    file: PathBuf,
    highest: Mutex<u64>,
    closed: AtomicBool,
}

impl Fence {
    /// Reads the highest generation; none yet is 0.
    ///
    /// # Errors
    /// When the file is there but cannot be read as a number: then nothing may be obeyed.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = dir.join("server-generation");
        Ok(Self {
            highest: Mutex::new(read(&file)?),
            closed: AtomicBool::new(false),
            file,
        })
    }

    /// Lets an order of this generation through, or not.
    ///
    /// # Errors
    /// `STALE_GENERATION` for an older one, or when it is this agent that is too old; `STORE_UNAVAILABLE` when a newer one cannot be written
    /// down: then it is not obeyed yet.
    pub async fn pass(self: &Arc<Self>, given: u64) -> Result<(), Problem> {
        let fence = Arc::clone(self);
        let passed = tokio::task::spawn_blocking(move || fence.pass_blocking(given)).await;
        passed.unwrap_or_else(|died| Err(Problem::new(Reason::InternalBug, died.to_string())))
    }

    /// Lets nothing through from now on: this agent was replaced.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn pass_blocking(&self, given: u64) -> Result<(), Problem> {
        let mut highest = self
            .highest
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.closed.load(Ordering::SeqCst) {
            let text = "a newer agent has taken this one's place: it takes no orders";
            return Err(Problem::new(Reason::StaleGeneration, text));
        }
        if given < *highest {
            let text = format!("generation {highest} has given orders, {given} is older");
            let problem = Problem::new(Reason::StaleGeneration, text);
            return Err(problem.with("given", given).with("known", *highest));
        }
        if given > *highest {
            write(&self.file, given).map_err(|error| {
                tracing::error!(%error, "the server's generation cannot be written down");
                Problem::new(
                    Reason::StoreUnavailable,
                    "the agent's journal cannot be written",
                )
            })?;
            *highest = given;
        }
        Ok(())
    }
}

/// Counts a start of the agent and gives its generation, 1 or more, never given before.
///
/// # Errors
/// When the count cannot be read or written.
pub fn next_own_generation(dir: &Path) -> io::Result<u64> {
    let file = dir.join("agent-generation");
    let next = read(&file)? + 1;
    write(&file, next)?;
    Ok(next)
}

fn read(file: &Path) -> io::Result<u64> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is no number", file.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Writes a file of one line: it is there whole, or as it was before. Blocks.
pub(crate) fn write(file: &Path, line: impl Display) -> io::Result<()> {
    let temporary = file.with_extension("new");
    let mut out = File::create(&temporary)?;
    writeln!(out, "{line}")?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    let dir = file.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn older_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let fence = Arc::new(Fence::open(dir.path()).unwrap());
        fence.pass(3).await.unwrap();
        fence.pass(3).await.unwrap();
        assert_eq!(
            fence.pass(2).await.unwrap_err().reason,
            Reason::StaleGeneration
        );
        let fence = Arc::new(Fence::open(dir.path()).unwrap());
        assert_eq!(
            fence.pass(2).await.unwrap_err().reason,
            Reason::StaleGeneration
        );
        fence.pass(4).await.unwrap();
    }

    #[test]
    fn an_unreadable_generation_stops_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("server-generation"), "what").unwrap();
        assert!(Fence::open(dir.path()).is_err());
    }

    #[test]
    fn each_start_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_own_generation(dir.path()).unwrap(), 1);
        assert_eq!(next_own_generation(dir.path()).unwrap(), 2);
    }
}
