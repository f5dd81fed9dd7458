//! Removals for the wire.

use super::page::Pager;
use super::{caller, convert, detached};
use crate::hosts::{RemovalSeen, volume_ref};
use crate::removals::Removals;
use livemerge_proto::fields::Fields;
use livemerge_proto::ids::RequestId;
use livemerge_proto::v1;
use livemerge_storage::{RemovalId, StorageId};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) async fn list(
    removals: &Removals,
    request: v1::InventoryServiceListRemovalsRequest,
) -> Result<Response<v1::InventoryServiceListRemovalsResponse>, Status> {
    let mut fields = Fields::new();
    let storage = fields.parse_optional::<StorageId>("storage", &request.storage);
    let size = fields.page_size("page_size", request.page_size);
    let (storage, size) = fields.finish(storage.zip(size))?;
    let pager = Pager::new(("removals", &storage), size);
    let page = pager.page::<String>(&request.page_token)?;
    let told = removals.list(storage.as_ref()).await;
    let after = |key: &String| page.after.as_ref().is_none_or(|last| key > last);
    let found = told.removals.into_iter().filter(|(key, _)| after(key));
    let mut found: Vec<_> = found.take(page.limit).collect();
    let next_page_token = pager.cut(&mut found, |(key, _)| key.clone());
    Ok(Response::new(v1::InventoryServiceListRemovalsResponse {
        removals: found.iter().map(|(_, seen)| removal(seen)).collect(),
        next_page_token,
        silent_host_ids: told.silent.iter().map(ToString::to_string).collect(),
    }))
}

pub(super) async fn restore(
    removals: &Arc<Removals>,
    request: Request<v1::InventoryServiceRestoreVolumeRequest>,
) -> Result<Response<v1::InventoryServiceRestoreVolumeResponse>, Status> {
    let caller = caller(&request);
    let request = request.into_inner();
    let mut fields = Fields::new();
    // A repeated restore finds the removal ended, so the id is only looked at.
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let storage = fields.parse::<StorageId>("storage", &request.storage);
    let removal = fields.parse::<RemovalId>("removal_id", &request.removal_id);
    let (_, (storage, removal)) = fields.finish(id.zip(storage.zip(removal)))?;
    let removals = Arc::clone(removals);
    let volume = detached(async move { removals.restore(&storage, removal, caller).await }).await?;
    Ok(Response::new(v1::InventoryServiceRestoreVolumeResponse {
        volume: Some(volume_ref(&volume)),
    }))
}

fn removal(seen: &RemovalSeen) -> v1::Removal {
    v1::Removal {
        id: seen.id.to_string(),
        volume: Some(volume_ref(&seen.mark.volume)),
        state: v1::RemovalState::Condemned.into(),
        freed_bytes: 0,
        condemned_at: seen.condemned_at.map(convert::time),
        keep_until: seen.keep_until.map(convert::time),
        identity: seen.mark.identity.to_string(),
    }
}
