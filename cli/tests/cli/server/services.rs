//! The generated traits, answered from the script.

use super::page::{one, page};
use super::{LogStep, Scripted, Step};
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use v1::event_service_server::EventService;
use v1::inventory_service_server::InventoryService;
use v1::operation_service_server::OperationService;
use v1::snapshot_service_server::SnapshotService;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl InventoryService for Scripted {
    async fn register_host(
        &self,
        request: Request<v1::RegisterHostRequest>,
    ) -> Answer<v1::RegisterHostResponse> {
        let host = self
            .answer(&request, |_| ())
            .await
            .map(|()| request.into_inner())?;
        let host = v1::Host {
            id: host.host_id,
            endpoint: host.endpoint,
            generation: host.generation,
            version: host.version,
            ..Default::default()
        };
        Ok(Response::new(v1::RegisterHostResponse { host: Some(host) }))
    }

    async fn set_host_maintenance(
        &self,
        request: Request<v1::SetHostMaintenanceRequest>,
    ) -> Answer<v1::SetHostMaintenanceResponse> {
        let r = request.get_ref();
        let found = self.answer(&request, |s| {
            one(&s.hosts, |h| h.id == r.host_id, Reason::HostNotFound)
        });
        let host = v1::Host {
            maintenance: r.maintenance,
            ..found.await??
        };
        let host = Some(host);
        Ok(Response::new(v1::SetHostMaintenanceResponse { host }))
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Answer<v1::ListHostsResponse> {
        let r = request.get_ref();
        let answer = |s: &mut super::Script| page(&s.hosts, |_| true, r.page_size, &r.page_token);
        let (hosts, next_page_token) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::ListHostsResponse {
            hosts,
            next_page_token,
        }))
    }

    async fn list_storages(
        &self,
        request: Request<v1::InventoryServiceListStoragesRequest>,
    ) -> Answer<v1::InventoryServiceListStoragesResponse> {
        let r = request.get_ref();
        let fits = |it: &v1::HostStorage| r.host_id.is_empty() || it.host_id == r.host_id;
        let answer = |s: &mut super::Script| {
            let page = page(&s.storages, fits, r.page_size, &r.page_token);
            (page, s.silent_hosts.clone())
        };
        let ((storages, next_page_token), silent_host_ids) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::InventoryServiceListStoragesResponse {
            storages,
            silent_host_ids,
            next_page_token,
        }))
    }

    async fn list_removals(
        &self,
        request: Request<v1::InventoryServiceListRemovalsRequest>,
    ) -> Answer<v1::InventoryServiceListRemovalsResponse> {
        let r = request.get_ref();
        let fits = |removal: &v1::Removal| {
            let storage = removal.volume.as_ref().map(|volume| &volume.storage);
            r.storage.is_empty() || storage == Some(&r.storage)
        };
        let answer = |s: &mut super::Script| {
            let page = page(&s.removals, fits, r.page_size, &r.page_token);
            (page, s.silent_hosts.clone())
        };
        let ((removals, next_page_token), silent_host_ids) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::InventoryServiceListRemovalsResponse {
            removals,
            next_page_token,
            silent_host_ids,
        }))
    }

    async fn restore_volume(
        &self,
        request: Request<v1::InventoryServiceRestoreVolumeRequest>,
    ) -> Answer<v1::InventoryServiceRestoreVolumeResponse> {
        let id = &request.get_ref().removal_id;
        let found = self.answer(&request, |s| {
            one(
                &s.removals,
                |removal| removal.id == *id,
                Reason::RemovalNotFound,
            )
        });
        let volume = found.await??.volume;
        Ok(Response::new(v1::InventoryServiceRestoreVolumeResponse {
            volume,
        }))
    }

    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Answer<v1::GetHostResponse> {
        let id = &request.get_ref().host_id;
        let host = self.answer(&request, |s| {
            one(&s.hosts, |h| h.id == *id, Reason::HostNotFound)
        });
        Ok(Response::new(v1::GetHostResponse {
            host: Some(host.await??),
        }))
    }

    async fn list_vms(&self, request: Request<v1::ListVmsRequest>) -> Answer<v1::ListVmsResponse> {
        let r = request.get_ref();
        let fits = |vm: &v1::Vm| {
            (r.host_id.is_empty() || vm.host_id == r.host_id)
                && (r.name.is_empty() || vm.name == r.name)
        };
        let answer = |s: &mut super::Script| page(&s.vms, fits, r.page_size, &r.page_token);
        let (vms, next_page_token) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::ListVmsResponse {
            vms,
            next_page_token,
        }))
    }

    async fn get_vm(&self, request: Request<v1::GetVmRequest>) -> Answer<v1::GetVmResponse> {
        let id = &request.get_ref().vm_id;
        let vm = self.answer(&request, |s| {
            one(&s.vms, |vm| vm.id == *id, Reason::VmNotFound)
        });
        Ok(Response::new(v1::GetVmResponse {
            vm: Some(vm.await??),
        }))
    }

    async fn get_volume_chain(
        &self,
        request: Request<v1::GetVolumeChainRequest>,
    ) -> Answer<v1::GetVolumeChainResponse> {
        let r = request.get_ref();
        let fits =
            |c: &&v1::VolumeChain| c.vm_id == r.vm_id && (r.disk.is_empty() || c.disk == r.disk);
        let chains = self.answer(&request, |s| {
            s.chains.iter().filter(fits).cloned().collect()
        });
        Ok(Response::new(v1::GetVolumeChainResponse {
            chains: chains.await?,
            unsupported_disks: vec![],
        }))
    }

    async fn check_consistency(
        &self,
        request: Request<v1::CheckConsistencyRequest>,
    ) -> Answer<v1::CheckConsistencyResponse> {
        let r = request.get_ref();
        let fits = |finding: &&v1::Finding| {
            (r.vm_id.is_empty() || finding.vm_id == r.vm_id)
                && (r.host_id.is_empty() || finding.host_ids.contains(&r.host_id))
        };
        let answer = self.answer(&request, |s| v1::CheckConsistencyResponse {
            findings: s.findings.iter().filter(fits).cloned().collect(),
            omitted_findings: s.omitted_findings,
        });
        Ok(Response::new(answer.await?))
    }

    async fn apply_repair(
        &self,
        request: Request<v1::ApplyRepairRequest>,
    ) -> Answer<v1::ApplyRepairResponse> {
        let answer = self.answer(&request, |s| s.repaired.clone()).await?;
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl SnapshotService for Scripted {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Answer<v1::CreateSnapshotResponse> {
        let operation = self.answer(&request, |s| s.accepted.clone()).await?;
        Ok(Response::new(v1::CreateSnapshotResponse { operation }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Answer<v1::GetSnapshotResponse> {
        let id = &request.get_ref().snapshot_id;
        let missing = Reason::SnapshotNotFound;
        let found = self.answer(&request, |s| {
            one(&s.snapshots, |found| found.id == *id, missing)
        });
        Ok(Response::new(v1::GetSnapshotResponse {
            snapshot: Some(found.await??),
        }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Answer<v1::ListSnapshotsResponse> {
        let r = request.get_ref();
        let fits = |found: &v1::Snapshot| r.vm_id == "-" || found.vm_id == r.vm_id;
        let answer = |s: &mut super::Script| page(&s.snapshots, fits, r.page_size, &r.page_token);
        let (snapshots, next_page_token) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::ListSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn update_snapshot(
        &self,
        request: Request<v1::UpdateSnapshotRequest>,
    ) -> Answer<v1::UpdateSnapshotResponse> {
        let r = request.get_ref();
        let answer = self.answer(&request, |s| {
            one(
                &s.snapshots,
                |it| it.id == r.snapshot_id,
                Reason::SnapshotNotFound,
            )
        });
        let mut snapshot = answer.await??;
        snapshot.name = r.name.clone().unwrap_or(snapshot.name);
        Ok(Response::new(v1::UpdateSnapshotResponse {
            snapshot: Some(snapshot),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Answer<v1::DeleteSnapshotResponse> {
        let operation = self.answer(&request, |s| s.accepted.clone()).await?;
        Ok(Response::new(v1::DeleteSnapshotResponse { operation }))
    }

    async fn batch_delete_snapshots(
        &self,
        request: Request<v1::BatchDeleteSnapshotsRequest>,
    ) -> Answer<v1::BatchDeleteSnapshotsResponse> {
        let operation = self.answer(&request, |s| s.accepted.clone()).await?;
        Ok(Response::new(v1::BatchDeleteSnapshotsResponse {
            operation,
        }))
    }

    async fn plan_delete_snapshot(
        &self,
        request: Request<v1::PlanDeleteSnapshotRequest>,
    ) -> Answer<v1::PlanDeleteSnapshotResponse> {
        let plan = self.answer(&request, |s| s.plan.clone()).await?;
        Ok(Response::new(plan))
    }
}

#[tonic::async_trait]
impl OperationService for Scripted {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Answer<v1::GetOperationResponse> {
        let id = &request.get_ref().operation_id;
        let missing = Reason::OperationNotFound;
        let found = self.answer(&request, |s| {
            one(&s.operations, |found| found.id == *id, missing)
        });
        Ok(Response::new(v1::GetOperationResponse {
            operation: Some(found.await??),
        }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Answer<v1::ListOperationsResponse> {
        let r = request.get_ref();
        let fits = |operation: &v1::Operation| {
            (r.vm_id.is_empty() || operation.vm_id == r.vm_id)
                && (r.states.is_empty() || r.states.contains(&operation.state))
        };
        let answer = |s: &mut super::Script| page(&s.operations, fits, r.page_size, &r.page_token);
        let (operations, next_page_token) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::ListOperationsResponse {
            operations,
            next_page_token,
        }))
    }

    type WatchOperationStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchOperationResponse, Status>> + Send>>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Answer<Self::WatchOperationStream> {
        let steps = self
            .answer(&request, |s| s.watches.pop_front())
            .await?
            .unwrap_or_default();
        let gate = self.gate.clone();
        Ok(Response::new(Box::pin(async_stream::stream! {
            for step in steps {
                match step {
                    Step::Send(operation) => {
                        yield Ok(v1::WatchOperationResponse { operation: Some(operation) });
                    }
                    Step::Gate => gate.acquire().await.unwrap().forget(),
                    Step::Fail(status) => yield Err(status),
                    Step::End => return,
                }
            }
            std::future::pending().await
        })))
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Answer<v1::WaitOperationResponse> {
        let Some(operation) = self.answer(&request, |s| s.waits.pop_front()).await? else {
            return std::future::pending().await;
        };
        Ok(Response::new(v1::WaitOperationResponse {
            operation: Some(operation),
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Answer<v1::CancelOperationResponse> {
        let id = &request.get_ref().operation_id;
        let missing = Reason::OperationNotFound;
        let found = self.answer(&request, |s| {
            one(&s.operations, |found| found.id == *id, missing)
        });
        let mut operation = found.await??;
        operation.cancel_requested = true;
        Ok(Response::new(v1::CancelOperationResponse {
            operation: Some(operation),
        }))
    }

    async fn update_operation(
        &self,
        request: Request<v1::UpdateOperationRequest>,
    ) -> Answer<v1::UpdateOperationResponse> {
        let r = request.get_ref();
        let missing = Reason::OperationNotFound;
        let found = self.answer(&request, |s| {
            one(&s.operations, |found| found.id == r.operation_id, missing)
        });
        let mut operation = found.await??;
        operation.bytes_per_second = r.bytes_per_second;
        Ok(Response::new(v1::UpdateOperationResponse {
            operation: Some(operation),
        }))
    }
}

#[tonic::async_trait]
impl EventService for Scripted {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let r = request.get_ref();
        let fits = |event: &v1::Event| {
            (r.vm_id.is_empty() || event.vm_id == r.vm_id)
                && (r.types.is_empty() || r.types.contains(&event.r#type))
                && event.severity >= r.least_severity
                && (r.operation_id.is_empty() || event.operation_id == r.operation_id)
        };
        let answer = |s: &mut super::Script| page(&s.events, fits, r.page_size, &r.page_token);
        let (events, next_page_token) = self.answer(&request, answer).await?;
        Ok(Response::new(v1::ListEventsResponse {
            events,
            next_page_token,
            resume_token: String::new(),
        }))
    }

    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let (steps, events) = self
            .answer(&request, |s| (s.log_watches.pop_front(), s.events.clone()))
            .await?;
        Ok(Response::new(Box::pin(async_stream::stream! {
            for step in steps.unwrap_or_default() {
                let (revision, event) = match step {
                    LogStep::Event(revision) => {
                        let event = events.iter().find(|event| event.revision == revision);
                        (revision, event.cloned())
                    }
                    LogStep::Heartbeat(revision) => (revision, None),
                    LogStep::Fail(status) => {
                        yield Err(status);
                        return;
                    }
                    LogStep::End => return,
                };
                let resume_token = format!("behind-{revision}");
                yield Ok(v1::WatchEventsResponse { event, resume_token });
            }
            std::future::pending().await
        })))
    }
}
