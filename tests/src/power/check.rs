//! What must be so when a host comes back after its power was cut.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use livemerge_proto::v1;

use super::disks::DISKS;
use super::log::Log;
use super::play::{DISK, Played, Promise, image_of};
use super::timeline::Cut;
use crate::api::Api;
use crate::guest::acks::{AckLog, Acknowledged};
use crate::guest::oracle;
use crate::kills::SplitMix;
use crate::rig::{Guest, Mount, Rig};
use crate::scene::{LIMIT, Scene};
use crate::services::{Reach, Services};

/// How long record and storage may differ when all has ended.
const SETTLES: Duration = Duration::from_secs(5);
/// Differences that a cut may leave, because nothing is lost by them and each can be repaired.
const LEFT_OVER: [v1::FindingKind; 4] = [
    v1::FindingKind::LeakedVolume,
    v1::FindingKind::CondemnedLeftover,
    v1::FindingKind::SnapshotIncomplete,
    v1::FindingKind::ChainUnknownToRecord,
];

/// What a cut found, and what came of it.
#[derive(Debug, Default, Clone)]
pub(super) struct Found {
    /// Where the merges stood in the journal.
    pub(super) phases: Vec<String>,
    /// How the operations ended that were under way.
    pub(super) ended: Vec<String>,
    /// Acknowledged records and frozen slots that were looked for.
    pub(super) looked_for: u64,
    /// Snapshots that were deleted again, or at last.
    pub(super) deleted: usize,
    /// What is listed as left over.
    pub(super) left: Vec<String>,
    /// Whether the guest was started again.
    pub(super) started: bool,
}

/// Cuts the power, starts the host, and looks.
pub(super) async fn check(
    played: &Played,
    logs: &mut [Log],
    cut: &Cut,
    random: &mut SplitMix,
    start: bool,
    found: &mut Found,
) -> Result<()> {
    let mut mounts = Vec::new();
    for (disk, (name, _)) in DISKS.iter().enumerate() {
        let device = played.disks.dir().join(format!("{name}.cut"));
        logs[disk].cut(cut.at[disk], cut.loss[disk], random, &device)?;
        mounts.push(Mount { dir: name, device });
    }
    let rig = Rig::on_disks(&played.place, &mounts)?;
    let mut host = Host::start(played, rig, cut)?;
    found.started = start;
    let looked = host.look(found).await;
    if looked.is_err() {
        for service in [&host.scene.services.api, &host.scene.services.agent] {
            eprintln!("{}", service.log_text());
        }
    }
    looked
}

struct Host<'a> {
    played: &'a Played,
    cut: &'a Cut,
    told: Acknowledged,
    scene: Scene,
}

impl<'a> Host<'a> {
    fn start(played: &'a Played, rig: Rig, cut: &'a Cut) -> Result<Self> {
        let told = Acknowledged {
            newest: cut.newest,
            lost_at_boot: Vec::new(),
        };
        let guest = Guest {
            spec: played.spec.clone(),
            acks: AckLog::follow(&played.spec.serial_log)?,
        };
        for name in ["api", "agent"] {
            let old = rig.path().join(format!("{name}.log"));
            let _there_may_be_none = fs::remove_file(old);
        }
        let mut services = Services::new(&rig, Reach::Unix)?;
        // It is shown when a promise is broken.
        services
            .api
            .set("log.filter=info,livemerge_api_server=debug");
        let scene = Scene {
            api: Api::at(&services.api.endpoint())?,
            services,
            guest,
            rig,
        };
        Ok(Self {
            played,
            cut,
            told,
            scene,
        })
    }

    async fn look(&mut self, found: &mut Found) -> Result<()> {
        found.phases = self.phases()?;
        self.scene.services.start()?;
        let vm = self.scene.vm();
        let off = v1::VmState::ShutOff;
        self.scene.api.until_vm(vm, off, LIMIT).await?;
        found.ended = self.all_end().await?;
        self.reads_as_promised(found).await?;
        self.differs_by_leftovers().await?;
        if found.started {
            self.start_guest().await?;
        }
        found.deleted = self.delete_all().await?;
        self.nothing_is_lost(found).await?;
        found.left = self.differs_by_leftovers().await?;
        self.all_files_are_known(&found.left).await?;
        if found.started {
            self.stop_guest(found).await?;
        }
        Ok(())
    }

    /// Where the merges of the journal stand, before anybody goes on with them.
    fn phases(&self) -> Result<Vec<String>> {
        let journal = self.scene.journal();
        let mut phases = Vec::new();
        for merge in journal.merges() {
            let history = journal.history(&merge)?;
            let last = history.last().context("a merge without a line")?;
            let window = last.window.as_ref().map(|window| format!(".{window}"));
            phases.push(last.phase.clone() + &window.unwrap_or_default());
        }
        Ok(phases)
    }

    /// Every operation ends, with success or with a reason.
    async fn all_end(&mut self) -> Result<Vec<String>> {
        let request = v1::ListOperationsRequest::default();
        let listed = self.scene.api.operations.list_operations(request).await?;
        let listed = listed.into_inner().operations;
        for promise in &self.played.promises {
            if let Promise::Accepted { operation } = &promise.what
                && promise.holds(self.cut)
            {
                let known = listed.iter().any(|listed| listed.id == *operation);
                ensure!(
                    known,
                    "operation {operation} was accepted, and is not known"
                );
            }
        }
        let mut ends = Vec::new();
        for operation in listed {
            if operation.ended_at.is_some() {
                continue;
            }
            let ended = self.scene.api.ended(&operation, LIMIT).await?;
            let reason = ended.failure.clone().unwrap_or_default().reason;
            match ended.state() {
                v1::OperationState::Succeeded => ends.push("succeeded".to_owned()),
                _ if reason.is_empty() || reason == "INTERNAL_BUG" => bail!("{ended:?}"),
                _ => ends.push(reason),
            }
        }
        Ok(ends)
    }

