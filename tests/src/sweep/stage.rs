//! Where a case plays: counts what the run passes, and lets the planned faults happen there.
//!
//! Fault points are global to the process, cases are not: each thread of a service knows the stage
//! that it plays on, so that many cases run side by side.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use livemerge_api_server::snapshot::Snapshot;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_proto::ids::VmId;
use tokio::sync::Notify;

use super::fault::{ACCEPTANCE, Fault, POINTS, Site};
use crate::cluster::{Cluster, Network, Service, Who};

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub site: Site,
    /// At which passing, from 1; of a later plan counted from the fault before it.
    pub hit: usize,
    /// What.
    pub fault: Fault,
}

/// How often each site was passed.
pub type Hits = BTreeMap<Site, usize>;

/// One case's stage.
#[derive(Default)]
pub struct Stage {
    state: Mutex<State>,
    props: Mutex<Option<Props>>,
    /// Something must be set up again.
    pub fallen: Notify,
}

#[derive(Default)]
struct State {
    armed: bool,
    was_armed: bool,
    plans: VecDeque<Plan>,
    /// Since the last fault.
    hits: Hits,
    violations: Vec<String>,
    /// The snapshots as the record has had them last.
    record: Vec<Snapshot>,
}

/// What faults happen to.
#[derive(Clone)]
struct Props {
    server: Service,
    agent: Service,
    network: Network,
    hypervisor: FakeHypervisor,
    vm: VmId,
}

impl Props {
    /// With it go the jobs of machines that have no QEMU.
    fn crash_agent(&self) {
        self.agent.crash();
        self.hypervisor.lose_offline_jobs();
    }
}

impl Stage {
    /// With these faults to come, once it is armed.
    pub fn new(plans: &[Plan]) -> Arc<Self> {
        register_points();
        let stage = Self::default();
        stage.state().plans = plans.iter().copied().collect();
        Arc::new(stage)
    }

    /// From now on passings count and faults happen.
    pub fn arm(&self, cluster: &Cluster, vm: VmId) {
        *self.props() = Some(Props {
            server: cluster.server.clone(),
            agent: cluster.agent.clone(),
            network: cluster.network.clone(),
            hypervisor: cluster.hypervisor.clone(),
            vm,
        });
        let mut state = self.state();
        (state.armed, state.was_armed) = (true, true);
    }

    /// Whether faults could come.
    pub fn was_armed(&self) -> bool {
        self.state().was_armed
    }

    /// No more faults. Returns how often each site was passed since the last one.
    pub fn disarm(&self) -> Hits {
        *self.props() = None;
        let mut state = self.state();
        state.armed = false;
        std::mem::take(&mut state.hits)
    }

    /// The faults that have not happened.
    pub fn pending(&self) -> Vec<Plan> {
        self.state().plans.iter().copied().collect()
    }

    /// The record says this from now on.
    pub fn recorded(&self, snapshots: Vec<Snapshot>) {
        self.state().record = snapshots;
    }

    /// What the record has said last.
    pub fn record(&self) -> Vec<Snapshot> {
        self.state().record.clone()
    }

    /// Notes what must never be.
    pub fn violated(&self, what: String) {
        let mut state = self.state();
        if !state.violations.contains(&what) {
            state.violations.push(what);
        }
    }

    /// What was seen that must never be.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The run passes a site. What befalls services, machine or line happens here; what else is
    /// due is left to the caller.
    pub fn pass(&self, site: Site) -> Option<Fault> {
        let fault = self.due(site)?;
        let props = self.props().clone()?;
        match fault {
            Fault::Crash(Who::Server) => props.server.crash(),
            Fault::Crash(Who::Agent) => props.crash_agent(),
            Fault::CrashBoth => {
                props.server.crash();
                props.crash_agent();
            }
            Fault::KillVm => props.hypervisor.kill_vm(props.vm),
            Fault::StartVm => drop(props.hypervisor.start_vm(props.vm)),
            Fault::HostDies => {
                props.crash_agent();
                props.hypervisor.kill_vm(props.vm);
            }
            Fault::HalfWritten => props.crash_agent(),
            Fault::Disconnect => props.hypervisor.disconnect(),
            Fault::BreakLine => props.network.break_line(Who::Agent.address()),
            Fault::JobFails | Fault::JobCancelled | Fault::DiesAtTheEnd => return Some(fault),
            Fault::Error | Fault::Upset(_) => return Some(fault),
        }
        self.fallen.notify_one();
        Some(fault)
    }

    fn due(&self, site: Site) -> Option<Fault> {
        let mut state = self.state();
        if !state.armed {
            return None;
        }
        let hits = state.hits.entry(site).or_default();
        *hits += 1;
        let hits = *hits;
        let plan = state
            .plans
            .pop_front_if(|plan| (plan.site, plan.hit) == (site, hits))?;
        state.hits.clear();
        Some(plan.fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn props(&self) -> MutexGuard<'_, Option<Props>> {
        self.props.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static PLAYS: RefCell<Option<(Arc<Stage>, Who)>> = const { RefCell::new(None) };
}

/// This thread belongs to a service on that stage.
pub fn enter(stage: &Arc<Stage>, who: Who) {
    PLAYS.set(Some((Arc::clone(stage), who)));
}

fn register_points() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for site in POINTS.into_iter().chain(ACCEPTANCE) {
            fail::cfg_callback(site, move || reached(site))
                .expect("a callback is no text to parse");
        }
    });
}

/// A service's code reaches a point. A service that dies there goes no step further.
fn reached(site: Site) {
    let Some((stage, who)) = PLAYS.with_borrow(Clone::clone) else {
        return;
    };
    let dies = match stage.pass(site) {
        Some(Fault::Crash(victim)) => victim == who,
        Some(Fault::HostDies) => who == Who::Agent,
        Some(Fault::CrashBoth | Fault::Error) => true,
        _ => false,
    };
    if dies {
        // Without the hook that prints: it is meant.
        resume_unwind(Box::new("as the test has planned"));
    }
}
