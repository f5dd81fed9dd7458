//! Who asks for the work, waits for its end, and looks at everything afterwards.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use livemerge_host_agent::hypervisor::VmState;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_proto::ids::VmId;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use uuid::Uuid;

use super::ledger::Ledger;
use super::request::{Asked, Wish, no};
use super::scenario::{Also, Scenario, Work};
use super::stage::{Hits, Stage};
use super::world::World;
use crate::api::Api;
use crate::cluster::{Cluster, FakeVolumes, Service};

/// The time in which every operation ends once faults stop.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two tries of a request, and between two looks.
const AGAIN: Duration = Duration::from_millis(20);

/// How long merges copy nothing after something was asked of them.
const HELD: Duration = Duration::from_millis(300);

/// One case's client.
pub struct Client {
    api: Api,
    vm: Uuid,
    scenario: &'static Scenario,
    hypervisor: FakeHypervisor,
    volumes: FakeVolumes,
    services: [Service; 2],
    world: World,
    ledger: Ledger,
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
        let outcomes = outcomes.join(", ");
        let missed = !stage.pending().is_empty();
        if must_succeed && !missed && !all.iter().all(|asked| self.as_wished(asked)) {
            bail!("ended as {outcomes}, though all that happened can be recovered from");
        }
        self.recover().await?;
        for asked in &all {
            if !asked.succeeded() {
                self.look_at_failure(asked).await?;
                self.try_again(&asked.wish).await?;
            }
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

    /// A cancelled operation may be done all the same, and nothing else.
    fn as_wished(&self, asked: &Asked) -> bool {
        let cancel = self.scenario.also == Also::Cancel;
        asked.succeeded() || (cancel && asked.cancelled())
    }

    /// Asks the rest once the merges copy, which then are held a moment longer: what was asked may
    /// come in time, or too late.
    async fn ask_also(&mut self, all: &[Asked]) -> Result<()> {
        let first = all.first().and_then(|asked| asked.answer.as_ref().ok());
        let (also, Some(operation)) = (self.scenario.also, first) else {
            self.world.hold(false);
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
        self.world.hold(false);
        Ok(())
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
            while !self.services.iter().all(Service::runs) {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let up = tokio::time::timeout(LIMIT, up).await;
        up.context("the services are not started again")?;
        if self.world.view().map(|view| view.state) == Some(VmState::ShutOff) {
            self.world.check();
            self.hypervisor.start_vm(VmId::from(self.vm))?;
        }
        self.api.wait_for_vm(self.vm, LIMIT).await?;
        Ok(())
    }

    /// A failure has a typed reason and an entry in the log; a snapshot is as listed as before, or
    /// gone with an entry of its own when all of it was done.
    async fn look_at_failure(&mut self, asked: &Asked) -> Result<()> {
        let listed = self.api.list(self.vm).await?;
        let log = self.api.log(self.vm).await?;
        let operation = asked.answer.as_ref().ok();
        let told = |kind: v1::EventType, about: &dyn Fn(&v1::Event) -> bool| {
            let mut log = log.iter();
            log.any(|event| {
                let own = operation.is_some_and(|operation| operation.id == event.operation_id);
                own && event.r#type() == kind && about(event)
            })
        };
        if let Wish::Delete { snapshots, .. } = &asked.wish {
            for (name, id) in snapshots {
                let row = listed.iter().find(|snapshot| snapshot.id == *id);
                let is_one = |event: &v1::Event| event.snapshot_id == *id;
                let Some(row) = row else {
                    let gone = told(v1::EventType::SnapshotDeleted, &is_one);
                    ensure!(gone, "after {} {name} is not listed", asked.outcome());
                    continue;
                };
                self.look_at_left(asked, row)?;
            }
        } else {
            let names = asked.wish.names();
            let taken = listed.iter().any(|row| names.contains(&&*row.name));
            ensure!(!taken, "after {} it is listed", asked.outcome());
        }
        let Some(operation) = operation else {
            return Ok(());
        };
        let reason = operation.failure.clone().unwrap_or_default().reason;
        let has_reason = |event: &v1::Event| event.details.get("reason") == Some(&reason);
        let in_log = if asked.cancelled() {
            told(v1::EventType::OperationCancelled, &|_| true)
        } else {
            let typed = reason.parse::<Reason>();
            typed.with_context(|| format!("failed with the reason {reason:?}"))?;
            told(v1::EventType::SnapshotDeleteFailed, &has_reason)
                || told(v1::EventType::SnapshotCreateFailed, &has_reason)
        };
        ensure!(in_log, "the log does not tell of {}", asked.outcome());
        Ok(())
    }

    /// READY or INCOMPLETE. A cancelled pull has touched nothing; a commit that has begun has.
    fn look_at_left(&self, asked: &Asked, row: &v1::Snapshot) -> Result<()> {
        use v1::SnapshotState::{Incomplete, Ready};
        let (name, state) = (&row.name, row.state());
        ensure!(
            matches!(state, Ready | Incomplete),
            "after {} {name} is {state:?}",
            asked.outcome()
        );
        let Some(operation) = asked.answer.as_ref().ok().filter(|_| asked.cancelled()) else {
            return Ok(());
        };
        let touched = |disk: &v1::DiskProgress| {
            let begun = disk.phase() != v1::MergePhase::Pending;
            begun && disk.kind() != v1::MergeKind::Pull
        };
        let expected = if operation.disks.iter().any(touched) {
            Incomplete
        } else {
            Ready
        };
        ensure!(
            state == expected,
            "cancelled, {name} is {state:?}, the merges {:?}",
            operation.disks
        );
        Ok(())
    }

    /// Nothing is open, and machine, record and storage say the same.
    async fn look_at_end(&mut self) -> Result<()> {
        let request = v1::ListOperationsRequest {
            vm_id: self.vm.to_string(),
            states: vec![
                v1::OperationState::Queued.into(),
                v1::OperationState::Running.into(),
            ],
            ..Default::default()
        };
        let open = self.api.operations.list_operations(request).await?;
        let open = open.into_inner().operations;
        ensure!(open.is_empty(), "operations are open: {open:?}");
        let listed = self.api.list(self.vm).await?;
        let names: Vec<&str> = listed.iter().map(|snapshot| &*snapshot.name).collect();
        ensure!(names == self.scenario.left(), "the list has {names:?}");
        let ready = |snapshot: &v1::Snapshot| snapshot.state() == v1::SnapshotState::Ready;
        ensure!(listed.iter().all(ready), "not all are READY: {listed:?}");
        let mut all = Vec::new();
        for disk in self.scenario.disks {
            all.extend(self.look_at_chain(disk, &listed).await?);
        }
        let mut volumes = self.volumes.names();
        all.sort();
        volumes.sort();
        ensure!(
            volumes == all,
            "storage has {volumes:?}, the chains {all:?}"
        );
        self.ledger.look().await?;
        self.world.check();
        Ok(())
    }

    /// The chain is the snapshots' volumes, oldest first, and the layer that the guest writes.
    async fn look_at_chain(&mut self, disk: &str, listed: &[v1::Snapshot]) -> Result<Vec<String>> {
        let view = self.world.view().context("the machine is gone")?;
        ensure!(
            view.state == VmState::Running,
            "the guest is {:?}",
            view.state
        );
        let target = disk.parse()?;
        let live = view.disk(&target).context("the disk is gone")?;
        ensure!(live.mirror.is_none(), "a job is left on {disk}");
        let live: Vec<String> = live
            .chain
            .iter()
            .map(|layer| layer.locator.to_string())
            .filter_map(|path| Some(path.rsplit('/').next()?.to_owned()))
            .collect();
        let named: Vec<String> = listed
            .iter()
            .filter_map(|snapshot| snapshot.disks.iter().find(|named| named.disk == disk))
            .filter_map(|named| Some(named.volume.clone()?.name))
            .collect();
        ensure!(
            live.len() == named.len() + 1 && live.starts_with(&named),
            "{disk} has the chain {live:?}, the record {named:?}"
        );
        Ok(live)
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
