//! An agent that does as it is told: a machine with one or two disks, merges that move when the test
//! says so, and a list of what it was asked.

mod volumes;

use futures::stream::{BoxStream, StreamExt as _};
use livemerge_proto::agent_api::SPOKEN;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::host_service_server::{HostService, HostServiceServer};
use livemerge_proto::v1::merge_service_server::{MergeService, MergeServiceServer};
use livemerge_proto::v1::volume_service_server::VolumeServiceServer;
use livemerge_proto::v1::{self, watch_host_response, watch_merges_response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream, WatchStream};
use tonic::{Request, Response, Status};

pub(crate) const HOST: &str = "host-1";
const STORAGE: &str = "default";
/// Between two signs of life.
const BEAT: std::time::Duration = std::time::Duration::from_millis(100);

/// What the agent has, and how it answers.
#[derive(Default)]
pub(crate) struct Script {
    /// The layers of each disk: name and allocated bytes.
    pub(crate) chains: BTreeMap<String, Vec<(String, i64)>>,
    /// What it measures of a disk, whatever is asked.
    pub(crate) measured: BTreeMap<String, Vec<v1::MergeOption>>,
    /// Calls that are answered by nobody until they leave this set.
    pub(crate) silent: BTreeSet<&'static str>,
    /// Calls that this agent is too old to know.
    pub(crate) lacks: BTreeSet<&'static str>,
    /// Which start of it this is.
    pub(crate) generation: i64,
    /// Number of the contract that it speaks.
    pub(crate) api_version: i32,
    /// Calls that were asked and are not answered until they leave this set.
    pub(crate) held: BTreeSet<&'static str>,
    /// Somebody uses the volumes that are to be removed.
    pub(crate) in_use: bool,
    /// Somebody uses this one of several.
    pub(crate) stays: Option<String>,
    /// Files of its journal that were damaged.
    pub(crate) damaged: Vec<String>,
    /// The guest may be frozen although it should not be.
    pub(crate) still_frozen: bool,
    /// The machine is shut off.
    pub(crate) off: bool,
    /// The next removal is done, kept, and not answered; so is the next restoration.
    pub(crate) lost_once: bool,
    /// The machine is not here.
    pub(crate) absent: bool,
    /// Its storage domains, in its own order.
    pub(crate) domains: Vec<String>,
    /// The volumes that its storage domain lists.
    pub(crate) stored: Vec<String>,
    /// The removal that it was last ordered.
    pub(crate) removing: Option<String>,
    /// The removals whose volumes it keeps.
    pub(crate) kept: Vec<v1::Removal>,
    /// A cancel comes too late.
    pub(crate) past_return: bool,
    /// What other hosts' merges were promised, as it was told last.
    pub(crate) promised: Vec<v1::PromisedRoom>,
    /// What it was asked, but for chains.
    pub(crate) asked: Vec<String>,
    merges: BTreeMap<String, v1::Merge>,
}

#[derive(Clone)]
pub(crate) struct Agent {
    host: &'static str,
    vm: String,
    script: Arc<Mutex<Script>>,
    shown: watch::Sender<()>,
}

impl Agent {
    /// Serves on a loopback port: the agent, and its endpoint.
    pub(crate) async fn serve(vm: String, disks: &[&str]) -> (Self, String) {
        Self::serve_as(HOST, vm, disks).await
    }

