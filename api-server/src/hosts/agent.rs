//! [`HostAgent`] over gRPC.

use super::answer::{classify, incompatible, unheard};
use super::convert;
use super::measured::{Measured, Promised};
use super::types::{
    DomainSeen, HostError, HostReport, HostStatus, HostView, MergeOrder, OverlayOrder,
    RemovalOrder, RemovalSeen, Removed, VmChains, VolumeSeen,
};
use super::{HostAgent, Removals, volume_ref};
use crate::snapshot::{Consistency, Mark};
use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, HostId, MergeId, VmId};
use livemerge_proto::v1::host_service_client::HostServiceClient;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_proto::v1::volume_service_client::VolumeServiceClient;
use livemerge_proto::{DESCRIPTORS, v1};
use livemerge_runtime::Line;
use livemerge_runtime::client::{CallPolicy, Methods, Patience, Patient};
use livemerge_runtime::metrics::{Calls, ClientMeter};
use livemerge_storage::{RemovalId, StorageId};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

/// What works before it answers has so many times as long: a removal, which frees space, and overlays,
/// which wait for the agent in a guest. Both go on after the time is over.
const WORKS: u32 = 6;

/// How often it is said that an agent does not let this server in.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Volumes of one page of a list.
const PAGE: i32 = 1000;

/// How often an agent is asked before it is said not to answer.
const TRIES: NonZeroU32 = NonZeroU32::new(2).expect("not zero");

/// What may be asked again here. An order is repeated by the lane that keeps it, which says that it
/// waits, and for what.
static METHODS: LazyLock<Methods> = LazyLock::new(|| {
    let methods = Methods::of(DESCRIPTORS).expect("the build has made the descriptors");
    methods.reads_alone()
});

fn patience(answer: Duration) -> Patience {
    let policy = CallPolicy {
        time: answer,
        tries: TRIES,
        ..CallPolicy::default()
    };
    Patience::new(METHODS.clone(), policy)
}

/// Counts the orders of this start of the server, over all hosts and all lines to them, so that an
/// agent knows a late one from the latest.
#[derive(Debug, Default)]
pub(super) struct Orders(AtomicI64);

impl Orders {
    /// 1 or more, and more each time.
    fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// An agent behind a channel.
pub(super) struct GrpcAgent {
    host: HostId,
    channel: Line,
    /// What its link has found it to be.
    view: watch::Receiver<HostView>,
    generation: i64,
    orders: Arc<Orders>,
    /// For calls that answer at once.
    answer: Duration,
    calls: ClientMeter,
    patience: Patience,
    /// When it was last said that the agent does not let this server in.
    complained: Mutex<Option<Instant>>,
}

impl GrpcAgent {
    pub(super) fn new(
        host: HostId,
        channel: Line,
        view: watch::Receiver<HostView>,
        generation: u64,
        orders: Arc<Orders>,
        answer: Duration,
        calls: ClientMeter,
    ) -> Self {
        Self {
            host,
            channel,
            view,
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
            orders,
            answer,
            calls,
            patience: patience(answer),
            complained: Mutex::new(None),
        }
    }

    /// # Errors
    /// The agent is of a version that is not worked with. It may be another one tomorrow, so that this
    /// is no *no*: what waits goes on then.
    fn channel(&self) -> Result<Patient<Calls<Line>>, HostError> {
        let view = self.view.borrow();
        if view.status == HostStatus::Incompatible {
            let problem = incompatible(&self.host, view.api_version.unwrap_or_default());
            return Err(HostError::Unknown(problem));
        }
        Ok(self.patience.over(self.calls.over(self.channel.clone())))
    }

    /// For orders, which an agent of another version could take in another sense: none is given before it
    /// has said which one it is of.
    ///
    /// # Errors
    /// As [`channel`](Self::channel), and when it has not said so since the line to it was lost.
    fn ordering(&self) -> Result<Patient<Calls<Line>>, HostError> {
        let channel = self.channel()?;
        if self.view.borrow().api_version.is_none() {
            return Err(HostError::Unknown(unheard(&self.host)));
        }
        Ok(channel)
    }

    /// What a failed call means. That the agent does not let this server in is said once in a while,
    /// however much is asked.
    fn failed(&self, status: Status) -> HostError {
        let ours = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied
        );
        let error = classify(status);
        let mut complained = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if ours && complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            *complained = Some(Instant::now());
            tracing::error!(host = %self.host, "{error}");
        }
        error
    }

    fn at_once<T>(&self, message: T) -> Request<T> {
        within(self.answer, message)
    }

    fn works<T>(&self, message: T) -> Request<T> {
        within(WORKS * self.answer, message)
    }
}

