//! What is looked at afterwards: what failed is told, and machine, record and storage say the same.

use anyhow::{Context as _, Result, ensure};
use livemerge_host_agent::hypervisor::{Hypervisor as _, VmState};
use livemerge_proto::ids::VmId;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

use super::beside::{CLONE, GROWN, LEFTOVER, name};
use super::client::{AGAIN, Client, LIMIT};
use super::request::{Asked, Wish};
use super::scenario::Beside;

impl Client {
    /// A failure has a typed reason and an entry in the log; a snapshot is as listed as before, or
    /// gone with an entry of its own when all of it was done.
    pub(super) async fn look_at_failure(&mut self, asked: &Asked) -> Result<()> {
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

    /// READY or INCOMPLETE. A pull that was cancelled before its end has touched nothing; a commit that
    /// has begun has.
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
            let over = matches!(
                disk.phase(),
                v1::MergePhase::Removing | v1::MergePhase::Removed
            );
            begun && (disk.kind() != v1::MergeKind::Pull || over)
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
    pub(super) async fn look_at_end(&mut self) -> Result<()> {
        let mut open = self.open_operations().await?;
        // One of the machine whose merge came first may still have its volume removed.
        for other in open.extract_if(.., |open| open.vm_id != self.vm.to_string()) {
            self.api.clone().ended(&other, LIMIT).await?;
        }
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
        let stays = self.scenario.beside == Beside::Leftover;
        ensure!(
            volumes.iter().any(|name| name == LEFTOVER) == stays,
            "storage has {volumes:?}"
        );
        volumes.retain(|name| name != CLONE && name != LEFTOVER && !name.starts_with("first-"));
        let named = self.of_first().await?;
        volumes.retain(|name| !named.contains(name));
        all.sort();
        volumes.sort();
        ensure!(
            volumes == all,
            "storage has {volumes:?}, the chains {all:?}"
        );
        self.ledger.check();
        self.world.check();
        if self.scenario.beside == Beside::Grown {
            self.look_at_size().await?;
        }
        self.nothing_is_found().await
    }

    /// The disk is as large as it was made, and what is told of its images is what they are: only what was
    /// pulled from a raw one is none any more.
    async fn look_at_size(&mut self) -> Result<()> {
        let (mut api, vm) = (self.api.clone(), self.vm);
        let looking = async {
            loop {
                if let Ok(chain) = api.chain(vm, "vda").await {
                    return chain;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let chain = tokio::time::timeout(LIMIT, looking).await;
        let layers = chain.context("the chain cannot be read")?.layers;
        let told = layers
            .iter()
            .map(|layer| (layer.format(), layer.virtual_bytes));
        let format = match self.scenario.direction {
            v1::MergeDirection::Pull => v1::VolumeFormat::Qcow2,
            _ => v1::VolumeFormat::Raw,
        };
        let told: Vec<_> = told.collect();
        ensure!(
            told == [(format, i64::try_from(GROWN)?)],
            "the disk was made {GROWN} bytes large, its images are {told:?}"
        );
        Ok(())
    }

    async fn open_operations(&mut self) -> Result<Vec<v1::Operation>> {
        let request = v1::ListOperationsRequest {
            states: vec![
                v1::OperationState::Queued.into(),
                v1::OperationState::Running.into(),
            ],
            ..Default::default()
        };
        let open = self.api.operations.list_operations(request).await?;
        Ok(open.into_inner().operations)
    }

    /// The volumes of the machine whose merge came first, which may not be over.
    async fn of_first(&mut self) -> Result<Vec<String>> {
        let views = self.hypervisor.vms().await?;
        let others = views.iter().filter(|view| view.id != VmId::from(self.vm));
        let layers = others
            .flat_map(|view| &view.disks)
            .flat_map(|disk| &disk.chain);
        layers.map(|layer| name(&layer.locator)).collect()
    }

    /// The record and storage can be compared, and nothing differs. A host that has just come back
    /// may have to be asked again.
    async fn nothing_is_found(&mut self) -> Result<()> {
        let mut api = self.api.clone();
        let looking = async {
            loop {
                let request = v1::CheckConsistencyRequest::default();
                let answer = api.inventory.check_consistency(request).await;
                if let Ok(answer) = answer {
                    let findings = answer.into_inner().findings;
                    let unknown =
                        |finding: &v1::Finding| finding.kind() == v1::FindingKind::Unknown;
                    if !findings.iter().any(unknown) {
                        return findings;
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let found = tokio::time::timeout(LIMIT, looking).await;
        let mut found = found.context("the record and storage cannot be compared")?;
        // What stands beside the machine on purpose is found, too.
        found.retain(|finding| !format!("{finding:?}").contains(CLONE));
        let leaked = |finding: &mut v1::Finding| {
            let leaked = finding.kind() == v1::FindingKind::LeakedVolume;
            leaked && format!("{finding:?}").contains(LEFTOVER)
        };
        let told = found.extract_if(.., leaked).count() == 1;
        let stays = self.scenario.beside == Beside::Leftover;
        ensure!(told == stays, "what nobody names is not told of: {found:?}");
        ensure!(found.is_empty(), "CheckConsistency finds {found:?}");
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
        let limit = self.hypervisor.limited_to(VmId::from(self.vm), &target);
        ensure!(limit == 0, "the writes to {disk} stay limited to {limit}");
        let live = live.chain.iter().map(|layer| name(&layer.locator));
        let live = live.collect::<Result<Vec<String>>>()?;
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
}
