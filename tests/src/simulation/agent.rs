//! The agent: what outlives it, what ends with it, and whose turn it is.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::latest::Latest;
use livemerge_host_agent::merge::step::{Observation, Policy, Step};
use livemerge_host_agent::merge::{MergeRecord, Phase};
use livemerge_host_agent::overlays::Overlays;
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::MergeId;
use tokio::runtime::Runtime;

use super::clock::WallClock;
use super::driver::{Driver, Journal, Turn};
use super::event::Did;
use super::orders::Order;
use super::schedule::Seen;

/// The function under test, or a wrong one that the invariants must catch.
pub type MergeStep = fn(&MergeRecord, &Observation, &Policy, Timestamp) -> Step;

/// How a write of the journal, or a call of the hypervisor, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    Good,
    /// Nothing is done, and it says so, or nobody knows.
    NotDone,
    /// The hypervisor says no.
    Refused,
    /// It is done, and nobody is told.
    NotTold,
}

/// What outlives the agent, and the agent.
pub(super) struct Agent {
    pub(super) step: MergeStep,
    /// It does whatever it is told, whenever it comes: wrong.
    pub(super) takes_late: bool,
    pub(super) clock: WallClock,
    pub(super) journal: Journal,
    /// Written down of an order of which not all is: nobody was told that it is accepted.
    pub(super) half_accepted: Vec<MergeRecord>,
    /// The newest server that was obeyed.
    pub(super) fence: u64,
    /// The last order that it has taken.
    pub(super) latest: Arc<Latest>,
    /// What it has asked of the hypervisor and must never.
    pub(super) wrong: Option<String>,
    pub(super) process: Option<Process>,
}

/// What ends with the agent.
pub(super) struct Process {
    pub(super) hypervisor: Arc<FakeHypervisor>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) overlays: Overlays,
    /// Orders that it works on.
    pub(super) orders: Vec<Order>,
    /// Drivers whose merges have not all ended, in the order of their turns.
    pub(super) drivers: Vec<Driver>,
}

impl Agent {
    pub(super) fn new(step: MergeStep, takes_late: bool) -> Self {
        Self {
            step,
            takes_late,
            clock: WallClock::default(),
            journal: Journal::new(),
            half_accepted: Vec::new(),
            fence: 0,
            latest: Arc::default(),
            wrong: None,
            process: None,
        }
    }

    /// Starts it: every merge of the journal goes on, those that may have stopped a guest first. Of
    /// an order that was written down in part nothing is kept.
    pub(super) fn start(&mut self, process: Process, now: Duration) {
        self.half_accepted.clear();
        let mut groups: BTreeMap<MergeId, Vec<&MergeRecord>> = BTreeMap::new();
        for record in self.journal.values() {
            let first = record.order.together.iter().min();
            let first = first.copied().unwrap_or(record.order.id);
            groups.entry(first).or_default().push(record);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.retain(|group| group.iter().any(|record| !record.phase.ended()));
        let pending = |record: &&MergeRecord| matches!(record.phase, Phase::Pending);
        groups.sort_by_key(|group| (group.iter().all(pending), group[0].accepted_at));
        let drivers = groups.iter().map(|group| {
            let merges: Vec<_> = group.iter().map(|record| record.order.id).collect();
            Driver::new(&merges, &process.hypervisor, now)
        });
        let drivers = drivers.collect();
        self.process = Some(Process { drivers, ..process });
    }

    /// The next small action of the merges whose turn it is.
    pub(super) fn go_on(&mut self, now: Duration, luck: Luck, seen: &mut Seen) -> Did {
        let Some(process) = self.process.as_mut() else {
            return Did::nothing("it does not run");
        };
        let Some(driver) = process.drivers.first_mut() else {
            return Did::nothing("no merge is open");
        };
        let turn = Turn {
            driver,
            journal: &mut self.journal,
            hypervisor: &process.hypervisor,
            wrong: &mut self.wrong,
            seen,
            now,
            luck,
        };
        let did = turn.go_on(self.step, self.clock.at(now));
        self.end_drivers();
        did
    }

    pub(super) fn end_drivers(&mut self) {
        if let Some(process) = self.process.as_mut() {
            let journal = &self.journal;
            process.drivers.retain(|driver| !driver.ended(journal));
        }
    }
}

/// Time limits of calls want a runtime, though here none is ever reached.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

/// The simulated host answers at once.
pub(super) fn answered<F: Future>(call: F) -> F::Output {
    let _within = RUNTIME.enter();
    call.now_or_never()
        .expect("nothing in the simulated host waits")
}
