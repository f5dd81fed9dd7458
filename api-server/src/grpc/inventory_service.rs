//! `livemerge.v1.InventoryService`.

use super::snapshot_service::{fingerprint, problem};
use super::{caller, convert, detached, domains, finding, page::Pager, registration};
use crate::consistency::{Consistency, RepairOrder, Scope};
use crate::domains::Domains;
use crate::hosts::{
    ENDPOINT_FORM, HostError, HostView, Hosts, MaintenanceOrder, is_endpoint, no_host,
};
use crate::snapshot::{HostRecord, VmRecord, no_vm};
use crate::store::{RequestRecord, Store, VmFilter};
use livemerge_proto::fields::{Fields, page_size, unsigned};
use livemerge_proto::ids::{DiskTarget, HostId, RequestId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use livemerge_proto::v1::inventory_service_server::InventoryService;
use livemerge_runtime::{Caller, Clock};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Findings of one answer.
const MAX_FINDINGS: usize = 1000;

/// Serves hosts, machines and chains.
pub struct InventoryApi {
    /// The hosts.
    pub hosts: Arc<Hosts>,
    /// For lists of machines.
    pub store: Arc<dyn Store>,
    /// For the time at which a chain was read.
    pub clock: Arc<dyn Clock>,
    /// The storage domains.
    pub domains: Arc<Domains>,
    /// Compares and repairs.
    pub consistency: Arc<Consistency>,
}

#[tonic::async_trait]
impl InventoryService for InventoryApi {
    async fn register_host(
        &self,
        request: Request<v1::RegisterHostRequest>,
    ) -> Result<Response<v1::RegisterHostResponse>, Status> {
        let (asks, from) = (caller(&request), request.remote_addr());
        let bound = request.extensions().get::<Caller>().cloned();
        let record = parse_registration(request.into_inner())?;
        registration::admit(&record, bound.as_ref(), from)?;
        let hosts = Arc::clone(&self.hosts);
        let known = detached(async move {
            match record.generation {
                0 => hosts.found(record.id, record.endpoint, &asks).await,
                _ => hosts.announced(record, &asks).await,
            }
        });
        let known = known.await?;
        Ok(Response::new(v1::RegisterHostResponse {
            host: Some(self.host(known)),
        }))
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let request = request.into_inner();
        Fields::of(&request).check()?;
        let pager = Pager::new("hosts", page_size(request.page_size));
        let page = pager.page::<HostId>(&request.page_token)?;
        let mut found = self.hosts.all();
        found.retain(|(host, _)| page.after.as_ref().is_none_or(|after| host.id > *after));
        let next_page_token = pager.cut(&mut found, |(host, _)| host.id.clone());
        let hosts = found.into_iter().map(|known| self.host(known)).collect();
        Ok(Response::new(v1::ListHostsResponse {
            hosts,
            next_page_token,
        }))
    }

    async fn get_host(
        &self,
        request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::GetHostResponse>, Status> {
        let request = request.get_ref();
        let mut fields = Fields::of(request);
        let id = fields.parse::<HostId>("host_id", &request.host_id);
        let id = fields.finish(id)?;
        let known = self.hosts.get(&id).ok_or_else(|| no_host(&id))?;
        Ok(Response::new(v1::GetHostResponse {
            host: Some(self.host(known)),
        }))
    }

    async fn set_host_maintenance(
        &self,
        request: Request<v1::SetHostMaintenanceRequest>,
    ) -> Result<Response<v1::SetHostMaintenanceResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let host = fields.parse::<HostId>("host_id", &request.host_id);
        let (id, host) = fields.finish(id.zip(host))?;
        let order = MaintenanceOrder {
            request: id,
            caller,
            host: host.clone(),
            maintenance: request.maintenance,
        };
        let hosts = Arc::clone(&self.hosts);
        detached(async move { hosts.set_maintenance(&order).await }).await?;
        let known = self.hosts.get(&host).ok_or_else(|| no_host(&host))?;
        Ok(Response::new(v1::SetHostMaintenanceResponse {
            host: Some(self.host(known)),
        }))
    }

    async fn list_vms(
        &self,
        request: Request<v1::ListVmsRequest>,
    ) -> Result<Response<v1::ListVmsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let host = fields.parse_optional("host_id", &request.host_id);
        let host = fields.finish(host)?;
        let filter = VmFilter {
            host,
            name: Some(request.name).filter(|name| !name.is_empty()),
        };
        let pager = Pager::new(("vms", &filter), page_size(request.page_size));
        let page = pager.page(&request.page_token)?;
        let mut found = self.store.vms(&filter, &page).await.map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |vm| vm.id);
        let vms = found.iter().map(|vm| self.vm(vm)).collect();
        Ok(Response::new(v1::ListVmsResponse {
            vms,
            next_page_token,
        }))
    }

    async fn get_vm(
        &self,
        request: Request<v1::GetVmRequest>,
    ) -> Result<Response<v1::GetVmResponse>, Status> {
        let request = request.get_ref();
        let mut fields = Fields::of(request);
        let id = fields.parse::<VmId>("vm_id", &request.vm_id);
        let id = fields.finish(id)?;
        let record = self
            .store
            .vm(id)
            .await
            .map_err(problem)?
            .ok_or_else(|| no_vm(id))?;
        Ok(Response::new(v1::GetVmResponse {
            vm: Some(self.vm(&record)),
        }))
    }

    async fn get_volume_chain(
        &self,
        request: Request<v1::GetVolumeChainRequest>,
    ) -> Result<Response<v1::GetVolumeChainResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse::<VmId>("vm_id", &request.vm_id);
        let disk = fields.parse_optional::<DiskTarget>("disk", &request.disk);
        let (vm, disk) = fields.finish(vm.zip(disk))?;
        let host = self.hosts.of_vm(vm).ok_or_else(|| no_vm(vm))?;
        let read = host
            .agent
            .chains(vm, disk.as_ref())
            .await
            .map_err(HostError::into_problem)?;
        let now = self.clock.now();
        let unsupported_disks = read.unsupported.into_iter();
        let unsupported_disks = unsupported_disks.map(convert::unsupported).collect();
        let chains = read
            .chains
            .into_iter()
            .map(|chain| convert::chain(vm, chain, now))
            .collect();
        Ok(Response::new(v1::GetVolumeChainResponse {
            chains,
            unsupported_disks,
        }))
    }

    async fn list_storages(
        &self,
        request: Request<v1::InventoryServiceListStoragesRequest>,
    ) -> Result<Response<v1::InventoryServiceListStoragesResponse>, Status> {
        let request = request.into_inner();
        domains::storages(&self.domains, request).await
    }

    async fn list_removals(
        &self,
        request: Request<v1::InventoryServiceListRemovalsRequest>,
    ) -> Result<Response<v1::InventoryServiceListRemovalsResponse>, Status> {
        domains::removals(&self.domains, request.into_inner()).await
    }

    async fn restore_volume(
        &self,
        request: Request<v1::InventoryServiceRestoreVolumeRequest>,
    ) -> Result<Response<v1::InventoryServiceRestoreVolumeResponse>, Status> {
        domains::restore(&self.domains, request).await
    }

    async fn check_consistency(
        &self,
        request: Request<v1::CheckConsistencyRequest>,
    ) -> Result<Response<v1::CheckConsistencyResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse_optional::<VmId>("vm_id", &request.vm_id);
        let host = fields.parse_optional::<HostId>("host_id", &request.host_id);
        let (vm, host) = fields.finish(vm.zip(host))?;
        if let Some(host) = host.as_ref().filter(|host| self.hosts.get(host).is_none()) {
            return Err(no_host(host).into());
        }
        if let Some(vm) = vm {
            let known = self.store.vm(vm).await.map_err(problem)?;
            known.ok_or_else(|| no_vm(vm))?;
        }
        let scope = Scope { vm, host };
        let mut findings = self.consistency.check(&scope).await.map_err(problem)?;
        let omitted = findings.len().saturating_sub(MAX_FINDINGS);
        findings.truncate(MAX_FINDINGS);
        Ok(Response::new(v1::CheckConsistencyResponse {
            findings: findings.into_iter().map(finding::finding).collect(),
            omitted_findings: i32::try_from(omitted).unwrap_or(i32::MAX),
        }))
    }

    async fn apply_repair(
        &self,
        request: Request<v1::ApplyRepairRequest>,
    ) -> Result<Response<v1::ApplyRepairResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let finding = fields.parse("finding_id", &request.finding_id);
        let (id, finding) = fields.finish(id.zip(finding))?;
        let fingerprint = fingerprint("ApplyRepair", &[&request.finding_id]);
        let order = RepairOrder {
            request: RequestRecord { id, fingerprint },
            caller,
            finding,
        };
        let consistency = Arc::clone(&self.consistency);
        let repaired = detached(async move { consistency.repair(order).await }).await?;
        Ok(Response::new(finding::repaired(repaired)))
    }
}

