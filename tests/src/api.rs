//! The public API as a test or the demo calls it.

use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use tonic::transport::{self, Channel, Endpoint};
use tonic::{Code, Response, Status};
use uuid::Uuid;

/// How often something is read at most, and the time between two tries.
const READS: usize = 5;
const AGAIN: Duration = Duration::from_millis(20);

/// Clients of all public services on one channel.
#[derive(Debug, Clone)]
pub struct Api {
    /// Snapshots.
    pub snapshots: SnapshotServiceClient<Channel>,
    /// Operations.
    pub operations: OperationServiceClient<Channel>,
    /// Hosts, machines, chains.
    pub inventory: InventoryServiceClient<Channel>,
    /// The audit log.
    pub events: EventServiceClient<Channel>,
}

impl Api {
    /// Calls the server at this endpoint.
    pub fn at(endpoint: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
        Ok(Self::over(endpoint.connect_lazy()))
    }

    /// Calls the server behind this channel.
    pub fn over(channel: Channel) -> Self {
        Self {
            snapshots: SnapshotServiceClient::new(channel.clone()),
            operations: OperationServiceClient::new(channel.clone()),
            inventory: InventoryServiceClient::new(channel.clone()),
            events: EventServiceClient::new(channel),
        }
    }

    /// Waits until a machine runs in the server's view.
    pub async fn wait_for_vm(&mut self, vm: Uuid, limit: Duration) -> Result<v1::Vm> {
        let look = async {
            loop {
                let request = v1::GetVmRequest {
                    vm_id: vm.to_string(),
                };
                if let Ok(answer) = self.inventory.get_vm(request).await {
                    let vm = answer.into_inner().vm.unwrap_or_default();
                    if vm.state() == v1::VmState::Running {
                        return vm;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, look)
            .await
            .context("the server does not see the machine")
    }

    /// Asks for a snapshot.
    pub async fn create(&mut self, vm: Uuid, name: &str) -> Result<v1::Operation, Status> {
        self.create_with(vm, name, v1::Quiesce::Unspecified).await
    }

    /// Asks for a snapshot of a guest that is frozen meanwhile, or not.
    pub async fn create_with(
        &mut self,
        vm: Uuid,
        name: &str,
        quiesce: v1::Quiesce,
    ) -> Result<v1::Operation, Status> {
        let request = v1::CreateSnapshotRequest {
            request_id: Uuid::new_v4().to_string(),
            vm_id: vm.to_string(),
            name: name.to_owned(),
            description: String::new(),
            quiesce: quiesce.into(),
            ..Default::default()
        };
        let answer = self.snapshots.create_snapshot(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Asks for a snapshot's deletion by a commit: which job it is shall not hang on sizes.
    pub async fn delete(&mut self, snapshot: &str) -> Result<v1::Operation, Status> {
        let options = v1::MergeOptions {
            direction: v1::MergeDirection::Commit.into(),
            bytes_per_second: 0,
        };
        self.delete_with(snapshot, options).await
    }

    /// Asks for a snapshot's deletion.
    pub async fn delete_with(
        &mut self,
        snapshot: &str,
        options: v1::MergeOptions,
    ) -> Result<v1::Operation, Status> {
        let request = v1::DeleteSnapshotRequest {
            request_id: Uuid::new_v4().to_string(),
            snapshot_id: snapshot.to_owned(),
            options: Some(options),
            ..v1::DeleteSnapshotRequest::default()
        };
        let answer = self.snapshots.delete_snapshot(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Asks for the deletion of several snapshots of a machine in one operation.
    pub async fn delete_batch(
        &mut self,
        vm: Uuid,
        snapshots: &[String],
        options: v1::MergeOptions,
    ) -> Result<v1::Operation, Status> {
        let request = v1::BatchDeleteSnapshotsRequest {
            request_id: Uuid::new_v4().to_string(),
            vm_id: vm.to_string(),
            snapshot_ids: snapshots.to_vec(),
            allow_missing: false,
            options: Some(options),
        };
        let answer = self.snapshots.batch_delete_snapshots(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// What the deletion of snapshots would do.
    pub async fn plan(
        &mut self,
        snapshots: &[String],
        options: v1::MergeOptions,
    ) -> Result<v1::PlanDeleteSnapshotResponse, Status> {
        let request = v1::PlanDeleteSnapshotRequest {
            snapshot_ids: snapshots.to_vec(),
            options: Some(options),
        };
        let answer = self.snapshots.plan_delete_snapshot(request).await?;
        Ok(answer.into_inner())
    }

    /// Asks an operation to end before it is done.
    pub async fn cancel(&mut self, operation: &v1::Operation) -> Result<v1::Operation, Status> {
        let request = v1::CancelOperationRequest {
            operation_id: operation.id.clone(),
        };
        let answer = self.operations.cancel_operation(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Limits an operation's block jobs; 0 for no limit.
    pub async fn limit(
        &mut self,
        operation: &v1::Operation,
        bytes_per_second: i64,
    ) -> Result<v1::Operation, Status> {
        let request = v1::UpdateOperationRequest {
            operation_id: operation.id.clone(),
            bytes_per_second,
        };
        let answer = self.operations.update_operation(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Waits until a machine is seen so.
    pub async fn until_vm(&mut self, vm: Uuid, state: v1::VmState, limit: Duration) -> Result<()> {
        let look = async {
            loop {
                let vm_id = vm.to_string();
                let seen = self.inventory.get_vm(v1::GetVmRequest { vm_id }).await;
                let seen = seen.ok().and_then(|answer| answer.into_inner().vm);
                if seen.is_some_and(|seen| seen.state() == state) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = tokio::time::timeout(limit, look).await;
        seen.with_context(|| format!("the machine is not seen as {state:?}"))
    }

    /// A machine as the server shows it.
    pub async fn vm(&mut self, vm: Uuid) -> Result<v1::Vm> {
        let request = v1::GetVmRequest {
            vm_id: vm.to_string(),
        };
        let seen = read(|| {
            let (mut client, request) = (self.inventory.clone(), request.clone());
            async move { client.get_vm(request).await }
        })
        .await?;
        Ok(seen.vm.unwrap_or_default())
    }

    /// How the record, the chains and the storage differ.
    pub async fn findings(&mut self) -> Result<Vec<v1::Finding>> {
        let request = v1::CheckConsistencyRequest::default();
        let look = || {
            let (mut client, request) = (self.inventory.clone(), request.clone());
            async move { client.check_consistency(request).await }
        };
        Ok(read(look).await?.findings)
    }

    /// An operation as it stands.
    pub async fn operation(&mut self, id: &str) -> Result<v1::Operation> {
        let request = v1::GetOperationRequest {
            operation_id: id.to_owned(),
        };
        let look = || {
            let (mut client, request) = (self.operations.clone(), request.clone());
            async move { client.get_operation(request).await }
        };
        Ok(read(look).await?.operation.unwrap_or_default())
    }

    /// Waits for the end of an operation, also over restarts of the server.
    pub async fn ended(
        &mut self,
        operation: &v1::Operation,
        limit: Duration,
    ) -> Result<v1::Operation> {
        let mut last = operation.clone();
        let wait = async {
            loop {
                let request = v1::WaitOperationRequest {
                    operation_id: operation.id.clone(),
                    timeout: Some(prost_types::Duration {
                        seconds: 10,
                        nanos: 0,
                    }),
                };
                match self.operations.wait_operation(request).await {
                    Ok(answer) => {
                        last = answer.into_inner().operation.unwrap_or_default();
                        if last.ended_at.is_some() {
                            return;
                        }
                    }
                    Err(_while_it_restarts) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let ended = tokio::time::timeout(limit, wait).await;
        ended.with_context(|| format!("an operation does not end: {last:?}"))?;
        Ok(last)
    }

    /// Waits for the success of an operation.
    pub async fn succeeded(
        &mut self,
        operation: &v1::Operation,
        limit: Duration,
    ) -> Result<v1::Operation> {
        let ended = self.ended(operation, limit).await?;
        if ended.state() != v1::OperationState::Succeeded {
            bail!("the operation failed: {:?}", ended.failure);
        }
        Ok(ended)
    }

    /// Takes a snapshot and waits for it. Returns its id.
    pub async fn snapshot(&mut self, vm: Uuid, name: &str) -> Result<String> {
        let operation = self.create(vm, name).await?;
        let ended = self.succeeded(&operation, Duration::from_secs(180)).await?;
        Ok(ended.snapshot_id)
    }

    /// A machine's snapshots, oldest first.
    pub async fn list(&mut self, vm: Uuid) -> Result<Vec<v1::Snapshot>> {
        let request = v1::ListSnapshotsRequest {
            vm_id: vm.to_string(),
            ..Default::default()
        };
        let look = || {
            let (mut client, request) = (self.snapshots.clone(), request.clone());
            async move { client.list_snapshots(request).await }
        };
        Ok(read(look).await?.snapshots)
    }

    /// The chain of one disk, base first.
    pub async fn chain(&mut self, vm: Uuid, disk: &str) -> Result<v1::VolumeChain> {
        let request = v1::GetVolumeChainRequest {
            vm_id: vm.to_string(),
            disk: disk.to_owned(),
        };
        let look = || {
            let (mut client, request) = (self.inventory.clone(), request.clone());
            async move { client.get_volume_chain(request).await }
        };
        let chains = read(look).await?.chains;
        chains
            .into_iter()
            .next()
            .context("the machine has no such disk")
    }

    /// The audit log of a machine.
    pub async fn log(&mut self, vm: Uuid) -> Result<Vec<v1::Event>> {
        let mut log = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListEventsRequest {
                vm_id: vm.to_string(),
                page_size: 1000,
                page_token,
                ..Default::default()
            };
            let page = read(|| {
                let (mut client, request) = (self.events.clone(), request.clone());
                async move { client.list_events(request).await }
            })
            .await?;
            log.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(log);
            }
        }
    }
}

/// The answer to what changes nothing. A connection that ends on the way is no answer: it is asked
/// again on the next one.
async fn read<T, F>(ask: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for _ in 1..READS {
        match ask().await {
            Err(status) if is_cut(&status) => tokio::time::sleep(AGAIN).await,
            answer => return answer.map(Response::into_inner),
        }
    }
    ask().await.map(Response::into_inner)
}

fn is_cut(status: &Status) -> bool {
    let cause = status.source();
    status.code() == Code::Cancelled && cause.is_some_and(|cause| cause.is::<transport::Error>())
}
