//! Both state machines, decided by the real `step` functions, in a simulated world: one thread, no
//! clock, no I/O. A seed is a whole run, and the same seed is the same run.
//!
//! ```text
//!   seed ─▶ schedule ─▶ one event ─▶ world ─▶ invariants ─▶ the next event …
//!                                      ├ guest    writes, and remembers what was acknowledged
//!                                      ├ host     FakeHypervisor, FakeImages: jobs and data
//!                                      ├ agent    host-agent's `merge::step`, journal, orders
//!                                      ├ network  requests, replies, the host's stream
//!                                      ├ server   api-server's `snapshot::step`, record
//!                                      └ client   asks, and repeats itself
//! ```
//!
//! A run has two parts: first anything may happen, then faults stop, everything must come to rest
//! within bounds, and deleting what is left must succeed.
//!
//! What drives the steps (lanes, drivers, the store, the lines) is written anew here, in small
//! actions with the end of the process possible between any two; that the real ones do the same is
//! shown by the cluster's tests.
//!
//! A run that breaks an invariant gives its [`Tape`]: the events and what each has drawn, which can be
//! shortened to what the finding needs, and play again exactly. A tape is for finding the cause: with
//! other steps its events come to mean something else, so what was mended is kept as a test of the
//! step's own, and not as a tape.
//!
//! Not simulated: several hosts or machines; the limits of a host on merges side by side; storage
//! that fails while an overlay is undone, or in a survey; an operator who resumes the guest within
//! the pivot, or starts a machine before the agent has made its chain whole; a definition that lags
//! behind the live chain.

mod agent;
mod client;
mod clock;
mod convert;
mod driver;
mod event;
mod guest;
mod host;
mod invariants;
mod member;
mod mint;
mod network;
mod orders;
mod record;
mod run;
mod schedule;
mod seen;
mod server;
mod services;
mod storage;
mod tape;
mod trace;
mod wishes;
mod world;

pub use agent::MergeStep;
pub use seen::Seen;
pub use server::OperationStep;
pub use tape::Tape;

use std::fmt;

use schedule::Schedule;
use trace::Traced;

/// The functions that decide.
#[derive(Clone, Copy)]
pub struct Steps {
    /// For the agent.
    pub merge: MergeStep,
    /// For the server.
    pub operation: OperationStep,
    /// Whether a restarted server goes by the operations' ids, which a clock that was set back makes
    /// wrong, instead of by their acceptance.
    pub sorts_by_id: bool,
    /// Whether an agent does whatever it is told whenever it comes: it looks neither at the order's
    /// number nor at its server's generation.
    pub takes_late: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            merge: livemerge_host_agent::merge::step::step,
            operation: livemerge_api_server::snapshot::step::step,
            sorts_by_id: false,
            takes_late: false,
        }
    }
}

/// A run that broke an invariant.
#[derive(Debug)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// How many events it took.
    pub events: usize,
    /// What is broken.
    pub broken: String,
    /// The last events.
    pub trace: Vec<String>,
    /// All of them, to be played again.
    pub tape: Tape,
}

impl Violation {
    /// The name of what is broken, without how.
    pub fn invariant(&self) -> &str {
        self.broken.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "seed {} after {} events: {}",
            self.seed, self.events, self.broken
        )?;
        write!(f, "again with LIVEMERGE_SEED={}", self.seed)
    }
}

/// Runs a seed to its end. Tells what it has gone through.
///
/// # Errors
/// The first violation, with the last events before it.
pub fn run(seed: u64, steps: Steps) -> Result<Seen, Box<Violation>> {
    // The trace costs more than the run: only a run that failed is traced, by running it again.
    Schedule::new(seed, steps, Traced::Not)
        .run()
        .or_else(|_untraced| Schedule::new(seed, steps, Traced::Last).run())
}

/// Everything that happens in a seed's run, line by line.
pub fn told(seed: u64, steps: Steps) -> Vec<String> {
    Schedule::new(seed, steps, Traced::Whole).told()
}

/// Plays a tape, and what follows it once faults stop.
///
/// # Errors
/// As [`run`].
pub fn replay(tape: &Tape, steps: Steps) -> Result<Seen, Box<Violation>> {
    let play = |traced| Schedule::new(tape.world, steps, traced).replay(tape);
    play(Traced::Not).or_else(|_untraced| play(Traced::Last))
}
