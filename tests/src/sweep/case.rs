//! One case: a scenario with its faults, played from the start to the last check.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use livemerge_host_agent::hypervisor::Hypervisor as _;
use livemerge_host_agent::hypervisor::fake::{GuestAgent, Pace};
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;

use super::backstage::{Backstage, Witness};
use super::beside;
use super::client::Client;
use super::ledger::Ledger;
use super::scenario::{Also, Scenario, Work};
use super::stage::{Hits, Plan, Stage};
use super::world::World;
use crate::cluster::{Between, Cluster, Who};

/// Until the guest is frozen no more, at the end of a case.
const THAW: Duration = Duration::from_secs(60);
/// All of a case, its recovery and its second try included. Far more than a busy machine takes: only
/// what never ends comes to it.
const LIMIT: Duration = Duration::from_secs(600);
/// How often a case is set up.
const SETUPS: usize = 5;
/// How long a service stays dead.
const DEAD: Duration = Duration::from_millis(40);
/// How long a line stays broken.
const BROKEN: Duration = Duration::from_millis(200);

/// A scenario with its faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is done.
    pub scenario: &'static Scenario,
    /// What happens meanwhile, in this order.
    pub plans: Vec<Plan>,
}

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// How often each site was passed since the last fault.
    pub hits: Hits,
}

/// How a case ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All promises were kept; how the operations ended.
    Kept(String),
    /// Promises were broken.
    Broken(Vec<String>),
    /// A fault never came about.
    Missed,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.name)?;
        for Plan { site, hit, fault } in &self.plans {
            write!(f, " / {site} #{hit}: {fault}")?;
        }
        Ok(())
    }
}

impl Case {
    /// Plays it. What goes wrong is an ending, not an error. On a busy machine the services may refuse
    /// for want of time what the case is made of: before its faults can come it is set up anew.
    pub async fn play(&self) -> Ended {
        for _ in 1..SETUPS {
            let stage = Stage::new(&self.plans);
            let ended = Box::pin(self.play_on(&stage)).await;
            if stage.was_armed() {
                return ended;
            }
        }
        Box::pin(self.play_on(&Stage::new(&self.plans))).await
    }

    async fn play_on(&self, stage: &Arc<Stage>) -> Ended {
        let played = tokio::time::timeout(LIMIT, Box::pin(self.try_play(stage))).await;
        let (played, hits) = match played {
            Ok(Ok((outcomes, hits))) => (Ok(outcomes), hits),
            Ok(Err(error)) => (Err(format!("{error:#}")), Hits::new()),
            Err(_elapsed) => (Err(format!("not over after {LIMIT:?}")), Hits::new()),
        };
        stage.disarm();
        let mut broken = stage.violations();
        let ending = match played {
            Err(why) => {
                broken.push(why);
                Ending::Broken(broken)
            }
            Ok(_) if !broken.is_empty() => Ending::Broken(broken),
            Ok(_) if !stage.pending().is_empty() => Ending::Missed,
            Ok(outcomes) => Ending::Kept(outcomes),
        };
        Ended { ending, hits }
    }

    async fn try_play(&self, stage: &Arc<Stage>) -> Result<(String, Hits)> {
        let backstage = Arc::new(Backstage {
            stage: Arc::clone(stage),
            witness: std::sync::OnceLock::new(),
        });
        let between: Arc<dyn Between> = Arc::clone(&backstage) as _;
        let beside = self.scenario.beside;
        let mut cluster = Cluster::start_with(Pace::Manual, between, beside.settings()).await?;
        cluster.volumes.allocate(self.scenario.allocated_bytes);
        let vm = cluster.add_vm("vm", self.scenario.disks).await?;
        if matches!(self.scenario.work, Work::Take(_)) {
            let agent = GuestAgent::Answers;
            let hypervisor = &cluster.hypervisor;
            hypervisor.set_guest_agent(VmId::from(vm), agent, 1);
        }
        let world = World::new(
            cluster.hypervisor.clone(),
            VmId::from(vm),
            Arc::clone(stage),
        );
        let mut ledger = Ledger {
            images: cluster.hypervisor.images().clone(),
            stage: Arc::clone(stage),
            taken: Default::default(),
        };
        world.fill();
        for name in self.scenario.snapshots {
            let id = cluster.api.snapshot(vm, name).await?;
            ledger.taken.insert(id, world.acknowledged());
            world.write_on();
        }
        let first = beside::set(beside, &mut cluster, &world, &mut ledger, vm).await?;
        if self.scenario.off {
            cluster.hypervisor.kill_vm(VmId::from(vm));
            let off = v1::VmState::ShutOff;
            cluster.api.until_vm(vm, off, LIMIT).await?;
        }
        world.hold(self.scenario.also != Also::Nothing || beside.shares());
        let _known_once = backstage.witness.set(Witness {
            hypervisor: cluster.hypervisor.clone(),
        });
        stage.arm(&cluster, VmId::from(vm));
        let mut client = Client::new(&cluster, vm, self.scenario, world.clone(), ledger.clone());
        let played = async {
            let done = client.play(stage, self.must_succeed()).await?;
            let thawed = tokio::time::timeout(THAW, world.until_thawed()).await;
            thawed.context("the guest stays frozen")?;
            Ok(done)
        };
        tokio::select! {
            done = played => done,
            () = world.clone().turn(ledger) => unreachable!("it goes on until dropped"),
            () = beside::turn(beside, first, &world) => unreachable!("it goes on until dropped"),
            gave_up = keep_up(&mut cluster, stage) => gave_up,
        }
    }

    fn must_succeed(&self) -> bool {
        !self
            .plans
            .iter()
            .any(|plan| plan.fault.may_fail_operations())
    }
}

/// Sets up again what has fallen. Ends only when that cannot be done.
async fn keep_up<T>(cluster: &mut Cluster, stage: &Stage) -> Result<T> {
    loop {
        stage.fallen.notified().await;
        tokio::time::sleep(DEAD).await;
        let up = tokio::time::timeout(LIMIT, set_up(cluster)).await;
        up.context("a service cannot be started again")?;
    }
}

async fn set_up(cluster: &mut Cluster) {
    while !(cluster.server.runs() && cluster.agent.runs()) {
        if !cluster.server.runs() {
            let _may_have_died_again = cluster.start_server().await;
        }
        if !cluster.agent.runs() {
            cluster.hypervisor.lose_offline_jobs();
            let _may_have_died_again = cluster.start_agent().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if !cluster.hypervisor.connected() {
        tokio::time::sleep(BROKEN).await;
        cluster.hypervisor.connect();
    }
    if cluster.network.is_broken(Who::Agent.address()) {
        tokio::time::sleep(BROKEN).await;
        cluster.network.mend_line(Who::Agent.address());
    }
}
