//! Storage domains and their removals for the wire.

use super::page::Pager;
use super::{caller, convert, detached};
use crate::domains::{Domains, RestoreOrder};
use crate::hosts::{DomainSeen, RemovalSeen, no_host, volume_ref};
use livemerge_proto::fields::{Fields, page_size};
use livemerge_proto::ids::{HostId, RequestId};
use livemerge_proto::v1;
use livemerge_storage::{RemovalId, StorageId};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) async fn removals(
    domains: &Domains,
    request: v1::InventoryServiceListRemovalsRequest,
) -> Result<Response<v1::InventoryServiceListRemovalsResponse>, Status> {
    let mut fields = Fields::of(&request);
    let storage = fields.parse_optional::<StorageId>("storage", &request.storage);
    let storage = fields.finish(storage)?;
    let size = page_size(request.page_size);
    let pager = Pager::new(("removals", &storage), size);
    let page = pager.page::<String>(&request.page_token)?;
    let listed = domains.removals(storage.as_ref()).await;
    let after = |key: &String| page.after.as_ref().is_none_or(|last| key > last);
    let found = listed.told.into_iter().filter(|(key, _)| after(key));
    let mut found: Vec<_> = found.take(page.limit).collect();
    let next_page_token = pager.cut(&mut found, |(key, _)| key.clone());
    Ok(Response::new(v1::InventoryServiceListRemovalsResponse {
        removals: found.iter().map(|(_, seen)| removal(seen)).collect(),
        next_page_token,
        silent_host_ids: listed.silent.iter().map(ToString::to_string).collect(),
    }))
}

pub(super) async fn storages(
    domains: &Domains,
    request: v1::InventoryServiceListStoragesRequest,
) -> Result<Response<v1::InventoryServiceListStoragesResponse>, Status> {
    let mut fields = Fields::of(&request);
    let host = fields.parse_optional::<HostId>("host_id", &request.host_id);
    let host = fields.finish(host)?;
    let size = page_size(request.page_size);
    let pager = Pager::new(("storages", &host), size);
    let page = pager.page::<String>(&request.page_token)?;
    if let Some(host) = host.as_ref().filter(|host| !domains.knows(host)) {
        return Err(no_host(host).into());
    }
    let shown = domains.shown(host.as_ref()).await;
    let after = |key: &String| page.after.as_ref().is_none_or(|last| key > last);
    let found = shown
        .told
        .into_iter()
        // A comma stands before whatever an id has: so the order of keys is that of hosts and ids.
        .map(|(host, domain)| (format!("{host},{}", domain.id), (host, domain)))
        .filter(|(key, _)| after(key));
    let found: BTreeMap<String, (HostId, DomainSeen)> = found.collect();
    let mut found: Vec<_> = found.into_iter().take(page.limit).collect();
    let next_page_token = pager.cut(&mut found, |(key, _)| key.clone());
    let storage = |(host, domain): (HostId, DomainSeen)| v1::HostStorage {
        host_id: host.to_string(),
        storage: Some(storage(domain)),
    };
    Ok(Response::new(v1::InventoryServiceListStoragesResponse {
        storages: found.into_iter().map(|(_, it)| storage(it)).collect(),
        silent_host_ids: shown.silent.iter().map(ToString::to_string).collect(),
        next_page_token,
    }))
}

pub(super) async fn restore(
    domains: &Arc<Domains>,
    request: Request<v1::InventoryServiceRestoreVolumeRequest>,
) -> Result<Response<v1::InventoryServiceRestoreVolumeResponse>, Status> {
    let caller = caller(&request);
    let request = request.into_inner();
    let mut fields = Fields::of(&request);
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let storage = fields.parse::<StorageId>("storage", &request.storage);
    let removal = fields.parse::<RemovalId>("removal_id", &request.removal_id);
    let (request, (storage, removal)) = fields.finish(id.zip(storage.zip(removal)))?;
    let order = RestoreOrder {
        request,
        caller,
        storage,
        removal,
    };
    let domains = Arc::clone(domains);
    let volume = detached(async move { domains.restore(&order).await }).await?;
    Ok(Response::new(v1::InventoryServiceRestoreVolumeResponse {
        volume: Some(volume_ref(&volume)),
    }))
}

fn storage(seen: DomainSeen) -> v1::Storage {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    v1::Storage {
        id: seen.id.to_string(),
        free_bytes: bytes(seen.free_bytes),
        total_bytes: bytes(seen.total_bytes),
        promised_bytes: bytes(seen.promised_bytes),
        thin: seen.thin,
        provided: seen.provided,
        keep_for: seen
            .keep_for
            .and_then(|time| prost_types::Duration::try_from(time).ok()),
        wipe: seen.wipe,
        discard: seen.discard,
        foreign: seen.foreign,
        problem: seen.problem,
    }
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
