//! Who asks for the work, waits for its end, and looks at everything afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{Hypervisor as _, VmState};
use livemerge_proto::ids::VmId;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use uuid::Uuid;

use super::fault::changes_a_guest_or_volume;
use super::ledger::Ledger;
use super::request::{Asked, Wish, no};
use super::scenario::{Also, Scenario, Work};
use super::stage::{Hits, Stage};
use super::world::{Pace, World};
use crate::api::Api;
use crate::cluster::{Cluster, FakeVolumes, Service};

/// The time in which every operation ends once faults stop: far more than a busy machine takes, so that
/// only what never ends comes to it.
pub(super) const LIMIT: Duration = Duration::from_secs(180);
/// Time between two tries of a request, and between two looks.
pub(super) const AGAIN: Duration = Duration::from_millis(20);

/// How often a merge may leave an overlay.
const ROUNDS: usize = 20;
/// How long merges copy nothing after something was asked of them.
const HELD: Duration = Duration::from_millis(300);

/// One case's client.
pub struct Client {
    pub(super) api: Api,
    pub(super) vm: Uuid,
    pub(super) scenario: &'static Scenario,
    pub(super) hypervisor: FakeHypervisor,
    pub(super) volumes: FakeVolumes,
    services: [Service; 2],
    pub(super) world: World,
    pub(super) ledger: Ledger,
}

impl Client {
    /// Of a cluster whose machine has the scenario's snapshots.
    pub fn new(
        cluster: &Cluster,
        vm: Uuid,
        scenario: &'static Scenario,
        world: World,
        ledger: Ledger,
    ) -> Self {
        Self {
            api: cluster.api.clone(),
            vm,
            scenario,
            hypervisor: cluster.hypervisor.clone(),
            volumes: cluster.volumes.clone(),
            services: [cluster.server.clone(), cluster.agent.clone()],
            world,
            ledger,
        }
    }

    /// Asks, waits, looks. Returns how the operations ended, and what was passed on the way.
    pub async fn play(&mut self, stage: &Stage, must_succeed: bool) -> Result<(String, Hits)> {
        let mut all = Vec::new();
        for wish in self.wishes().await? {
            all.push(self.ask(wish, false).await?);
        }
        self.ask_also(&all).await?;
        for asked in &mut all {
            if let Ok(operation) = &mut asked.answer {
                *operation = self.api.ended(operation, LIMIT).await?;
            }
        }
        let hits = stage.disarm();
        let outcomes: Vec<String> = all.iter().map(Asked::outcome).collect();
        let mut outcomes = outcomes.join(", ");
        let missed = !stage.pending().is_empty();
        if self.scenario.beside.refuses().is_some() {
            let touched = hits.keys().find(|site| changes_a_guest_or_volume(site));
            ensure!(touched.is_none(), "refused, and {touched:?} was called");
        }
        if must_succeed && !missed && !all.iter().all(|asked| self.as_wished(asked)) {
            bail!("ended as {outcomes}, though all that happened can be recovered from");
        }
        self.recover().await?;
        for asked in &all {
            if !asked.succeeded() {
                self.look_at_failure(asked).await?;
                if self.scenario.beside.refuses().is_some() {
                    self.is_refused_again(&asked.wish).await?;
                } else {
                    self.try_again(&asked.wish).await?;
                }
            }
        }
        if self.delete_what_merges_left().await? {
            outcomes += ", an overlay was left and deleted";
        }
        self.look_at_end().await?;
        for asked in &all {
            self.repeat(asked).await?;
        }
        Ok((outcomes, hits))
    }

    async fn wishes(&mut self) -> Result<Vec<Wish>> {
        let (names, batch) = match self.scenario.work {
            Work::Take(name) => return Ok(vec![Wish::Take(name)]),
            Work::Delete(names) => (names, false),
            Work::Batch(names) => (names, true),
        };
        let listed = self.api.list(self.vm).await?;
        let named = |name: &&'static str| {
            let found = listed.iter().find(|snapshot| snapshot.name == *name);
            let id = found.context("the snapshot was not taken")?.id.clone();
            Ok((*name, id))
        };
        let all: Result<Vec<_>> = names.iter().map(named).collect();
        let all = all?;
        let at_once = if batch { all.len() } else { 1 };
        let options = v1::MergeOptions {
            direction: self.scenario.direction.into(),
            bytes_per_second: 0,
        };
        let wish = |snapshots: &[(&'static str, String)]| Wish::Delete {
            snapshots: snapshots.to_vec(),
            batch,
            options,
        };
        Ok(all.chunks(at_once).map(wish).collect())
    }

    /// A cancelled operation may be done all the same, and nothing else. What is to be refused is.
    fn as_wished(&self, asked: &Asked) -> bool {
        if self.scenario.beside.refuses().is_some() {
            return self.is_refused(asked);
        }
        let cancel = self.scenario.also == Also::Cancel;
        asked.succeeded() || (cancel && asked.cancelled())
    }

    /// Whether it was refused for what stands beside the machine.
    fn is_refused(&self, asked: &Asked) -> bool {
        let refuses = self.scenario.beside.refuses();
        refuses.is_some() && asked.reason() == refuses
    }

