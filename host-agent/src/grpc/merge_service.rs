//! `livemerge.v1.MergeService`.

use super::{convert, detached, merge_order, page::page, plan};
use crate::chains;
use crate::hypervisor::Hypervisor;
use crate::merge::{Merges, Views};
use crate::volumes::Volumes;
use futures::Stream;
use livemerge_proto::fields::{Fields, page_size, unsigned};
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::merge_service_server::MergeService;
use livemerge_proto::v1::{self, watch_merges_response::Item};
use livemerge_runtime::{Clock, Shutdown};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// A quiet watch says so often that the agent lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Serves merges.
pub struct MergeApi {
    /// The merges of this host.
    pub merges: Arc<Merges>,
    /// For chains.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// For what storage knows of a chain's layers.
    pub volumes: Arc<Volumes>,
    /// For the time at which a chain was read.
    pub clock: Arc<dyn Clock>,
    /// Ends the watches.
    pub shutdown: Shutdown,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchMergesResponse, Status>> + Send>>;

#[tonic::async_trait]
impl MergeService for MergeApi {
    async fn plan_merge(
        &self,
        request: Request<v1::PlanMergeRequest>,
    ) -> Result<Response<v1::PlanMergeResponse>, Status> {
        let (vm, ranges, elsewhere) = plan::parse(request.into_inner())?;
        let plans = self.merges.plan(vm, ranges, elsewhere).await?;
        let disks = plans.into_iter().map(plan::disk_plan).collect();
        Ok(Response::new(v1::PlanMergeResponse { disks }))
    }

    async fn start_merge(
        &self,
        request: Request<v1::StartMergeRequest>,
    ) -> Result<Response<v1::StartMergeResponse>, Status> {
        let (orders, sequence, elsewhere) = merge_order::parse(request.into_inner())?;
        let merges = Arc::clone(&self.merges);
        let started =
            detached(async move { merges.start_beside(orders, sequence, elsewhere).await });
        let views = started.await?;
        let merges = views.into_iter().map(convert::merge).collect();
        Ok(Response::new(v1::StartMergeResponse { merges }))
    }

    async fn cancel_merge(
        &self,
        request: Request<v1::CancelMergeRequest>,
    ) -> Result<Response<v1::CancelMergeResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let id = fields.parse::<MergeId>("merge_id", &request.merge_id);
        let id = fields.finish(id)?;
        let generation = unsigned(request.generation);
        let merges = Arc::clone(&self.merges);
        let view = detached(async move { merges.cancel(id, generation).await }).await?;
        let merge = Some(convert::merge(view));
        Ok(Response::new(v1::CancelMergeResponse { merge }))
    }

    async fn set_merge_bandwidth(
        &self,
        request: Request<v1::SetMergeBandwidthRequest>,
    ) -> Result<Response<v1::SetMergeBandwidthResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let id = fields.parse::<MergeId>("merge_id", &request.merge_id);
        let id = fields.finish(id)?;
        let generation = unsigned(request.generation);
        let limit = unsigned(request.bytes_per_second);
        let merges = Arc::clone(&self.merges);
        let view = detached(async move { merges.limit(id, generation, limit).await }).await?;
        let merge = Some(convert::merge(view));
        Ok(Response::new(v1::SetMergeBandwidthResponse { merge }))
    }

    async fn get_merge(
        &self,
        request: Request<v1::GetMergeRequest>,
    ) -> Result<Response<v1::GetMergeResponse>, Status> {
        let request = request.get_ref();
        let mut fields = Fields::of(request);
        let id = fields.parse::<MergeId>("merge_id", &request.merge_id);
        let id = fields.finish(id)?;
        let view = self.merges.get(id).ok_or_else(|| {
            let text = format!("merge {id} is not in this host's journal");
            Problem::new(Reason::MergeNotFound, text).with("merge", id)
        })?;
        Ok(Response::new(v1::GetMergeResponse {
            merge: Some(convert::merge(view)),
        }))
    }

    async fn list_merges(
        &self,
        request: Request<v1::ListMergesRequest>,
    ) -> Result<Response<v1::ListMergesResponse>, Status> {
        let request = request.into_inner();
        Fields::of(&request).check()?;
        let views = self.merges.watch().borrow().clone();
        let (views, next_page_token) = page(
            views.values().cloned(),
            |view| view.record.order.id,
            page_size(request.page_size),
            &request.page_token,
        )?;
        let merges = views.into_iter().map(convert::merge).collect();
        Ok(Response::new(v1::ListMergesResponse {
            merges,
            next_page_token,
        }))
    }

    type WatchMergesStream = WatchStream;

    async fn watch_merges(
        &self,
        _request: Request<v1::WatchMergesRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let stream = watch_stream(self.merges.watch(), self.shutdown.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_volume_chain(
        &self,
        request: Request<v1::MergeServiceGetVolumeChainRequest>,
    ) -> Result<Response<v1::MergeServiceGetVolumeChainResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse::<VmId>("vm_id", &request.vm_id);
        let disk = fields.parse_optional::<DiskTarget>("disk", &request.disk);
        let (vm, disk) = fields.finish(vm.zip(disk))?;
        let read = chains::read(vm, disk.as_ref(), self.hypervisor.as_ref(), &self.volumes).await?;
        let now = self.clock.now();
        let unsupported = read.unsupported.into_iter().map(convert::unsupported);
        let chains = read
            .chains
            .into_iter()
            .map(|chain| convert::chain(vm, chain, now))
            .collect();
        Ok(Response::new(v1::MergeServiceGetVolumeChainResponse {
            chains,
            state: convert::vm_state(read.state).into(),
            unsupported_disks: unsupported.collect(),
        }))
    }
}

/// All merges first, then each that was shown anew, heartbeats in between. A slow reader misses
/// states in between, never the last one.
fn watch_stream(
    mut views: watch::Receiver<Views>,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<v1::WatchMergesResponse, Status>> + Send {
    async_stream::try_stream! {
        let mut sent: HashMap<MergeId, u64> = HashMap::new();
        let first = views.borrow_and_update().clone();
        sent.extend(first.iter().map(|(id, view)| (*id, view.shown)));
        let merges = first.values().cloned().map(convert::merge).collect();
        yield piece(Item::State(v1::MergeList { merges }));
        loop {
            let change = tokio::time::timeout(HEARTBEAT, views.changed());
            let Some(changed) = shutdown.run_until_cancelled(change).await else {
                Err(draining())?;
                return;
            };
            match changed {
                Err(_quiet) => yield piece(Item::Heartbeat(v1::MergeHeartbeat {})),
                Ok(Err(_closed)) => return,
                Ok(Ok(())) => {
                    let now = views.borrow_and_update().clone();
                    sent.retain(|id, _| now.contains_key(id));
                    for (id, view) in now.iter() {
                        if sent.insert(*id, view.shown) != Some(view.shown) {
                            yield piece(Item::Changed(convert::merge(view.clone())));
                        }
                    }
                }
            }
        }
    }
}

fn piece(item: Item) -> v1::WatchMergesResponse {
    v1::WatchMergesResponse { item: Some(item) }
}

pub(super) fn draining() -> Status {
    Problem::new(Reason::ServerDraining, "the agent is stopping").into()
}
