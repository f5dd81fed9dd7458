//! `livemerge.v1.SnapshotService`.

use super::{caller, convert, detached, page::Pager};
use crate::snapshot::{CreateOrder, DeleteOrder, Snapshots, no_snapshot};
use crate::store::{RequestRecord, Store};
use livemerge_proto::fields::Fields;
use livemerge_proto::ids::{RequestId, SnapshotId, VmId};
use livemerge_proto::v1;
use livemerge_proto::v1::snapshot_service_server::SnapshotService;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tonic::{Request, Response, Status};

const MAX_DESCRIPTION: usize = 1024;

/// Serves snapshots.
pub struct SnapshotApi {
    /// The snapshots and their operations.
    pub snapshots: Arc<Snapshots>,
    /// For lists.
    pub store: Arc<dyn Store>,
}

#[tonic::async_trait]
impl SnapshotService for SnapshotApi {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let vm = fields.parse("vm_id", &request.vm_id);
        let name = fields.parse("name", &request.name);
        let fingerprint = fingerprint(
            "CreateSnapshot",
            &[&request.vm_id, &request.name, &request.description],
        );
        let description = fields.text("description", request.description, MAX_DESCRIPTION);
        let ((id, vm), (name, description)) =
            fields.finish(id.zip(vm).zip(name.zip(description)))?;
        let request = RequestRecord { id, fingerprint };
        let order = CreateOrder {
            request,
            caller,
            vm,
            name,
            description,
        };
        let snapshots = Arc::clone(&self.snapshots);
        let view = detached(async move { snapshots.create(order).await }).await?;
        Ok(Response::new(v1::CreateSnapshotResponse {
            operation: Some(convert::operation(view)),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let mut fields = Fields::new();
        let id = fields.parse::<SnapshotId>("snapshot_id", &request.get_ref().snapshot_id);
        let id = fields.finish(id)?;
        let found = self
            .store
            .snapshot(id)
            .await
            .map_err(problem)?
            .ok_or_else(|| no_snapshot(id))?;
        Ok(Response::new(v1::GetSnapshotResponse {
            snapshot: Some(convert::snapshot(found)),
        }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let vm: Option<Option<VmId>> = if request.vm_id == "-" {
            Some(None)
        } else {
            fields.parse("vm_id", &request.vm_id).map(Some)
        };
        let size = fields.page_size("page_size", request.page_size);
        let (vm, size) = fields.finish(vm.zip(size))?;
        let pager = Pager::new(("snapshots", vm), size);
        let page = pager.page(&request.page_token)?;
        let mut found = self.store.snapshots(vm, &page).await.map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |snapshot| snapshot.id);
        let snapshots = found.into_iter().map(convert::snapshot).collect();
        Ok(Response::new(v1::ListSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::DeleteSnapshotResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let snapshot = fields.parse("snapshot_id", &request.snapshot_id);
        let revision = convert::parse_etag(&request.etag);
        if revision.is_none() && !request.etag.is_empty() {
            fields.reject("etag", "is not one that a snapshot had");
        }
        let (id, snapshot) = fields.finish(id.zip(snapshot))?;
        let allow_missing = request.allow_missing;
        let payload = [
            &*request.snapshot_id,
            &*request.etag,
            if allow_missing { "allow" } else { "" },
        ];
        let request = RequestRecord {
            id,
            fingerprint: fingerprint("DeleteSnapshot", &payload),
        };
        let order = DeleteOrder {
            request,
            caller,
            snapshot,
            revision,
            allow_missing,
        };
        let snapshots = Arc::clone(&self.snapshots);
        let view = detached(async move { snapshots.delete(order).await }).await?;
        Ok(Response::new(v1::DeleteSnapshotResponse {
            operation: view.map(convert::operation),
        }))
    }
}

/// Tells whether two requests of one id are the same.
pub(super) fn fingerprint(method: &str, payload: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in std::iter::once(&method).chain(payload) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(super) fn problem(error: crate::store::StoreError) -> Status {
    livemerge_proto::problem::Problem::from(error).into()
}