    /// Asks the rest once the merges copy, which then are held a moment longer: what was asked may
    /// come in time, or too late.
    async fn ask_also(&mut self, all: &[Asked]) -> Result<()> {
        let first = all.first().and_then(|asked| asked.answer.as_ref().ok());
        let (also, Some(operation)) = (self.scenario.also, first) else {
            self.let_go();
            return Ok(());
        };
        if also != Also::Nothing {
            let asking = async {
                while !self.copies_or_has_ended(operation).await {
                    tokio::time::sleep(AGAIN).await;
                }
                while let Err(status) = also.send(&mut self.api, operation).await {
                    if no(status).is_some() {
                        break;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            };
            let asked = tokio::time::timeout(LIMIT, asking).await;
            asked.context("what is asked of the operation is never answered")?;
            tokio::time::sleep(HELD).await;
        }
        self.let_go();
        Ok(())
    }

    /// Merges copy from now on, unless what stands beside the machine has them wait longer.
    fn let_go(&self) {
        if !self.scenario.beside.shares() {
            self.world.hold(false);
        }
    }

    async fn copies_or_has_ended(&mut self, operation: &v1::Operation) -> bool {
        let Ok(now) = self.api.operation(&operation.id).await else {
            return false;
        };
        let copies = |disk: &v1::DiskProgress| disk.phase() == v1::MergePhase::Copying;
        now.ended_at.is_some() || (!now.disks.is_empty() && now.disks.iter().all(copies))
    }

    /// What has failed, or was cancelled, is done when it is asked for anew.
    async fn try_again(&mut self, wish: &Wish) -> Result<()> {
        let listed = self.api.list(self.vm).await?;
        let Some(wish) = wish.of_the_left(&listed) else {
            return Ok(());
        };
        let again = self.ask(wish, true).await?;
        let operation = again
            .answer
            .map_err(|no| anyhow::anyhow!("then refused: {no}"))?;
        let again = self.api.succeeded(&operation, LIMIT).await;
        again.context("tried again")?;
        Ok(())
    }

    /// What was refused, or has failed before that, is refused whenever it is asked for.
    async fn is_refused_again(&mut self, wish: &Wish) -> Result<()> {
        let mut again = self.ask(wish.clone(), true).await?;
        if let Ok(operation) = &mut again.answer {
            *operation = self.api.ended(operation, LIMIT).await?;
        }
        let outcome = again.outcome();
        ensure!(self.is_refused(&again), "asked again it ended as {outcome}");
        Ok(())
    }

    /// A guest that was never caught up with has been given an overlay, and what that has frozen is
    /// listed: once the guest writes less it can be deleted as any other. True when there was one. On a
    /// busy machine a slow guest may be too fast, too, and an overlay be left once more.
    async fn delete_what_merges_left(&mut self) -> Result<bool> {
        self.world.writes_at(Pace::Slow);
        for round in 0..ROUNDS {
            let mut left = self.api.list(self.vm).await?;
            left.retain(|snapshot| snapshot.origin() == v1::SnapshotOrigin::LeftByMerge);
            if left.is_empty() {
                return Ok(round > 0);
            }
            for snapshot in left {
                let wish = Wish::Delete {
                    snapshots: vec![("what a merge left", snapshot.id)],
                    batch: false,
                    options: v1::MergeOptions::default(),
                };
                self.try_again(&wish).await.context("what a merge left")?;
            }
        }
        bail!("in {ROUNDS} rounds each merge has left an overlay");
    }

    /// Asks until there is an answer. A `patient` client also waits for the machine to be seen.
    async fn ask(&mut self, wish: Wish, patient: bool) -> Result<Asked> {
        let request = Uuid::new_v4();
        let asking = async {
            loop {
                let answer = match wish.send(&mut self.api, self.vm, request).await {
                    Ok(operation) => Ok(operation),
                    Err(status) => match no(status) {
                        None => Err(None),
                        Some(Reason::VmNotRunning) if patient => Err(None),
                        Some(reason) => Err(Some(reason)),
                    },
                };
                match answer {
                    Ok(operation) => return Ok(operation),
                    Err(Some(reason)) => return Err(reason),
                    Err(None) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        let answer = tokio::time::timeout(LIMIT, asking).await;
        let answer = answer.context("the request is never answered")?;
        Ok(Asked {
            wish,
            request,
            answer,
        })
    }

    /// Both services run, and the machine.
    async fn recover(&mut self) -> Result<()> {
        let up = async {
            // Nobody starts a machine while libvirt is gone.
            while !(self.services.iter().all(Service::runs) && self.hypervisor.connected()) {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let up = tokio::time::timeout(LIMIT, up).await;
        up.context("the services are not started again")?;
        if self.world.view().map(|view| view.state) == Some(VmState::ShutOff) {
            ensure!(
                !self.world.lacks_data(),
                "what was pulled when QEMU died was never made good"
            );
            self.world.check();
            self.hypervisor.start_vm(VmId::from(self.vm))?;
        }
        self.api.wait_for_vm(self.vm, LIMIT).await?;
        Ok(())
    }

    /// The same request again is the same operation.
    async fn repeat(&mut self, asked: &Asked) -> Result<()> {
        let Ok(operation) = &asked.answer else {
            return Ok(());
        };
        let again = asked.wish.send(&mut self.api, self.vm, asked.request);
        let again = again.await;
        let again = again.context("a repeated request is refused")?;
        ensure!(
            again.id == operation.id,
            "a repeated request got another operation"
        );
        Ok(())
    }
}
