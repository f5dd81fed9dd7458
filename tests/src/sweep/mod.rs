//! The fault sweep: every fault at every step of both services, in one process.
//!
//! ```text
//!   scenario ─▶ dry run ─▶ which sites are passed how often
//!                              │ each (site, passing, fault)
//!                              ▼
//!   cluster ◀─ Backstage ◀─ Stage ─▶ fault ─▶ recovery ─▶ operations end ─▶ looks
//!      ▲                      ▲                  │ each point passed: a second crash
//!      └── World, Ledger ─────┘ violations       ▼
//! ```
//!
//! - A *site* is a point in a service's code, or a call of hypervisor, storage, store or RPC.
//! - A service that crashes at a point goes no step further: its runtime is dropped there and then.
//! - [`world`] moves QEMU and the guest and looks after each step whether an acknowledged write is
//!   lost; [`ledger`] holds the record against the storage all the time; [`backstage`] asks at each
//!   removal who still needs the volume; [`client`] looks at the end.
//! - A fault that never came about is counted as skipped, not as passed; what is left out on purpose is
//!   counted and told with its reason.
//!
//! Nothing is drawn at random, but threads run as they like: a case that fails once is a failure.

pub mod backstage;
mod beside;
pub mod case;
pub mod client;
pub mod fault;
pub mod host;
pub mod ledger;
mod look;
pub mod record;
pub mod report;
mod request;
pub mod rows;
pub mod scenario;
pub mod stage;
pub mod tally;
pub mod world;

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;

use case::{Case, Ended, Ending};
use fault::sites;
use report::Report;
use scenario::{SCENARIOS, Scenario};
use stage::Hits;
pub use tally::Tally;

/// How often a case whose fault did not come about is played.
const TRIES: usize = 5;

/// Which cases are played, and how.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Only cases whose name has this part.
    pub only: Option<String>,
    /// Cases of one fault.
    pub singles: bool,
    /// Cases of a second fault after the first. Those of one fault that lead to them are played, and do
    /// not count where they are not wanted.
    pub pairs: bool,
    /// How many cases are played side by side. Most of a case is waiting.
    pub jobs: usize,
}

/// Plays every case that the filter lets through, and prints what came of them.
///
/// # Errors
/// When a scenario does not even succeed without faults, a fault point is passed by none, or the
/// filter lets nothing through.
#[allow(clippy::print_stdout, reason = "it is a report")]
pub async fn run(filter: &Filter) -> Result<Tally> {
    let mut passed = Vec::new();
    for scenario in &SCENARIOS {
        passed.push((scenario, dry_run(scenario).await?));
    }
    every_point_is_passed(&passed)?;
    let only = filter.only.as_deref().unwrap_or_default();
    let lets_through = |case: &Case| case.to_string().contains(only);
    let leads_to_pairs = |case: &Case| {
        let through = lets_through(case) || only.contains(&case.to_string());
        filter.pairs && rows::has_seconds(case) && through
    };
    let mut report = Report::default();
    let mut wanted = Vec::new();
    for (row, hits) in &passed {
        let (cases, left_out) = rows::singles(row, hits);
        wanted.extend(cases);
        report.leave_out(left_out);
    }
    let mut pairs = Vec::new();
    let single = |case: &Case| filter.singles && lets_through(case);
    wanted.retain(|case| single(case) || leads_to_pairs(case));
    let mut progress = Progress::of(wanted.len());
    play(wanted, filter.jobs, |case, ended| {
        if leads_to_pairs(&case) {
            let (cases, left_out) = rows::seconds(&case, &ended.hits);
            pairs.extend(cases);
            report.leave_out(left_out);
        }
        if single(&case) {
            report.note(&case, &ended.ending);
        }
        progress.one_more();
    })
    .await;
    pairs.retain(lets_through);
    let mut progress = Progress::of(pairs.len());
    play(pairs, filter.jobs, |case, ended| {
        report.note(&case, &ended.ending);
        progress.one_more();
    })
    .await;
    println!("{report}");
    let tally = report.tally();
    ensure!(
        tally.cases + tally.skipped > 0,
        "no case has {only:?} in its name"
    );
    Ok(tally)
}

/// How far a long run is.
struct Progress {
    played: usize,
    all: usize,
}

impl Progress {
    const EACH: usize = 500;

    fn of(all: usize) -> Self {
        Self { played: 0, all }
    }

    #[allow(clippy::print_stdout, reason = "it is a report")]
    fn one_more(&mut self) {
        self.played += 1;
        if self.played.is_multiple_of(Self::EACH) || self.played == self.all {
            println!("{} of {} cases played", self.played, self.all);
        }
    }
}

/// Plays cases side by side, each until its faults have come about, and tells of each as it ends.
pub async fn play(cases: Vec<Case>, jobs: usize, mut each: impl FnMut(Case, Ended)) {
    let played = futures::stream::iter(cases).map(|case| async move {
        let player = case.clone();
        let ended = tokio::spawn(async move { insist(&player).await }).await;
        let ended = ended.unwrap_or_else(|died| Ended {
            ending: Ending::Broken(vec![died.to_string()]),
            hits: Hits::new(),
        });
        (case, ended)
    });
    let mut played = std::pin::pin!(played.buffer_unordered(jobs));
    while let Some((case, ended)) = played.next().await {
        each(case, ended);
    }
}

async fn insist(case: &Case) -> Ended {
    let mut ended = case.play().await;
    for _ in 1..TRIES {
        if ended.ending != Ending::Missed {
            break;
        }
        ended = case.play().await;
    }
    ended
}

/// What a scenario passes without faults.
///
/// # Errors
/// When it does not succeed.
pub async fn dry_run(scenario: &'static Scenario) -> Result<Hits> {
    let case = Case {
        scenario,
        plans: vec![],
    };
    let ended = case.play().await;
    let kept = matches!(ended.ending, Ending::Kept(_));
    ensure!(kept, "{case} without faults: {:?}", ended.ending);
    Ok(ended.hits)
}

/// A row, and what it passes without faults.
pub type Passed = (&'static Scenario, Hits);

/// A point that nothing passes would prove nothing.
///
/// # Errors
/// Names a point that no row passes.
pub fn every_point_is_passed(passed: &[Passed]) -> Result<()> {
    for site in sites() {
        let by = passed.iter().find(|(_, hits)| hits.contains_key(site));
        by.with_context(|| format!("no scenario passes {site}"))?;
    }
    Ok(())
}
