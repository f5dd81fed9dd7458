//! Who asks for the work, waits for its end, and looks at everything afterwards.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use livemerge_host_agent::hypervisor::VmState;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use tonic::{Code, Status};
use uuid::Uuid;

use super::ledger::Ledger;
use super::scenario::{Scenario, Work};
use super::stage::{Hits, Stage};
use super::world::World;
use crate::api::Api;
use crate::cluster::{Cluster, FakeVolumes, Service};

/// The time in which every operation ends once faults stop.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two tries of a request, and between two looks.
const AGAIN: Duration = Duration::from_millis(20);

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

/// What one request asks for.
#[derive(Debug, Clone)]
enum Wish {
    Take(&'static str),
    Delete { name: &'static str, id: String },
}

/// A request and what came of it.
struct Asked {
    wish: Wish,
    request: Uuid,
    answer: Result<v1::Operation, Reason>,
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
        for asked in &mut all {
            if let Ok(operation) = &mut asked.answer {
                *operation = self.api.ended(operation, LIMIT).await?;
            }
        }
        let hits = stage.disarm();
        let outcomes: Vec<String> = all.iter().map(Asked::outcome).collect();
        let outcomes = outcomes.join(", ");
        let missed = !stage.pending().is_empty();
        if must_succeed && !missed && !all.iter().all(Asked::succeeded) {
            bail!("ended as {outcomes}, though all that happened can be recovered from");
        }
        self.recover().await?;
        for asked in &all {
            if !asked.succeeded() {
                self.look_at_failure(asked).await?;
                let again = self.ask(asked.wish.clone(), true).await?;
                let operation = again
                    .answer
                    .map_err(|no| anyhow::anyhow!("then refused: {no}"))?;
                let again = self.api.succeeded(&operation, LIMIT).await;
                again.context("tried again")?;
            }
        }
        self.look_at_end().await?;
        for asked in &all {
            self.repeat(asked).await?;
        }
        Ok((outcomes, hits))
    }

    async fn wishes(&mut self) -> Result<Vec<Wish>> {
        let names = match self.scenario.work {
            Work::Take(name) => return Ok(vec![Wish::Take(name)]),
            Work::Delete(names) => names,
        };
        let listed = self.api.list(self.vm).await?;
        let wish = |name: &&'static str| {
            let found = listed.iter().find(|snapshot| snapshot.name == *name);
            let id = found.context("the snapshot was not taken")?.id.clone();
            Ok(Wish::Delete { name, id })
        };
        names.iter().map(wish).collect()
    }

    /// Asks until there is an answer. A `patient` client also waits for the machine to be seen.
    async fn ask(&mut self, wish: Wish, patient: bool) -> Result<Asked> {
        let request = Uuid::new_v4();
        let asking = async {
            loop {
                let answer = match self.send(&wish, request).await {
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

    async fn send(&mut self, wish: &Wish, request: Uuid) -> Result<v1::Operation, Status> {
        let request_id = request.to_string();
        let operation = match wish {
            Wish::Take(name) => {
                let request = v1::CreateSnapshotRequest {
                    request_id,
                    vm_id: self.vm.to_string(),
                    name: (*name).to_owned(),
                    ..Default::default()
                };
                let answer = self.api.snapshots.create_snapshot(request).await?;
                answer.into_inner().operation
            }
            Wish::Delete { id, .. } => {
                let request = v1::DeleteSnapshotRequest {
                    request_id,
                    snapshot_id: id.clone(),
                    ..Default::default()
                };
                let answer = self.api.snapshots.delete_snapshot(request).await?;
                answer.into_inner().operation
            }
        };
        operation.ok_or_else(|| Status::internal("an answer without an operation"))
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

    /// A failure has a typed reason and an entry in the log; the snapshot is as listed as before.
    async fn look_at_failure(&mut self, asked: &Asked) -> Result<()> {
        let listed = self.api.list(self.vm).await?;
        let name = asked.wish.name();
        let is_listed = listed.iter().any(|snapshot| snapshot.name == name);
        ensure!(
            is_listed == matches!(asked.wish, Wish::Delete { .. }),
            "after {} snapshot {name} is listed: {is_listed}",
            asked.outcome()
        );
        let Ok(operation) = &asked.answer else {
            return Ok(());
        };
        let reason = operation.failure.clone().unwrap_or_default().reason;
        let typed = reason.parse::<Reason>();
        typed.with_context(|| format!("failed with the reason {reason:?}"))?;
        let failed = |event: &v1::Event| {
            use v1::EventType as T;
            event.operation_id == operation.id
                && matches!(
                    event.r#type(),
                    T::SnapshotDeleteFailed | T::SnapshotCreateFailed
                )
                && event.details.get("reason") == Some(&reason)
        };
        let log = self.api.log(self.vm).await?;
        ensure!(
            log.iter().any(failed),
            "the log does not tell of {}",
            asked.outcome()
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
        let again = self.send(&asked.wish, asked.request).await;
        let again = again.context("a repeated request is refused")?;
        ensure!(
            again.id == operation.id,
            "a repeated request got another operation"
        );
        Ok(())
    }
}

impl Wish {
    fn name(&self) -> &'static str {
        match self {
            Self::Take(name) | Self::Delete { name, .. } => name,
        }
    }
}

impl Asked {
    fn succeeded(&self) -> bool {
        let succeeded = v1::OperationState::Succeeded;
        matches!(&self.answer, Ok(operation) if operation.state() == succeeded)
    }

    fn outcome(&self) -> String {
        match &self.answer {
            Err(reason) => format!("refused {reason}"),
            Ok(_) if self.succeeded() => "succeeded".to_owned(),
            Ok(operation) => {
                let failure = operation.failure.clone().unwrap_or_default();
                format!("failed {}", failure.reason)
            }
        }
    }
}

/// The reason of a *no*; `None` when asking again may help.
fn no(status: Status) -> Option<Reason> {
    let reason = Problem::try_from(status).ok()?.reason;
    let passing = matches!(reason.code(), Code::Unavailable | Code::DeadlineExceeded);
    (!passing && reason != Reason::VmStateUnknown).then_some(reason)
}
