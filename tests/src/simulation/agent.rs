//! The agent: what outlives it, what ends with it, and whose turn it is.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::merge::step::{Observation, Policy, Step};
use livemerge_host_agent::merge::{MergeRecord, Phase};
use livemerge_host_agent::overlays::Overlays;
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::MergeId;
use tokio::runtime::Runtime;

use super::clock::WallClock;
use super::driver::{Driver, Turn};
use super::event::Did;
use super::network::CallId;
use super::orders::Order;

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
    pub(super) clock: WallClock,
    pub(super) journal: BTreeMap<MergeId, MergeRecord>,
    /// The newest server that was obeyed.
    pub(super) fence: u64,
    /// The latest call for overlays that it has taken.
    pub(super) overlays: CallId,
    /// It has asked for a job on a disk where one ran.
    pub(super) doubled: bool,
    pub(super) process: Option<Process>,
}

/// What ends with the agent.
pub(super) struct Process {
    pub(super) hypervisor: Arc<FakeHypervisor>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) overlays: Overlays,
    /// Orders that it works on.
    pub(super) orders: Vec<Order>,
    /// Merges that have not ended, in the order of their turns.
    pub(super) drivers: Vec<Driver>,
}

impl Agent {
    pub(super) fn new(step: MergeStep) -> Self {
        Self {
            step,
            clock: WallClock::default(),
            journal: BTreeMap::new(),
            fence: 0,
            overlays: 0,
            doubled: false,
            process: None,
        }
    }

    /// Starts it: every merge of the journal goes on, those that may have stopped a guest first.
    pub(super) fn start(&mut self, process: Process, now: Duration) {
        let mut open: Vec<&MergeRecord> = self
            .journal
            .values()
            .filter(|record| !record.phase.ended())
            .collect();
        open.sort_by_key(|record| {
            let pending = matches!(record.phase, Phase::Pending);
            (pending, record.accepted_at, record.order.id)
        });
        let drivers = open
            .iter()
            .map(|record| Driver::new(record.order.id, &process.hypervisor, now))
            .collect();
        self.process = Some(Process { drivers, ..process });
    }

    /// The next small action of the merge whose turn it is.
    pub(super) fn go_on(&mut self, now: Duration, luck: Luck) -> Did {
        let Some(process) = self.process.as_mut() else {
            return Did::nothing("it does not run");
        };
        let Some(driver) = process.drivers.first_mut() else {
            return Did::nothing("no merge is open");
        };
        let record = self.journal.get_mut(&driver.merge);
        let record = record.expect("a driver's merge is in the journal");
        let turn = Turn {
            driver,
            record,
            hypervisor: &process.hypervisor,
            doubled: &mut self.doubled,
            now,
            luck,
        };
        let did = turn.go_on(self.step, self.clock.at(now));
        if record.phase.ended() {
            process.drivers.remove(0);
        }
        did
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