#[async_trait]
impl HostAgent for GrpcAgent {
    async fn chains(&self, vm: VmId, disk: Option<&DiskTarget>) -> Result<VmChains, HostError> {
        let request = v1::MergeServiceGetVolumeChainRequest {
            vm_id: vm.to_string(),
            disk: disk.map(ToString::to_string).unwrap_or_default(),
        };
        let mut client = MergeServiceClient::new(self.channel()?);
        let answer = client
            .get_volume_chain(self.at_once(request))
            .await
            .map_err(|status| self.failed(status))?;
        convert::chains(answer.into_inner()).map_err(|status| self.failed(status))
    }

    async fn create_overlays(&self, order: &OverlayOrder) -> Result<Consistency, HostError> {
        let overlays = order.overlays.iter().map(|overlay| v1::Overlay {
            disk: overlay.disk.to_string(),
            below: Some(volume_ref(&overlay.below)),
            overlay: Some(volume_ref(&overlay.overlay)),
        });
        let request = v1::CreateOverlaysRequest {
            request_id: order.request.to_string(),
            generation: self.generation,
            vm_id: order.vm.to_string(),
            overlays: overlays.collect(),
            quiesce: convert::quiesce(order.quiesce).into(),
            sequence: self.orders.next(),
        };
        let mut client = HostServiceClient::new(self.ordering()?);
        let answer = client
            .create_overlays(self.works(request))
            .await
            .map_err(|status| self.failed(status))?;
        Ok(convert::consistency(answer.get_ref().consistency()))
    }

    async fn measure(
        &self,
        vm: VmId,
        runs: &[(DiskTarget, Mark, Mark)],
        elsewhere: &[Promised],
    ) -> Result<Vec<Measured>, HostError> {
        let request = v1::PlanMergeRequest {
            vm_id: vm.to_string(),
            disks: runs.iter().map(convert::disk_range).collect(),
            promised_elsewhere: elsewhere.iter().map(convert::promised_room).collect(),
        };
        let mut client = MergeServiceClient::new(self.channel()?);
        let answer = client.plan_merge(self.works(request)).await;
        let plans = answer
            .map_err(|status| self.failed(status))?
            .into_inner()
            .disks;
        let measured = plans
            .iter()
            .zip(runs)
            .map(|(plan, (disk, oldest, _))| Measured {
                disk: disk.clone(),
                oldest: oldest.volume.clone(),
                ways: plan.options.iter().filter_map(convert::way).collect(),
            });
        Ok(measured.collect())
    }

