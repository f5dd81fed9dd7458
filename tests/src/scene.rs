//! The real thing: a guest that writes, both services as processes, and clients of them.
//!
//! Ends in order: the services first, then the guest with the rig.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::api::Api;
use crate::guest::domain::Workload;
use crate::guest::oracle::{self, Verdict};
use crate::journal::{Journal, Line};
use crate::qmp::Qmp;
use crate::rig::{Guest, Rig};
use crate::services::{Reach, Services};

/// How long anything may take before it counts as stuck. No test measures it.
pub const LIMIT: Duration = Duration::from_secs(120);

const VM: &str = "vm";
const DISK_BYTES: u64 = 2 << 30;
/// How long record and storage may differ after an operation's end.
const SETTLES: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);

/// One guest and both services, running.
#[derive(Debug)]
pub struct Scene {
    /// Calls to the API server.
    pub api: Api,
    /// The services.
    pub services: Services,
    /// The guest.
    pub guest: Guest,
    /// What all of it stands in.
    pub rig: Rig,
}

impl Scene {
    /// Boots a guest with these disks (`vda`) and starts the services.
    pub async fn begin(disks: &[&str], workload: Workload) -> Result<Self> {
        Self::begin_on(Rig::new()?, disks, workload).await
    }

    /// As [`Self::begin`], with a libvirtd: virsh can be used while the agent runs.
    pub async fn begin_with_daemon(disks: &[&str], workload: Workload) -> Result<Self> {
        Self::begin_on(Rig::with_daemon()?, disks, workload).await
    }

    /// As [`Self::begin`], with a second monitor of QEMU: see [`Self::monitor`].
    pub async fn begin_with_monitor(disks: &[&str], workload: Workload) -> Result<Self> {
        Self::begin_watched(Rig::new()?, disks, workload).await
    }

    /// As [`Self::begin_with_daemon`], with a second monitor of QEMU.
    pub async fn begin_with_daemon_and_monitor(disks: &[&str], workload: Workload) -> Result<Self> {
        Self::begin_watched(Rig::with_daemon()?, disks, workload).await
    }

    async fn begin_watched(rig: Rig, disks: &[&str], workload: Workload) -> Result<Self> {
        let mut spec = rig.describe(VM, disks, DISK_BYTES, workload)?;
        spec.monitor = Some(rig.path().join("monitor"));
        let guest = rig.start(spec)?;
        Self::around(rig, guest).await
    }

    async fn begin_on(rig: Rig, disks: &[&str], workload: Workload) -> Result<Self> {
        let guest = rig.start_guest(VM, disks, DISK_BYTES, workload)?;
        Self::around(rig, guest).await
    }

    /// Starts the services around a guest that boots.
    pub async fn around(rig: Rig, guest: Guest) -> Result<Self> {
        let services = Services::new(&rig, Reach::Unix)?;
        Self::with(rig, guest, services).await
    }

    /// Starts these services around a guest that boots.
    pub async fn with(rig: Rig, guest: Guest, mut services: Services) -> Result<Self> {
        for disk in &guest.spec.disks {
            guest.acks.wait_for(&disk.target, 20, LIMIT).await?;
        }
        services.start()?;
        let mut api = Api::at(&services.api.endpoint())?;
        api.wait_for_vm(guest.spec.uuid, LIMIT).await?;
        Ok(Self {
            api,
            services,
            guest,
            rig,
        })
    }

    /// The machine's id.
    pub fn vm(&self) -> Uuid {
        self.guest.spec.uuid
    }

    /// Takes a snapshot and lets the guest write some records into the new layer of each disk.
    pub async fn snapshot(&mut self, name: &str) -> Result<String> {
        let id = self.api.snapshot(self.vm(), name).await?;
        self.write_more(20).await?;
        Ok(id)
    }

    /// Waits until the guest has got so many more records onto each disk.
    pub async fn write_more(&self, records: u64) -> Result<()> {
        for disk in &self.guest.spec.disks {
            let acks = &self.guest.acks;
            acks.wait_for_more(&disk.target, records, LIMIT).await?;
        }
        Ok(())
    }

    /// The images of a disk's chain, base first.
    pub async fn images_of(&mut self, disk: &str) -> Result<Vec<PathBuf>> {
        let vm = self.vm();
        let chain = self.api.chain(vm, disk).await?;
        let layers = chain.layers.iter();
        Ok(layers.map(|layer| PathBuf::from(&layer.locator)).collect())
    }