    /// The same for another host.
    pub(crate) async fn serve_as(host: &'static str, vm: String, disks: &[&str]) -> (Self, String) {
        let base = |disk: &&str| {
            let base = (format!("{disk}-base"), 64 << 20);
            ((*disk).to_owned(), vec![base])
        };
        let script = Script {
            chains: disks.iter().map(base).collect(),
            domains: vec![STORAGE.to_owned()],
            generation: 1,
            api_version: SPOKEN,
            ..Script::default()
        };
        let agent = Self {
            host,
            vm,
            script: Arc::new(Mutex::new(script)),
            shown: watch::Sender::new(()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let served = tonic::transport::Server::builder()
            .add_service(HostServiceServer::new(agent.clone()))
            .add_service(MergeServiceServer::new(agent.clone()))
            .add_service(VolumeServiceServer::new(agent.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        (agent, endpoint)
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Whether it was asked something that begins so.
    pub(crate) fn was_asked(&self, what: &str) -> usize {
        let script = self.script();
        script
            .asked
            .iter()
            .filter(|it| it.starts_with(what))
            .count()
    }

    /// The merges of its journal that have not ended.
    pub(crate) fn open_merges(&self) -> Vec<v1::Merge> {
        let open = |merge: &&v1::Merge| merge.phase() == v1::MergePhase::Copying;
        self.script()
            .merges
            .values()
            .filter(open)
            .cloned()
            .collect()
    }

    /// Shows these merges in this phase; the chain has lost what a merged one removes.
    pub(crate) fn show(&self, merges: &[v1::Merge], phase: v1::MergePhase) {
        let mut script = self.script();
        for merge in merges {
            let shown = script.merges.get_mut(&merge.id).unwrap();
            shown.set_phase(phase);
            shown.revision += 1;
            if phase == v1::MergePhase::Merged {
                let gone = merge.removed.iter().map(|it| it.name.clone());
                let gone: BTreeSet<String> = gone.collect();
                let chain = script.chains.get_mut(&merge.disk).unwrap();
                chain.retain(|(name, _)| !gone.contains(name));
            }
        }
        drop(script);
        self.shown.send_replace(());
    }

    /// Shows that these merges wait for this, or for nothing.
    pub(crate) fn show_waiting(&self, merges: &[v1::Merge], waiting: Option<&v1::MergeWaiting>) {
        let mut script = self.script();
        for merge in merges {
            let shown = script.merges.get_mut(&merge.id).unwrap();
            shown.waiting = waiting.cloned();
            shown.revision += 1;
        }
        drop(script);
        self.shown.send_replace(());
    }

    async fn not_held(&self, call: &'static str) {
        while self.script().held.contains(call) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Merges whatever is ordered from now on at once.
    pub(crate) fn merge_all(&self) {
        let agent = self.clone();
        let mut shown = self.shown.subscribe();
        tokio::spawn(async move {
            loop {
                let open = agent.open_merges();
                if !open.is_empty() {
                    agent.show(&open, v1::MergePhase::Merged);
                }
                if shown.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn answer(&self, call: &'static str, note: &str) -> Result<MutexGuard<'_, Script>, Status> {
        let mut script = self.script();
        if script.silent.contains(call) {
            return Err(Status::unavailable("silence"));
        }
        script.asked.push(format!("{call} {note}"));
        if script.lacks.contains(call) {
            return Err(Status::unimplemented(""));
        }
        Ok(script)
    }

    /// Takes merges into the journal: as they stand there.
    fn accept(&self, request: v1::StartMergeRequest) -> Result<Vec<v1::Merge>, Status> {
        let ordered: Vec<_> = request.disks.iter().map(|it| it.disk.clone()).collect();
        let mut script = self.answer("start", &ordered.join(" "))?;
        script.promised = request.promised_elsewhere;
        let mut merges = Vec::new();
        for order in request.disks {
            let name = |marked: v1::MarkedVolume| marked.volume.unwrap();
            let merge = v1::Merge {
                id: order.merge_id.clone(),
                vm_id: request.vm_id.clone(),
                disk: order.disk,
                kept: order.kept.map(name),
                removed: order.removed.into_iter().map(name).collect(),
                phase: v1::MergePhase::Copying.into(),
                bytes_per_second: order.bytes_per_second,
                revision: 1,
                ..v1::Merge::default()
            };
            let known = script.merges.entry(order.merge_id).or_insert(merge);
            merges.push(known.clone());
        }
        Ok(merges)
    }

    fn info(&self) -> v1::HostInfo {
        let script = self.script();
        v1::HostInfo {
            host_id: self.host.to_owned(),
            generation: script.generation,
            hypervisor_connected: true,
            storages: vec![STORAGE.to_owned()],
            damaged_journals: script.damaged.clone(),
            api_version: script.api_version,
            ..v1::HostInfo::default()
        }
    }

    fn vms(&self) -> Vec<v1::Vm> {
        let script = self.script();
        if script.absent {
            return vec![];
        }
        let state = if script.off {
            v1::VmState::ShutOff
        } else {
            v1::VmState::Running
        };
        let disks = script.chains.keys().map(|disk| v1::VmDisk {
            target: disk.clone(),
            ..v1::VmDisk::default()
        });
        vec![v1::Vm {
            id: self.vm.clone(),
            name: "vm".to_owned(),
            state: state.into(),
            disks: disks.collect(),
            still_frozen: script.still_frozen,
            ..v1::Vm::default()
        }]
    }
}

fn volume(name: &str) -> v1::VolumeRef {
    v1::VolumeRef {
        storage: STORAGE.to_owned(),
        name: name.to_owned(),
    }
}

#[tonic::async_trait]
impl HostService for Agent {
    async fn get_host(
        &self,
        _: Request<v1::HostServiceGetHostRequest>,
    ) -> Result<Response<v1::HostServiceGetHostResponse>, Status> {
        Ok(Response::new(v1::HostServiceGetHostResponse {
            host: Some(self.info()),
            vms: self.vms(),
        }))
    }

    type WatchHostStream = BoxStream<'static, Result<v1::WatchHostResponse, Status>>;

    async fn watch_host(
        &self,
        _: Request<v1::WatchHostRequest>,
    ) -> Result<Response<Self::WatchHostStream>, Status> {
        drop(self.answer("watch", "")?);
        let agent = self.clone();
        let beats = IntervalStream::new(tokio::time::interval(BEAT));
        let states = beats.map(move |_| {
            drop(agent.answer("watch", "")?);
            let state = watch_host_response::Item::State(v1::HostState {
                host: Some(agent.info()),
                vms: agent.vms(),
            });
            Ok(v1::WatchHostResponse { item: Some(state) })
        });
        Ok(Response::new(states.boxed()))
    }

    async fn create_overlays(
        &self,
        request: Request<v1::CreateOverlaysRequest>,
    ) -> Result<Response<v1::CreateOverlaysResponse>, Status> {
        let request = request.into_inner();
        let quiesce = request.quiesce();
        let mut script = self.answer("create", quiesce.as_str_name())?;
        for overlay in request.overlays {
            let name = overlay.overlay.unwrap().name;
            let chain = script.chains.get_mut(&overlay.disk).unwrap();
            chain.push((name, 32 << 20));
        }
        let consistency = match quiesce {
            v1::Quiesce::Required => v1::SnapshotConsistency::Frozen,
            _ => v1::SnapshotConsistency::Crash,
        };
        Ok(Response::new(v1::CreateOverlaysResponse {
            consistency: consistency.into(),
            ..v1::CreateOverlaysResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl MergeService for Agent {
    async fn plan_merge(
        &self,
        request: Request<v1::PlanMergeRequest>,
    ) -> Result<Response<v1::PlanMergeResponse>, Status> {
        let mut script = self.answer("measure", "")?;
        let request = request.into_inner();
        script.promised = request.promised_elsewhere;
        let plans = request.disks.into_iter().map(|range| {
            let options = script.measured.get(&range.disk).cloned();
            v1::DiskPlan {
                disk: range.disk,
                options: options.unwrap_or_default(),
                ..v1::DiskPlan::default()
            }
        });
        let disks = plans.collect();
        Ok(Response::new(v1::PlanMergeResponse { disks }))
    }

    async fn start_merge(
        &self,
        request: Request<v1::StartMergeRequest>,
    ) -> Result<Response<v1::StartMergeResponse>, Status> {
        let merges = self.accept(request.into_inner())?;
        self.shown.send_replace(());
        self.not_held("start").await;
        Ok(Response::new(v1::StartMergeResponse { merges }))
    }

    async fn cancel_merge(
        &self,
        request: Request<v1::CancelMergeRequest>,
    ) -> Result<Response<v1::CancelMergeResponse>, Status> {
        let id = request.into_inner().merge_id;
        if self.answer("cancel", &id)?.past_return {
            return Err(Problem::new(Reason::PointOfNoReturn, "too late").into());
        }
        self.show(&self.open_merges(), v1::MergePhase::Cancelled);
        Ok(Response::new(v1::CancelMergeResponse::default()))
    }

    async fn set_merge_bandwidth(
        &self,
        request: Request<v1::SetMergeBandwidthRequest>,
    ) -> Result<Response<v1::SetMergeBandwidthResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.answer("limit", &request.bytes_per_second.to_string())?;
        let merge = script.merges.get_mut(&request.merge_id).unwrap();
        merge.bytes_per_second = request.bytes_per_second;
        merge.revision += 1;
        drop(script);
        self.shown.send_replace(());
        Ok(Response::new(v1::SetMergeBandwidthResponse::default()))
    }

    async fn get_merge(
        &self,
        _: Request<v1::GetMergeRequest>,
    ) -> Result<Response<v1::GetMergeResponse>, Status> {
        Err(Status::unimplemented("the server watches"))
    }

    async fn list_merges(
        &self,
        _: Request<v1::ListMergesRequest>,
    ) -> Result<Response<v1::ListMergesResponse>, Status> {
        Err(Status::unimplemented("the server watches"))
    }

    type WatchMergesStream = BoxStream<'static, Result<v1::WatchMergesResponse, Status>>;

    async fn watch_merges(
        &self,
        _: Request<v1::WatchMergesRequest>,
    ) -> Result<Response<Self::WatchMergesStream>, Status> {
        let agent = self.clone();
        let all = WatchStream::new(self.shown.subscribe()).map(move |()| {
            let merges = agent.script().merges.values().cloned().collect();
            let state = watch_merges_response::Item::State(v1::MergeList { merges });
            Ok(v1::WatchMergesResponse { item: Some(state) })
        });
        Ok(Response::new(all.boxed()))
    }

    async fn get_volume_chain(
        &self,
        _: Request<v1::MergeServiceGetVolumeChainRequest>,
    ) -> Result<Response<v1::MergeServiceGetVolumeChainResponse>, Status> {
        let script = self.answer("chains", "")?;
        let layer = |(name, bytes): &(String, i64)| v1::ChainLayer {
            volume: Some(volume(name)),
            identity: format!("of-{name}"),
            locator: format!("/images/{name}"),
            format: v1::VolumeFormat::Qcow2.into(),
            virtual_bytes: 1 << 30,
            allocated_bytes: *bytes,
            ..v1::ChainLayer::default()
        };
        let chains = script.chains.iter().map(|(disk, layers)| v1::VolumeChain {
            vm_id: self.vm.clone(),
            disk: disk.clone(),
            layers: layers.iter().map(layer).collect(),
            ..v1::VolumeChain::default()
        });
        Ok(Response::new(v1::MergeServiceGetVolumeChainResponse {
            chains: chains.collect(),
            state: v1::VmState::Running.into(),
            unsupported_disks: vec![],
        }))
    }
}