    async fn start_merges(
        &self,
        orders: &[MergeOrder],
        elsewhere: &[Promised],
    ) -> Result<(), HostError> {
        let Some(first) = orders.first() else {
            return Ok(());
        };
        let request = v1::StartMergeRequest {
            generation: self.generation,
            vm_id: first.vm.to_string(),
            disks: orders.iter().map(convert::disk_merge).collect(),
            promised_elsewhere: elsewhere.iter().map(convert::promised_room).collect(),
            sequence: self.orders.next(),
        };
        let mut client = MergeServiceClient::new(self.ordering()?);
        let answer = client.start_merge(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn cancel_merge(&self, merge: MergeId) -> Result<(), HostError> {
        let request = v1::CancelMergeRequest {
            merge_id: merge.to_string(),
            generation: self.generation,
        };
        let mut client = MergeServiceClient::new(self.ordering()?);
        let answer = client.cancel_merge(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn limit_merge(&self, merge: MergeId, bytes_per_second: u64) -> Result<(), HostError> {
        let request = v1::SetMergeBandwidthRequest {
            merge_id: merge.to_string(),
            generation: self.generation,
            bytes_per_second: i64::try_from(bytes_per_second).unwrap_or(i64::MAX),
        };
        let mut client = MergeServiceClient::new(self.ordering()?);
        let answer = client.set_merge_bandwidth(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn remove_volume(&self, order: &RemovalOrder) -> Result<Removed, HostError> {
        let request = v1::RemoveVolumeRequest {
            request_id: order.id.to_string(),
            generation: self.generation,
            volume: Some(volume_ref(&order.volume.volume)),
            identity: order.volume.identity.to_string(),
            also: vec![],
        };
        let mut client = VolumeServiceClient::new(self.ordering()?);
        let answer = client
            .remove_volume(self.works(request))
            .await
            .map_err(|status| self.failed(status))?;
        let removal = answer.into_inner().removal.unwrap_or_default();
        convert::removed(&removal).map_err(|status| self.failed(status))
    }

    async fn remove_volumes(&self, orders: &[RemovalOrder]) -> Result<Removals, HostError> {
        let Some((first, also)) = orders.split_first() else {
            return Ok(Removals::new());
        };
        if also.is_empty() {
            let removed = self.remove_volume(first).await?;
            return Ok(Removals::from([(first.id, Ok(removed))]));
        }
        let request = v1::RemoveVolumeRequest {
            request_id: first.id.to_string(),
            generation: self.generation,
            volume: Some(volume_ref(&first.volume.volume)),
            identity: first.volume.identity.to_string(),
            also: also.iter().map(convert::volume_removal).collect(),
        };
        let mut client = VolumeServiceClient::new(self.ordering()?);
        let answer = client
            .remove_volume(self.works(request))
            .await
            .map_err(|status| self.failed(status))?;
        convert::removals(orders, answer.into_inner()).map_err(|status| self.failed(status))
    }

    async fn restore_volume(
        &self,
        storage: &StorageId,
        removal: RemovalId,
    ) -> Result<VolumeSeen, HostError> {
        let request = v1::RestoreVolumeRequest {
            generation: self.generation,
            storage: storage.to_string(),
            removal_id: removal.to_string(),
        };
        let mut client = VolumeServiceClient::new(self.ordering()?);
        let answer = client.restore_volume(self.works(request)).await;
        let volume = answer
            .map_err(|status| self.failed(status))?
            .into_inner()
            .volume;
        convert::volume(volume.unwrap_or_default()).map_err(|status| self.failed(status))
    }

    async fn report(&self) -> Result<HostReport, HostError> {
        let mut client = HostServiceClient::new(self.channel()?);
        let request = v1::HostServiceGetHostRequest {};
        let answer = client
            .get_host(self.at_once(request))
            .await
            .map_err(|status| self.failed(status))?;
        convert::report(&self.host, answer.into_inner()).map_err(|status| self.failed(status))
    }

    async fn domains(&self) -> Result<Vec<DomainSeen>, HostError> {
        let mut client = VolumeServiceClient::new(self.channel()?);
        let (mut domains, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListStoragesRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = client.list_storages(self.at_once(request)).await;
            let page = answer.map_err(|status| self.failed(status))?.into_inner();
            for domain in page.storages {
                domains.push(convert::domain(domain).map_err(|status| self.failed(status))?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(domains);
            }
        }
    }

    async fn volumes(&self, storage: &StorageId) -> Result<Vec<VolumeSeen>, HostError> {
        let mut client = VolumeServiceClient::new(self.channel()?);
        let (mut volumes, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListVolumesRequest {
                storage: storage.to_string(),
                page_size: PAGE,
                page_token,
            };
            let answer = client.list_volumes(self.at_once(request)).await;
            let page = answer.map_err(|status| self.failed(status))?.into_inner();
            for volume in page.volumes {
                volumes.push(convert::volume(volume).map_err(|status| self.failed(status))?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(volumes);
            }
        }
    }

    async fn removals(&self, storage: &StorageId) -> Result<Vec<RemovalSeen>, HostError> {
        let mut client = VolumeServiceClient::new(self.channel()?);
        let request = v1::ListRemovalsRequest {
            storage: storage.to_string(),
        };
        let answer = client.list_removals(self.at_once(request)).await;
        let removals = answer
            .map_err(|status| self.failed(status))?
            .into_inner()
            .removals;
        let removals = removals.iter().map(convert::removal);
        removals
            .collect::<Result<_, _>>()
            .map_err(|status| self.failed(status))
    }
}

fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

/// Who answers on a channel: its host's id and its generation. `None` when nobody does.
pub(super) async fn identity(channel: Line) -> Option<(String, u64)> {
    let asked = v1::HostServiceGetHostRequest {};
    let answer = HostServiceClient::new(channel).get_host(asked).await.ok()?;
    let host = answer.into_inner().host?;
    Some((host.host_id, u64::try_from(host.generation).ok()?))
}