    async fn reads_as_promised(&mut self, found: &mut Found) -> Result<()> {
        self.nothing_is_lost(found).await?;
        let slots_of = self.scene.guest.spec.workload.slots;
        for promise in &self.played.promises {
            if !promise.holds(self.cut) {
                continue;
            }
            match &promise.what {
                Promise::Accepted { .. } => {}
                Promise::Gone { id } => {
                    let vm = self.scene.vm();
                    let all = self.scene.api.list(vm).await?;
                    ensure!(all.iter().all(|listed| listed.id != *id), "{id} is back");
                }
                Promise::Taken { id, told, slots } => {
                    let image = image_of(&mut self.scene, id).await?;
                    let verdict = oracle::verify_frozen(DISK, &image, slots_of, told)?;
                    ensure!(verdict.lost.is_empty(), "lost in {id}: {verdict:?}");
                    let now = oracle::frozen_slots(&image, slots_of)?;
                    ensure!(now == *slots, "snapshot {id} reads otherwise");
                    found.looked_for += verdict.acknowledged;
                }
            }
        }
        Ok(())
    }

    /// The chain's volumes are there, and what the guest starts from has all that it was told.
    async fn nothing_is_lost(&mut self, found: &mut Found) -> Result<()> {
        let images = self.scene.images_of(DISK).await?;
        for image in &images {
            ensure!(fs::exists(image)?, "no {}", image.display());
        }
        let top = images.last().context("no image")?;
        let slots = self.scene.guest.spec.workload.slots;
        let verdict = match found.started && self.scene.guest.acks.count(DISK) > 0 {
            // Nobody may read what a guest writes.
            true => return Ok(()),
            false => oracle::verify(DISK, top, slots, &self.told)?,
        };
        ensure!(
            verdict.lost.is_empty(),
            "lost in {}: {:?}",
            top.display(),
            verdict.lost
        );
        found.looked_for += verdict.acknowledged;
        Ok(())
    }

    /// It finds what it was told, and goes on after it.
    async fn start_guest(&mut self) -> Result<()> {
        self.scene.restart_guest().await?;
        let said = fs::read_to_string(&self.scene.guest.spec.serial_log)?;
        let begins = said.lines().find_map(|line| {
            let number = line.trim().strip_prefix("RESUME vda ")?;
            number.parse::<u64>().ok()
        });
        ensure!(
            begins > self.told.newest,
            "it goes on with {begins:?} after {:?}",
            self.told.newest
        );
        Ok(())
    }

    async fn stop_guest(&mut self, found: &mut Found) -> Result<()> {
        let images = self.scene.images_of(DISK).await?;
        let top = images.last().context("no image")?;
        self.scene.services.agent.stop()?;
        let name = &self.scene.guest.spec.name;
        self.scene.rig.virsh().destroy(name)?;
        self.scene.guest.acks.catch_up().await?;
        let verdict = self.scene.look(DISK, top)?;
        ensure!(verdict.lost.is_empty(), "lost at last: {verdict:?}");
        found.looked_for += verdict.acknowledged;
        Ok(())
    }

    /// What is in the list can be deleted, whatever state it is in.
    async fn delete_all(&mut self) -> Result<usize> {
        let vm = self.scene.vm();
        let all = self.scene.api.list(vm).await?;
        for snapshot in &all {
            let deletion = self.scene.api.delete(&snapshot.id).await?;
            let deleted = self.scene.api.succeeded(&deletion, LIMIT).await;
            deleted.with_context(|| format!("{snapshot:?}"))?;
        }
        ensure!(self.scene.api.list(vm).await?.is_empty());
        Ok(all.len())
    }

    /// Everything in which record, chains and storage differ is a leftover that can be repaired.
    async fn differs_by_leftovers(&mut self) -> Result<Vec<String>> {
        let begun = Instant::now();
        loop {
            let findings = self.scene.api.findings().await?;
            let other = |finding: &&v1::Finding| !LEFT_OVER.contains(&finding.kind());
            let Some(grave) = findings.iter().find(other) else {
                return Ok(findings.iter().map(|left| left.message.clone()).collect());
            };
            ensure!(begun.elapsed() < SETTLES, "{grave:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// An image is in the chain, or listed as left over.
    async fn all_files_are_known(&mut self, left: &[String]) -> Result<()> {
        let chain: BTreeSet<PathBuf> = self.scene.images_of(DISK).await?.into_iter().collect();
        ensure!(chain.len() == 1, "layers are left: {chain:?}");
        for entry in fs::read_dir(self.scene.rig.images())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.context("a name")?.to_owned();
            let own = path.is_file() && !name.starts_with('.') && !chain.contains(&path);
            let listed = left.iter().any(|message| message.contains(&name));
            ensure!(!own || listed, "{name} is left and not listed: {left:?}");
        }
        Ok(())
    }
}
