//! What the agent tells of its storage domains, and how it removes and keeps volumes.

use super::{Agent, volume};
use livemerge_proto::failure::Failure;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::volume_service_server::VolumeService;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl VolumeService for Agent {
    async fn list_storages(
        &self,
        request: Request<v1::ListStoragesRequest>,
    ) -> Result<Response<v1::ListStoragesResponse>, Status> {
        let domains = self.answer("storages", "")?.domains.clone();
        let storage = |id: &str| v1::Storage {
            id: id.to_owned(),
            free_bytes: 5,
            total_bytes: 9,
            foreign: vec!["notes.txt".to_owned()],
            ..v1::Storage::default()
        };
        // One a page, however many are asked for.
        let place = request.get_ref().page_token.parse().unwrap_or(0);
        let next = place + 1;
        let next_page_token = if next < domains.len() {
            next.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListStoragesResponse {
            storages: vec![storage(&domains[place])],
            next_page_token,
        }))
    }

    async fn list_volumes(
        &self,
        _: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let stored = self.answer("volumes", "")?.stored.clone();
        let volumes = stored.iter().map(|name| v1::Volume {
            volume: Some(volume(name)),
            identity: format!("of-{name}"),
            ..v1::Volume::default()
        });
        Ok(Response::new(v1::ListVolumesResponse {
            volumes: volumes.collect(),
            ..v1::ListVolumesResponse::default()
        }))
    }

    async fn remove_volume(
        &self,
        request: Request<v1::RemoveVolumeRequest>,
    ) -> Result<Response<v1::RemoveVolumeResponse>, Status> {
        let mut request = request.into_inner();
        if self.script().lacks.contains("also") {
            request.also.clear();
        }
        let first = v1::VolumeRemoval {
            request_id: request.request_id,
            volume: request.volume,
            identity: request.identity,
        };
        let all: Vec<_> = std::iter::once(first).chain(request.also).collect();
        let names = all.iter().flat_map(|it| &it.volume);
        let names: Vec<_> = names.map(|volume| volume.name.clone()).collect();
        self.script().removing = Some(all[0].request_id.clone());
        self.not_held("remove").await;
        let in_use = self.answer("remove", &names.join(" "))?.in_use;
        let refused = || Problem::new(Reason::VolumeInUse, "somebody has it open");
        if let [one] = &all[..] {
            if in_use {
                return Err(refused().into());
            }
            return Ok(Response::new(v1::RemoveVolumeResponse {
                removal: Some(self.removed(one)?),
                outcomes: vec![],
            }));
        }
        let mut outcomes = Vec::new();
        for one in &all {
            let named = one.volume.as_ref().map(|volume| &volume.name);
            let stays = in_use || self.script().stays.as_ref() == named;
            outcomes.push(v1::RemovalOutcome {
                removal: (!stays).then(|| self.removed(one)).transpose()?,
                failure: stays.then(|| Failure::from(refused()).into()),
            });
        }
        Ok(Response::new(v1::RemoveVolumeResponse {
            removal: outcomes[0].removal.clone(),
            outcomes,
        }))
    }

    async fn list_removals(
        &self,
        _: Request<v1::ListRemovalsRequest>,
    ) -> Result<Response<v1::ListRemovalsResponse>, Status> {
        let removals = self.script().kept.clone();
        Ok(Response::new(v1::ListRemovalsResponse { removals }))
    }

    async fn restore_volume(
        &self,
        request: Request<v1::RestoreVolumeRequest>,
    ) -> Result<Response<v1::RestoreVolumeResponse>, Status> {
        let id = &request.get_ref().removal_id;
        let mut script = self.answer("restore", id)?;
        let kept = script.kept.iter().position(|removal| removal.id == *id);
        let Some(kept) = kept.map(|place| script.kept.remove(place)) else {
            return Err(Problem::new(Reason::RemovalNotFound, "it keeps nothing").into());
        };
        let name = kept.volume.iter().map(|volume| volume.name.clone());
        script.stored.extend(name);
        if std::mem::take(&mut script.lost_once) {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(v1::RestoreVolumeResponse {
            volume: Some(v1::Volume {
                volume: kept.volume,
                identity: kept.identity,
                ..v1::Volume::default()
            }),
        }))
    }

    async fn grow_volume(
        &self,
        _: Request<v1::GrowVolumeRequest>,
    ) -> Result<Response<v1::GrowVolumeResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }
}

impl Agent {
    fn removed(&self, one: &v1::VolumeRemoval) -> Result<v1::Removal, Status> {
        let mut script = self.script();
        let name = one.volume.as_ref().map(|volume| &volume.name);
        script.stored.retain(|stored| Some(stored) != name);
        let removal = v1::Removal {
            id: one.request_id.clone(),
            volume: one.volume.clone(),
            ..v1::Removal::default()
        };
        if std::mem::take(&mut script.lost_once) {
            script.kept.push(v1::Removal {
                identity: one.identity.clone(),
                ..removal
            });
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(v1::Removal {
            state: v1::RemovalState::Gone.into(),
            freed_bytes: 1,
            ..removal
        })
    }
}
