//! `livemerge.v1.HostService`.

use super::{convert, detached, merge_service::draining};
use crate::hypervisor::{Hypervisor, VmView};
use crate::latest::Given;
use crate::machines::Inventory;
use crate::merge::{Fence, Merges};
use crate::overlays::{NewOverlay, OverlayOrder, Overlays};
use crate::volumes::Volumes;
use futures::Stream;
use livemerge_proto::agent_api::SPOKEN;
use livemerge_proto::fields::{Fields, duration, unsigned};
use livemerge_proto::ids::{HostId, RequestId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1::host_service_server::HostService;
use livemerge_proto::v1::{self, watch_host_response::Item};
use livemerge_runtime::{Clock, Shutdown};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// Serves the host and its machines.
#[derive(Clone)]
pub struct HostApi {
    /// The host's id.
    pub host: HostId,
    /// This start of the agent.
    pub generation: u64,
    /// The machines, kept fresh.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// For its address.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// For the names of disks' volumes.
    pub volumes: Arc<Volumes>,
    /// For what is damaged of their journal.
    pub merges: Arc<Merges>,
    /// For overlays.
    pub overlays: Arc<Overlays>,
    /// The machines whose guests may be frozen although they should not be.
    pub stuck: watch::Receiver<BTreeSet<VmId>>,
    /// Refuses an older server's orders.
    pub fence: Arc<Fence>,
    /// For the time at which a chain was read.
    pub clock: Arc<dyn Clock>,
    /// Ends the watches.
    pub shutdown: Shutdown,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchHostResponse, Status>> + Send>>;

#[tonic::async_trait]
impl HostService for HostApi {
    async fn get_host(
        &self,
        _request: Request<v1::HostServiceGetHostRequest>,
    ) -> Result<Response<v1::HostServiceGetHostResponse>, Status> {
        let inventory = self.inventory.borrow().clone();
        let state = self.state(&inventory).await;
        Ok(Response::new(v1::HostServiceGetHostResponse {
            host: state.host,
            vms: state.vms,
        }))
    }

    type WatchHostStream = WatchStream;

    async fn watch_host(
        &self,
        request: Request<v1::WatchHostRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let request = request.into_inner();
        Fields::of(&request).check()?;
        let every = duration(request.heartbeat_interval, HEARTBEAT_DEFAULT);
        Ok(Response::new(Box::pin(self.clone().watch(every))))
    }

    async fn create_overlays(
        &self,
        request: Request<v1::CreateOverlaysRequest>,
    ) -> Result<Response<v1::CreateOverlaysResponse>, Status> {
        let (generation, order) = parse_overlays(request.into_inner())?;
        let api = self.clone();
        let vm = order.vm;
        let overlaid = detached(async move {
            api.fence.pass(generation).await?;
            api.overlays.create(&order).await
        })
        .await?;
        let now = self.clock.now();
        let chains = overlaid.chains.into_iter();
        Ok(Response::new(v1::CreateOverlaysResponse {
            chains: chains.map(|chain| convert::chain(vm, chain, now)).collect(),
            consistency: convert::consistency(overlaid.consistency).into(),
        }))
    }
}

impl HostApi {
    async fn state(&self, inventory: &Inventory) -> v1::HostState {
        let damaged = self.merges.damaged().await;
        let host = v1::HostInfo {
            host_id: self.host.to_string(),
            generation: convert::bytes(self.generation),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hypervisor_connected: inventory.connected,
            hypervisor_uri: self.hypervisor.uri().to_owned(),
            storages: self.volumes.ids().map(ToString::to_string).collect(),
            damaged_journals: damaged
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            api_version: SPOKEN,
        };
        let vms = inventory.vms.iter().flatten();
        let vms = vms.map(|(_, vm)| self.vm(vm)).collect();
        v1::HostState {
            host: Some(host),
            vms,
        }
    }

    fn vm(&self, vm: &VmView) -> v1::Vm {
        let still_frozen = self.stuck.borrow().contains(&vm.id);
        convert::vm(vm, &self.volumes, still_frozen)
    }

    /// The full state, then what differs from what was sent, heartbeats in between.
    fn watch(
        mut self,
        every: Duration,
    ) -> impl Stream<Item = Result<v1::WatchHostResponse, Status>> + Send {
        async_stream::try_stream! {
            let mut sent = self.inventory.borrow_and_update().clone();
            let mut stuck = self.stuck.borrow_and_update().clone();
            yield piece(Item::State(self.state(&sent).await));
            loop {
                let change = tokio::time::timeout(every, changed(&mut self.inventory, &mut self.stuck));
                let Some(changed) = self.shutdown.run_until_cancelled(change).await else {
                    Err(draining())?;
                    return;
                };
                match changed {
                    Err(_quiet) => yield heartbeat(sent.connected),
                    Ok(Err(_closed)) => return,
                    Ok(Ok(())) => {
                        let now = self.inventory.borrow_and_update().clone();
                        let stuck_now = self.stuck.borrow_and_update().clone();
                        let others: Vec<VmId> = stuck.symmetric_difference(&stuck_now).copied().collect();
                        for item in self.difference(&sent, &now, &others).await {
                            yield piece(item);
                        }
                        (sent, stuck) = (now, stuck_now);
                    }
                }
            }
        }
    }

    /// `others` have changed in what the inventory does not know.
    async fn difference(&self, before: &Inventory, now: &Inventory, others: &[VmId]) -> Vec<Item> {
        let (Some(old), Some(new)) = (&before.vms, &now.vms) else {
            return vec![Item::State(self.state(now).await)];
        };
        if before.connected != now.connected {
            return vec![Item::State(self.state(now).await)];
        }
        let changed = new
            .iter()
            .filter(|(id, vm)| old.get(*id) != Some(*vm) || others.contains(id));
        let mut items: Vec<Item> = changed.map(|(_, vm)| Item::Changed(self.vm(vm))).collect();
        let removed = old.keys().filter(|id| !new.contains_key(*id));
        items.extend(removed.map(|id| Item::RemovedVmId(id.to_string())));
        items
    }
}

/// Waits until either has changed.
async fn changed(
    inventory: &mut watch::Receiver<Arc<Inventory>>,
    stuck: &mut watch::Receiver<BTreeSet<VmId>>,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        changed = inventory.changed() => changed,
        changed = stuck.changed() => changed,
    }
}

fn parse_overlays(request: v1::CreateOverlaysRequest) -> Result<(u64, OverlayOrder), Problem> {
    let mut fields = Fields::of(&request);
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let vm = fields.parse("vm_id", &request.vm_id);
    let quiesce = convert::quiesce(request.quiesce());
    let mut overlays = Vec::new();
    for (index, overlay) in request.overlays.into_iter().enumerate() {
        overlays.extend(parse_overlay(&mut fields, index, overlay));
    }
    let targets: BTreeSet<_> = overlays.iter().map(|overlay| &overlay.disk).collect();
    if targets.len() < overlays.len() {
        fields.reject("overlays", "must name each disk once");
    }
    let (id, vm) = fields.finish(id.zip(vm))?;
    let generation = unsigned(request.generation);
    let given = Given {
        generation,
        sequence: unsigned(request.sequence),
    };
    let order = OverlayOrder {
        request: id.into(),
        given: Some(given),
        vm,
        overlays,
        quiesce,
    };
    Ok((generation, order))
}

fn parse_overlay(fields: &mut Fields, index: usize, overlay: v1::Overlay) -> Option<NewOverlay> {
    let at = |name: &str| format!("overlays[{index}].{name}");
    let disk = fields.parse(&at("disk"), &overlay.disk);
    let below = convert::parse_volume(fields, &at("below"), overlay.below);
    let top = convert::parse_volume(fields, &at("overlay"), overlay.overlay);
    let (below, overlay) = below.zip(top)?;
    if below.storage != overlay.storage {
        fields.reject(&at("overlay.storage"), "must be the storage of `below`");
        return None;
    }
    Some(NewOverlay {
        disk: disk?,
        below,
        overlay,
    })
}

fn piece(item: Item) -> v1::WatchHostResponse {
    v1::WatchHostResponse { item: Some(item) }
}

fn heartbeat(hypervisor_connected: bool) -> v1::WatchHostResponse {
    piece(Item::Heartbeat(v1::HostHeartbeat {
        hypervisor_connected,
    }))
}
