//! [`HostAgent`] over gRPC.
//!
//! Whether an error is a *no* or no answer at all is decided here, by its reason. A time-out, a
//! broken line, an error without a reason of ours: no answer.

use super::convert;
use super::types::{
    DomainSeen, HostError, HostReport, Measured, MergeOrder, OverlayOrder, Promised, RemovalOrder,
    RemovalSeen, Removed, VmChains, VolumeSeen,
};
use super::{HostAgent, volume_ref};
use crate::snapshot::{Consistency, Mark};
use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::host_service_client::HostServiceClient;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_proto::v1::volume_service_client::VolumeServiceClient;
use livemerge_proto::{DESCRIPTORS, v1};
use livemerge_runtime::Line;
use livemerge_runtime::client::{CallPolicy, Methods, Patience, Patient};
use livemerge_runtime::metrics::{Calls, ClientMeter};
use livemerge_storage::{RemovalId, StorageId};
use std::num::NonZeroU32;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
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

/// An agent behind a channel.
pub(super) struct GrpcAgent {
    host: HostId,
    channel: Line,
    generation: i64,
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
        generation: u64,
        answer: Duration,
        calls: ClientMeter,
    ) -> Self {
        Self {
            host,
            channel,
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
            answer,
            calls,
            patience: patience(answer),
            complained: Mutex::new(None),
        }
    }

    fn channel(&self) -> Patient<Calls<Line>> {
        self.patience.over(self.calls.over(self.channel.clone()))
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
        let mut client = MergeServiceClient::new(self.channel());
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
        };
        let mut client = HostServiceClient::new(self.channel());
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
        let mut client = MergeServiceClient::new(self.channel());
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
        };
        let mut client = MergeServiceClient::new(self.channel());
        let answer = client.start_merge(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn cancel_merge(&self, merge: MergeId) -> Result<(), HostError> {
        let request = v1::CancelMergeRequest {
            merge_id: merge.to_string(),
            generation: self.generation,
        };
        let mut client = MergeServiceClient::new(self.channel());
        let answer = client.cancel_merge(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn limit_merge(&self, merge: MergeId, bytes_per_second: u64) -> Result<(), HostError> {
        let request = v1::SetMergeBandwidthRequest {
            merge_id: merge.to_string(),
            generation: self.generation,
            bytes_per_second: i64::try_from(bytes_per_second).unwrap_or(i64::MAX),
        };
        let mut client = MergeServiceClient::new(self.channel());
        let answer = client.set_merge_bandwidth(self.at_once(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    async fn remove_volume(&self, order: &RemovalOrder) -> Result<Removed, HostError> {
        let request = v1::RemoveVolumeRequest {
            request_id: order.id.to_string(),
            generation: self.generation,
            volume: Some(volume_ref(&order.volume.volume)),
            identity: order.volume.identity.to_string(),
        };
        let mut client = VolumeServiceClient::new(self.channel());
        let answer = client
            .remove_volume(self.works(request))
            .await
            .map_err(|status| self.failed(status))?;
        let removal = answer.into_inner().removal.unwrap_or_default();
        convert::removed(&removal).map_err(|status| self.failed(status))
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
        let mut client = VolumeServiceClient::new(self.channel());
        let answer = client.restore_volume(self.works(request)).await;
        let volume = answer
            .map_err(|status| self.failed(status))?
            .into_inner()
            .volume;
        convert::volume(volume.unwrap_or_default()).map_err(|status| self.failed(status))
    }

    async fn report(&self) -> Result<HostReport, HostError> {
        let mut client = HostServiceClient::new(self.channel());
        let request = v1::HostServiceGetHostRequest {};
        let answer = client
            .get_host(self.at_once(request))
            .await
            .map_err(|status| self.failed(status))?;
        convert::report(&self.host, answer.into_inner()).map_err(|status| self.failed(status))
    }

    async fn domains(&self) -> Result<Vec<DomainSeen>, HostError> {
        let mut client = VolumeServiceClient::new(self.channel());
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
        let mut client = VolumeServiceClient::new(self.channel());
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
        let mut client = VolumeServiceClient::new(self.channel());
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

fn classify(status: Status) -> HostError {
    match Problem::try_from(status) {
        // Not what was asked is refused, but this server; who has asked it shall not think that
        // it is they.
        Ok(problem) if is_about_us(problem.reason) => {
            let text = format!("the host's agent does not let this server in: {problem}");
            HostError::Unknown(
                Problem::new(Reason::HostUnreachable, text).with("agent_reason", problem.reason),
            )
        }
        Ok(problem) if problem.reason == Reason::DeadlineExceeded => {
            let text = "the host's agent does not answer in time";
            let silent = Problem::new(Reason::HostUnreachable, text);
            HostError::Unknown(silent.with("code", problem.reason.code()))
        }
        Ok(problem) if is_a_no(problem.reason) => HostError::Refused(problem),
        Ok(problem) => HostError::Unknown(problem),
        Err(status) => {
            let text = format!("the host's agent does not answer: {}", status.message());
            HostError::Unknown(
                Problem::new(Reason::HostUnreachable, text).with("code", status.code()),
            )
        }
    }
}

/// Whether the agent refuses this server's credentials, or lacks a role for it.
fn is_about_us(reason: Reason) -> bool {
    matches!(
        reason.code(),
        Code::Unauthenticated | Code::PermissionDenied
    )
}

/// Whether the agent has understood and done nothing, and would say the same again.
pub fn is_a_no(reason: Reason) -> bool {
    match reason.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Cancelled => false,
        // A configuration that somebody mends.
        Code::Unauthenticated | Code::PermissionDenied => false,
        Code::ResourceExhausted => reason == Reason::InsufficientSpace,
        // It is this server that is too old, or restored; what it has ordered goes on.
        _ => reason != Reason::StaleGeneration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_answered_otherwise_later_is_no_no() {
        let open = [
            Reason::StaleGeneration,
            Reason::HostUnreachable,
            Reason::HypervisorUnreachable,
            Reason::StorageUnreachable,
            Reason::StoreUnavailable,
            Reason::PivotPutOff,
            Reason::VmBusy,
            Reason::MergeLimitReached,
            Reason::ServerDraining,
            Reason::DeadlineExceeded,
            Reason::CredentialsMissing,
            Reason::CredentialsInvalid,
            Reason::MethodNotPermitted,
            Reason::MergeIoError,
            Reason::InternalBug,
        ];
        for reason in Reason::ALL {
            assert_eq!(is_a_no(*reason), !open.contains(reason), "{reason}");
        }
    }

    #[test]
    fn an_error_of_nobody_we_know_is_no_answer() {
        let no = Problem::new(Reason::PointOfNoReturn, "too late");
        assert_eq!(classify(no.clone().into()), HostError::Refused(no));
        let HostError::Unknown(shut_out) =
            classify(Problem::new(Reason::MethodNotPermitted, "not you").into())
        else {
            panic!("it is no answer");
        };
        assert_eq!(shut_out.reason, Reason::HostUnreachable);
        let HostError::Unknown(slow) =
            classify(Problem::new(Reason::DeadlineExceeded, "its clock").into())
        else {
            panic!("it is no answer");
        };
        assert_eq!(slow.reason, Reason::HostUnreachable);
        let silent = Problem::new(Reason::StoreUnavailable, "later");
        assert_eq!(classify(silent.clone().into()), HostError::Unknown(silent));
        for code in [Code::FailedPrecondition, Code::NotFound, Code::Unavailable] {
            let HostError::Unknown(problem) = classify(Status::new(code, "a proxy's")) else {
                panic!("{code} is no answer of an agent");
            };
            assert_eq!(problem.reason, Reason::HostUnreachable);
        }
    }
}
