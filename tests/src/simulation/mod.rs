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
//! Not simulated: several hosts or machines; storage that fails; an operator who resumes the guest
//! within the pivot; a definition that lags behind the live chain; an order for overlays that comes
//! twice or late, which nothing forbids yet.

mod agent;
mod client;
mod clock;
mod driver;
mod event;
mod guest;
mod host;
mod invariants;
mod mint;
mod network;
mod orders;
mod record;
mod run;
mod schedule;
mod server;
mod services;
mod trace;
mod world;

pub use agent::MergeStep;
pub use schedule::Seen;
pub use server::OperationStep;

use std::fmt;

use schedule::Schedule;

/// The functions that decide.
#[derive(Clone, Copy)]
pub struct Steps {
    /// For the agent.
    pub merge: MergeStep,
    /// For the server.
    pub operation: OperationStep,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            merge: livemerge_host_agent::merge::step::step,
            operation: livemerge_api_server::snapshot::step::step,
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
    Schedule::new(seed, steps, false)
        .run()
        .or_else(|_untraced| Schedule::new(seed, steps, true).run())
}
