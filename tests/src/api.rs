//! The public API as a test or the demo calls it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

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
    pub async fn create(&mut self, vm: Uuid, name: &str) -> Result<v1::Operation, tonic::Status> {
        let request = v1::CreateSnapshotRequest {
            request_id: Uuid::new_v4().to_string(),
            vm_id: vm.to_string(),
            name: name.to_owned(),
            description: String::new(),
        };
        let answer = self.snapshots.create_snapshot(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Asks for a snapshot's deletion.
    pub async fn delete(&mut self, snapshot: &str) -> Result<v1::Operation, tonic::Status> {
        let request = v1::DeleteSnapshotRequest {
            request_id: Uuid::new_v4().to_string(),
            snapshot_id: snapshot.to_owned(),
            ..v1::DeleteSnapshotRequest::default()
        };
        let answer = self.snapshots.delete_snapshot(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// An operation as it stands.
    pub async fn operation(&mut self, id: &str) -> Result<v1::Operation> {
        let request = v1::GetOperationRequest {
            operation_id: id.to_owned(),
        };
        let answer = self.operations.get_operation(request).await?;
        Ok(answer.into_inner().operation.unwrap_or_default())
    }

    /// Waits for the end of an operation, also over restarts of the server.
    pub async fn ended(
        &mut self,
        operation: &v1::Operation,
        limit: Duration,
    ) -> Result<v1::Operation> {
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
                        let operation = answer.into_inner().operation.unwrap_or_default();
                        if operation.ended_at.is_some() {
                            return operation;
                        }
                    }
                    Err(_while_it_restarts) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let ended = tokio::time::timeout(limit, wait).await;
        ended.with_context(|| format!("operation {} does not end", operation.id))
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
        let ended = self.succeeded(&operation, Duration::from_secs(30)).await?;
        Ok(ended.snapshot_id)
    }

    /// A machine's snapshots, oldest first.
    pub async fn list(&mut self, vm: Uuid) -> Result<Vec<v1::Snapshot>> {
        let request = v1::ListSnapshotsRequest {
            vm_id: vm.to_string(),
            ..Default::default()
        };
        Ok(self
            .snapshots
            .list_snapshots(request)
            .await?
            .into_inner()
            .snapshots)
    }

    /// The chain of one disk, base first.
    pub async fn chain(&mut self, vm: Uuid, disk: &str) -> Result<v1::VolumeChain> {
        let request = v1::GetVolumeChainRequest {
            vm_id: vm.to_string(),
            disk: disk.to_owned(),
        };
        let chains = self
            .inventory
            .get_volume_chain(request)
            .await?
            .into_inner()
            .chains;
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
            let page = self.events.list_events(request).await?.into_inner();
            log.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(log);
            }
        }
    }
}
