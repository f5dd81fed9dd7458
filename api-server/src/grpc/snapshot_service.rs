//! `livemerge.v1.SnapshotService`.

use super::{caller, convert, delete_order, detached, forecast, operation, page::Pager};
use crate::snapshot::{CreateOrder, DeleteOrder, Quiesce, Snapshots, UpdateOrder, no_snapshot};
use crate::store::{RequestRecord, Store};
use livemerge_proto::fields::{Fields, page_size};
use livemerge_proto::ids::{RequestId, SnapshotId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use livemerge_proto::v1::snapshot_service_server::SnapshotService;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

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
        let quiesce = convert::quiesce(request.quiesce());
        let mut fields = Fields::of(&request);
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let vm = fields.parse("vm_id", &request.vm_id);
        let name = fields.parse("name", &request.name);
        let ((id, vm), name) = fields.finish(id.zip(vm).zip(name))?;
        let description = request.description;
        let labels = BTreeMap::from_iter(request.labels);
        let deletion_protected = request.deletion_protected;
        let noted = format!("{labels:?}");
        let mut payload = vec![&*request.vm_id, &request.name, &description];
        // What is not asked for is left out, so that a repetition is known over an upgrade.
        payload.extend((!labels.is_empty()).then_some(&*noted));
        payload.extend(deletion_protected.then_some("protected"));
        payload.extend(match quiesce {
            Quiesce::IfPossible => None,
            Quiesce::Required => Some("frozen"),
            Quiesce::Never => Some("not frozen"),
        });
        let request = RequestRecord {
            id,
            fingerprint: fingerprint("CreateSnapshot", &payload),
        };
        let order = CreateOrder {
            request,
            caller,
            vm,
            name,
            description,
            labels,
            deletion_protected,
            quiesce,
        };
        let snapshots = Arc::clone(&self.snapshots);
        let view = detached(async move { snapshots.create(order).await }).await?;
        Ok(Response::new(v1::CreateSnapshotResponse {
            operation: Some(operation::operation(view)),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let request = request.get_ref();
        let mut fields = Fields::of(request);
        let id = fields.parse::<SnapshotId>("snapshot_id", &request.snapshot_id);
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
        let mut fields = Fields::of(&request);
        let vm: Option<Option<VmId>> = if request.vm_id == "-" {
            Some(None)
        } else {
            fields.parse("vm_id", &request.vm_id).map(Some)
        };
        let vm = fields.finish(vm)?;
        let pager = Pager::new(("snapshots", vm), page_size(request.page_size));
        let page = pager.page(&request.page_token)?;
        let mut found = self.store.snapshots(vm, &page).await.map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |snapshot| snapshot.id);
        let snapshots = found.into_iter().map(convert::snapshot).collect();
        Ok(Response::new(v1::ListSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn update_snapshot(
        &self,
        request: Request<v1::UpdateSnapshotRequest>,
    ) -> Result<Response<v1::UpdateSnapshotResponse>, Status> {
        let caller = caller(&request);
        let order = update_order(request.into_inner(), caller)?;
        let snapshots = Arc::clone(&self.snapshots);
        let updated = detached(async move { snapshots.update(order).await }).await?;
        Ok(Response::new(v1::UpdateSnapshotResponse {
            snapshot: Some(convert::snapshot(updated)),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::DeleteSnapshotResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let snapshot = fields.parse("snapshot_id", &request.snapshot_id);
        let revision = revision(&mut fields, &request.etag);
        let (id, snapshot) = fields.finish(id.zip(snapshot))?;
        let options = delete_order::options(request.options);
        let allow_missing = request.allow_missing;
        let payload = [
            &*request.snapshot_id,
            &*request.etag,
            if allow_missing { "allow" } else { "" },
            &delete_order::text(&options),
        ];
        let request = RequestRecord {
            id,
            fingerprint: fingerprint("DeleteSnapshot", &payload),
        };
        let order = DeleteOrder {
            request,
            caller,
            vm: None,
            snapshots: vec![snapshot],
            revision,
            allow_missing,
            options,
        };
        let operation = self.delete(order).await?;
        Ok(Response::new(v1::DeleteSnapshotResponse { operation }))
    }

    async fn batch_delete_snapshots(
        &self,
        request: Request<v1::BatchDeleteSnapshotsRequest>,
    ) -> Result<Response<v1::BatchDeleteSnapshotsResponse>, Status> {
        let caller = caller(&request);
        let order = delete_order::batch(request.into_inner(), caller)?;
        let operation = self.delete(order).await?;
        Ok(Response::new(v1::BatchDeleteSnapshotsResponse {
            operation,
        }))
    }

    async fn plan_delete_snapshot(
        &self,
        request: Request<v1::PlanDeleteSnapshotRequest>,
    ) -> Result<Response<v1::PlanDeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let snapshots = delete_order::snapshots(&mut fields, &request.snapshot_ids);
        let snapshots = fields.finish(snapshots)?;
        let options = delete_order::options(request.options);
        let forecast = self.snapshots.forecast(&snapshots, &options).await?;
        Ok(Response::new(forecast::answer(&forecast)))
    }
}

impl SnapshotApi {
    async fn delete(&self, order: DeleteOrder) -> Result<Option<v1::Operation>, Status> {
        let snapshots = Arc::clone(&self.snapshots);
        let view = detached(async move { snapshots.delete(order).await }).await?;
        Ok(view.map(operation::operation))
    }
}

fn update_order(
    request: v1::UpdateSnapshotRequest,
    caller: String,
) -> Result<UpdateOrder, Problem> {
    let mut fields = Fields::of(&request);
    // A repetition is told by what the snapshot is then, so the id is only checked.
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let snapshot = fields.parse("snapshot_id", &request.snapshot_id);
    let revision = revision(&mut fields, &request.etag);
    let name = request.name.as_ref();
    let name = name.map(|name| fields.parse("name", name));
    let (_, snapshot) = fields.finish(id.zip(snapshot))?;
    Ok(UpdateOrder {
        caller,
        snapshot,
        revision,
        name: name.flatten(),
        description: request.description,
        labels: request
            .labels
            .map(|given| BTreeMap::from_iter(given.labels)),
        deletion_protected: request.deletion_protected,
    })
}

/// The revision that an etag stands for; `None` when there is none.
fn revision(fields: &mut Fields, etag: &str) -> Option<u64> {
    let revision = convert::parse_etag(etag);
    if revision.is_none() && !etag.is_empty() {
        fields.reject("etag", "is not one that a snapshot had");
    }
    revision
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
    Problem::from(error).into()
}