    /// Waits until the guest has made the active layer of a disk so heavy that its merge takes a
    /// while.
    pub async fn grow_active_layer(&mut self, disk: &str, bytes: i64) -> Result<()> {
        let vm = self.vm();
        let grow = async {
            loop {
                let chain = self.api.chain(vm, disk).await?;
                let active = chain.layers.last().context("the chain is empty")?;
                if active.allocated_bytes >= bytes {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let grown = tokio::time::timeout(LIMIT, grow).await;
        grown.context("the guest does not fill the layer")?
    }

    /// Waits until the agent copies, and fails if it is past that when first seen: what the caller
    /// then does would not hit a merge in its middle.
    pub async fn until_copying(&self) -> Result<v1::Merge> {
        let mut agent = self.agent()?;
        let look = async {
            loop {
                let merges = agent.list_merges(v1::ListMergesRequest::default()).await?;
                let newest = merges.into_inner().merges.pop();
                match newest {
                    Some(merge) if merge.phase() != v1::MergePhase::Pending => return Ok(merge),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        let merge: Result<v1::Merge> = tokio::time::timeout(LIMIT, look)
            .await
            .context("the agent has begun no merge")?;
        let merge = merge?;
        let early = [v1::MergePhase::Copying, v1::MergePhase::Ready];
        ensure!(
            early.contains(&merge.phase()),
            "the merge was already {:?} when it was first seen",
            merge.phase()
        );
        Ok(merge)
    }

    /// The agent's journal.
    pub fn journal(&self) -> Journal {
        Journal::at(self.rig.path().join("agent/merges"))
    }

    /// Waits until a merge beyond the `known` ones has such a line in the journal. Returns its id.
    /// Sees it sooner than who asks the agent.
    pub async fn until_written(
        &self,
        known: &[String],
        wanted: impl Fn(&Line) -> bool + Send + 'static,
    ) -> Result<String> {
        let (journal, known) = (self.journal(), known.to_vec());
        tokio::task::spawn_blocking(move || journal.until(&known, LIMIT, wanted)).await?
    }

    /// The files of a disk's chain as the agent itself tells it, base first.
    pub async fn layers_on_host(&self, disk: &str) -> Result<Vec<PathBuf>> {
        let layers = self.chain_on_host(disk).await?.layers;
        Ok(layers
            .into_iter()
            .map(|layer| PathBuf::from(layer.locator))
            .collect())
    }

    /// A disk's chain as the agent itself tells it.
    pub async fn chain_on_host(&self, disk: &str) -> Result<v1::VolumeChain> {
        let request = v1::MergeServiceGetVolumeChainRequest {
            vm_id: self.vm().to_string(),
            disk: disk.to_owned(),
        };
        let answer = self.agent()?.get_volume_chain(request).await?.into_inner();
        let chain = answer.chains.into_iter().next();
        chain.context("the machine has no such disk")
    }

    /// Waits until the agent, asked itself, says that a disk's chain has an image no more.
    pub async fn until_off_chain(&self, disk: &str, image: &Path) -> Result<()> {
        let look = async {
            while self
                .layers_on_host(disk)
                .await?
                .iter()
                .any(|at| at == image)
            {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        let gone = tokio::time::timeout(LIMIT, look).await;
        gone.with_context(|| format!("{} stays in the chain", image.display()))?
    }

    /// Waits until QEMU has a block job that `wanted` takes. Needs the second monitor, and no agent.
    pub async fn until_job(&self, wanted: impl Fn(&Value) -> bool + Send + 'static) -> Result<()> {
        let mut monitor = self.monitor()?;
        let look = move || -> Result<()> {
            let begun = Instant::now();
            loop {
                let jobs = monitor.execute("query-block-jobs", &json!({}))?;
                if jobs.as_array().is_some_and(|jobs| jobs.iter().any(&wanted)) {
                    return Ok(());
                }
                ensure!(
                    begun.elapsed() < LIMIT,
                    "QEMU has no such block job: {jobs}"
                );
                std::thread::sleep(POLL);
            }
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// The second monitor of the machine's QEMU. One at a time, and its commands block.
    pub fn monitor(&self) -> Result<Qmp> {
        let socket = self.guest.spec.monitor.as_ref();
        Qmp::connect(socket.context("the guest has no second monitor")?)
    }

    /// The merges that the agent knows, oldest first.
    pub async fn merges(&self) -> Result<Vec<v1::Merge>> {
        let all = v1::ListMergesRequest {
            page_size: 1000,
            ..Default::default()
        };
        Ok(self.agent()?.list_merges(all).await?.into_inner().merges)
    }

    /// Waits until a merge beyond the `known` ones is in a phase, or past it. Returns the one that
    /// it was seen in.
    pub async fn until_phase(&self, known: usize, phase: v1::MergePhase) -> Result<v1::MergePhase> {
        let look = async {
            loop {
                let merges = self.merges().await?;
                let newest = merges.get(known..).and_then(<[_]>::last);
                if let Some(merge) = newest.filter(|merge| merge.phase >= phase.into()) {
                    return Ok(merge.phase());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let seen = tokio::time::timeout(LIMIT, look).await;
        seen.context("no merge comes so far")?
    }

    /// Waits until the server shows the host so.
    pub async fn until_host(&mut self, status: v1::HostStatus) -> Result<()> {
        let look = async {
            loop {
                let hosts = self
                    .api
                    .inventory
                    .list_hosts(v1::ListHostsRequest::default());
                let hosts = hosts.await?.into_inner().hosts;
                if hosts.iter().any(|host| host.status() == status) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let shown = tokio::time::timeout(LIMIT, look).await;
        shown.with_context(|| format!("the host does not become {status:?}"))?
    }

    /// Waits until the agent, asked itself, says that a merge is merged.
    pub async fn until_merged(&self, merge: &str) -> Result<v1::Merge> {
        let mut agent = self.agent()?;
        let look = async {
            loop {
                let merge_id = merge.to_owned();
                let answer = agent.get_merge(v1::GetMergeRequest { merge_id }).await?;
                let merge = answer.into_inner().merge.unwrap_or_default();
                ensure!(merge.phase() != v1::MergePhase::Failed, "{merge:?}");
                if merge.phase() == v1::MergePhase::Merged {
                    return Ok(merge);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let merged = tokio::time::timeout(LIMIT, look).await;
        merged.context("the merge does not end")?
    }

    /// Starts the machine again after its end. Without a daemon the agent gives libvirt's root away
    /// meanwhile.
    pub async fn restart_guest(&mut self) -> Result<()> {
        if self.rig.daemon().is_some() {
            self.rig.virsh().call(&["start", VM])?;
        } else {
            self.services.agent.stop()?;
            self.rig.virsh().call(&["start", VM])?;
            self.services.agent.start()?;
        }
        let vm = self.vm();
        self.api.wait_for_vm(vm, LIMIT).await?;
        self.write_more(5).await
    }

    /// Kills the machine's QEMU.
    pub fn kill_qemu(&self) -> Result<()> {
        self.rig.virsh().kill_qemu(VM)
    }

    /// Looks whether record, chains and storage agree. A machine that was just started or changed
    /// may not be settled yet: it has some time for that. A host that is slow is asked for longer.
    pub async fn agrees(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let findings = self.api.findings().await?;
            if findings.is_empty() {
                return Ok(());
            }
            let unseen = |finding: &v1::Finding| finding.kind() == v1::FindingKind::Unknown;
            let limit = if findings.iter().all(unseen) {
                LIMIT
            } else {
                SETTLES
            };
            ensure!(begun.elapsed() < limit, "they differ: {findings:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends all but the images, and looks in each disk's active image for the records that the
    /// guest was told are there.
    pub async fn verdicts(mut self) -> Result<Vec<Verdict>> {
        let mut active = Vec::new();
        for disk in self.guest.spec.disks.clone() {
            let images = self.images_of(&disk.target).await?;
            active.push((disk.target, images.last().context("no image")?.clone()));
        }
        self.services.agent.stop()?;
        self.services.api.stop()?;
        self.rig.virsh().power_off(VM)?;
        self.guest.acks.catch_up().await?;
        let look = |(disk, image): &(String, PathBuf)| self.look(disk, image);
        active.iter().map(look).collect()
    }

    /// Looks for a disk's acknowledged records in an image that nobody has open.
    pub fn look(&self, disk: &str, image: &Path) -> Result<Verdict> {
        let acks = self.guest.acks.acknowledged(disk);
        oracle::verify(disk, image, self.guest.spec.workload.slots, &acks)
    }

    fn agent(&self) -> Result<MergeServiceClient<Channel>> {
        let endpoint = Endpoint::from_shared(self.services.agent.endpoint())?;
        Ok(MergeServiceClient::new(endpoint.connect_lazy()))
    }
}
