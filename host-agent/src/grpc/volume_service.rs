//! `livemerge.v1.VolumeService`.

use super::{convert, detached, page::page, removal_order};
use crate::merge::{Fence, Merges, VolumeMark};
use crate::volumes::Volumes;
use livemerge_proto::fields::{Fields, page_size, unsigned};
use livemerge_proto::ids::RequestId;
use livemerge_proto::v1;
use livemerge_proto::v1::volume_service_server::VolumeService;
use livemerge_storage::{StorageId, VolumeName};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Serves the volumes of this host's storage domains.
pub struct VolumeApi {
    /// The domains.
    pub volumes: Arc<Volumes>,
    /// The merges that were promised room.
    pub merges: Arc<Merges>,
    /// Refuses an older server's orders.
    pub fence: Arc<Fence>,
}

#[tonic::async_trait]
impl VolumeService for VolumeApi {
    async fn list_storages(
        &self,
        request: Request<v1::ListStoragesRequest>,
    ) -> Result<Response<v1::ListStoragesResponse>, Status> {
        let request = request.into_inner();
        Fields::of(&request).check()?;
        let size = page_size(request.page_size);
        let ids: Vec<StorageId> = self.volumes.ids().cloned().collect();
        // Before they are looked at: what is on another page is not waited for.
        let (ids, next_page_token) = page(ids, StorageId::clone, size, &request.page_token)?;
        let mut storages = Vec::with_capacity(ids.len());
        for id in ids {
            storages.push(match self.volumes.describe(&id).await {
                Ok(described) => {
                    let promised = self.merges.promised(&id).await;
                    convert::storage(&id, described, promised)
                }
                Err(problem) => v1::Storage {
                    id: id.to_string(),
                    problem: problem.to_string(),
                    ..v1::Storage::default()
                },
            });
        }
        Ok(Response::new(v1::ListStoragesResponse {
            storages,
            next_page_token,
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let storage = fields.parse::<StorageId>("storage", &request.storage);
        let storage = fields.finish(storage)?;
        let size = page_size(request.page_size);
        let volumes = self.volumes.list(&storage).await?;
        let key = |info: &livemerge_storage::VolumeInfo| -> VolumeName { info.volume.name.clone() };
        let (volumes, next_page_token) = page(volumes, key, size, &request.page_token)?;
        let volumes = volumes.into_iter().map(convert::volume).collect();
        Ok(Response::new(v1::ListVolumesResponse {
            volumes,
            next_page_token,
        }))
    }

    async fn remove_volume(
        &self,
        request: Request<v1::RemoveVolumeRequest>,
    ) -> Result<Response<v1::RemoveVolumeResponse>, Status> {
        let request = request.into_inner();
        let generation = unsigned(request.generation);
        let orders = removal_order::parse(request)?;
        let (volumes, fence) = (Arc::clone(&self.volumes), Arc::clone(&self.fence));
        let answer = detached(async move {
            fence.pass(generation).await?;
            removal_order::answer(volumes.remove_all(&orders).await)
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn list_removals(
        &self,
        request: Request<v1::ListRemovalsRequest>,
    ) -> Result<Response<v1::ListRemovalsResponse>, Status> {
        let request = request.get_ref();
        let mut fields = Fields::of(request);
        let storage = fields.parse::<StorageId>("storage", &request.storage);
        let storage = fields.finish(storage)?;
        let removals = self.volumes.removals(&storage).await?;
        let removals = removals.iter().map(convert::removal).collect();
        Ok(Response::new(v1::ListRemovalsResponse { removals }))
    }

    async fn restore_volume(
        &self,
        request: Request<v1::RestoreVolumeRequest>,
    ) -> Result<Response<v1::RestoreVolumeResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let storage = fields.parse::<StorageId>("storage", &request.storage);
        let removal = fields.parse("removal_id", &request.removal_id);
        let (storage, removal) = fields.finish(storage.zip(removal))?;
        let generation = unsigned(request.generation);
        let (volumes, fence) = (Arc::clone(&self.volumes), Arc::clone(&self.fence));
        let restored = detached(async move {
            fence.pass(generation).await?;
            volumes.restore(&storage, removal).await
        })
        .await?;
        Ok(Response::new(v1::RestoreVolumeResponse {
            volume: Some(convert::volume(restored)),
        }))
    }

    async fn grow_volume(
        &self,
        request: Request<v1::GrowVolumeRequest>,
    ) -> Result<Response<v1::GrowVolumeResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        // Growing to a size is the same however often it is done, so the id is only looked at.
        let id = fields.parse::<RequestId>("request_id", &request.request_id);
        let volume = convert::parse_volume(&mut fields, "volume", request.volume);
        let identity = fields.parse("identity", &request.identity);
        let (id, (volume, identity)) = fields.finish(id.zip(volume.zip(identity)))?;
        let generation = unsigned(request.generation);
        let bytes = unsigned(request.virtual_bytes);
        let mark = VolumeMark { volume, identity };
        let (volumes, fence) = (Arc::clone(&self.volumes), Arc::clone(&self.fence));
        let grown = detached(async move {
            fence.pass(generation).await?;
            let grown = volumes.grow(&mark.volume, &mark.identity, bytes).await?;
            tracing::info!(request = %id, volume = %mark.volume, bytes = grown.virtual_bytes, "is as large as asked for");
            Ok(grown)
        })
        .await?;
        Ok(Response::new(v1::GrowVolumeResponse {
            volume: Some(convert::volume(grown)),
        }))
    }
}