impl InventoryApi {
    fn host(&self, (record, view): (HostRecord, HostView)) -> v1::Host {
        let maintenance = self.hosts.in_maintenance(&record.id);
        convert::host(record, &view, maintenance)
    }

    fn vm(&self, record: &VmRecord) -> v1::Vm {
        let Some((host, view)) = self.hosts.get(&record.host) else {
            return convert::vm_unknown(record, None);
        };
        match view.vms.as_ref().and_then(|vms| vms.get(&record.id)) {
            Some(seen) => convert::vm_seen(seen, &host.id, view.last_seen_at),
            None => convert::vm_unknown(record, view.last_seen_at),
        }
    }
}

fn parse_registration(request: v1::RegisterHostRequest) -> Result<HostRecord, Problem> {
    let mut fields = Fields::of(&request);
    // Registering is the same however often it is done, so the id is only looked at.
    let request_id = fields.parse::<RequestId>("request_id", &request.request_id);
    let id = fields.parse("host_id", &request.host_id);
    if !is_endpoint(&request.endpoint) {
        fields.reject("endpoint", ENDPOINT_FORM);
    }
    let (_, id) = fields.finish(request_id.zip(id))?;
    Ok(HostRecord {
        id,
        endpoint: request.endpoint,
        generation: unsigned(request.generation),
        version: request.version,
    })
}
