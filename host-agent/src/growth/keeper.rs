//! Keeps the layers of all running machines of this host in room.

use super::Room;
use super::decide::{Layer, Next, decide};
use crate::hypervisor::{Fill, Hypervisor, HypervisorError, HypervisorEvent, LayerFill, VmState};
use livemerge_proto::ids::VmId;
use livemerge_runtime::Shutdown;
use livemerge_storage::VolumeRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// The longest time between two looks at all machines: events may be missed.
const ROUND: Duration = Duration::from_secs(5);
/// A look that has given room looks again, but not for ever.
const MOST_GIFTS: u32 = 16;

/// Keeps at it until the agent stops. Without a domain that gives volumes their room there is
/// nothing to do.
pub async fn keep(
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<dyn Room>,
    margin: u64,
    shutdown: Shutdown,
) {
    if volumes.gives() {
        keep_every(ROUND, hypervisor, volumes, margin, shutdown).await;
    }
}

/// `every`: the longest time between two looks at all machines.
pub(super) async fn keep_every(
    every: Duration,
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<dyn Room>,
    margin: u64,
    shutdown: Shutdown,
) {
    let mut events = hypervisor.events();
    let keeper = Keeper {
        hypervisor,
        volumes,
        margin,
    };
    let mut round = tokio::time::interval(every);
    loop {
        let heard = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = round.tick() => None,
            heard = events.recv() => Some(heard),
        };
        match heard {
            Some(Ok(HypervisorEvent::Filling { vm })) => {
                tracing::debug!(%vm, "a layer is written beyond its threshold");
                keeper.look_at(vm).await;
            }
            Some(Ok(HypervisorEvent::Lifecycle { vm } | HypervisorEvent::BlockJob { vm, .. })) => {
                keeper.look_at(vm).await;
            }
            Some(Ok(HypervisorEvent::Disconnected)) => {}
            Some(Err(RecvError::Closed)) => return,
            None | Some(Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_))) => {
                keeper.look_at_all().await;
            }
        }
    }
}

struct Keeper {
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<dyn Room>,
    margin: u64,
}

impl Keeper {
    async fn look_at_all(&self) {
        // One that does not answer now does so in the next round.
        let Ok(vms) = self.hypervisor.vms().await else {
            return;
        };
        let running = vms.iter().filter(|vm| vm.state != VmState::ShutOff);
        for vm in running {
            self.look_at(vm.id).await;
        }
    }

    async fn look_at(&self, vm: VmId) {
        match self.provide(vm).await {
            Ok(()) | Err(HypervisorError::NotFound(_) | HypervisorError::Refused(_)) => {}
            Err(error) => tracing::warn!(%vm, %error, "whether its disks have room cannot be told"),
        }
    }

    async fn provide(&self, vm: VmId) -> Result<(), HypervisorError> {
        let fill = self.hypervisor.fill(vm).await?;
        let mut all_have = true;
        for layer in &fill.layers {
            if let Some(volume) = self.volumes.provided(&layer.locator) {
                all_have &= self.provide_layer(vm, layer, &volume).await?;
            }
        }
        self.resume(vm, &fill, all_have).await
    }

    /// Tells whether the layer has room now.
    async fn provide_layer(
        &self,
        vm: VmId,
        layer: &LayerFill,
        volume: &VolumeRef,
    ) -> Result<bool, HypervisorError> {
        if layer.written_to == 0 && layer.watched_at > 0 {
            return Ok(true);
        }
        let mut room = match self.volumes.room(volume).await {
            Ok(room) => room,
            Err(problem) => {
                tracing::warn!(%vm, %volume, %problem, "its room cannot be told");
                return Ok(false);
            }
        };
        for _gift in 0..MOST_GIFTS {
            let now = Layer {
                written_to: layer.written_to,
                watched_at: layer.watched_at,
                room,
            };
            match decide(now, self.margin) {
                Next::Enough => return Ok(true),
                Next::Watch(at) => {
                    self.hypervisor
                        .watch_fill(vm, &layer.disk, &layer.locator, at)
                        .await?;
                    return Ok(true);
                }
                Next::Give(bytes) => match self.volumes.provide(volume, bytes).await {
                    Ok(given) if given > room => {
                        tracing::info!(%vm, %volume, room = given, "given room");
                        room = given;
                    }
                    // It has all that a full volume needs.
                    Ok(_) => return Ok(true),
                    Err(problem) => {
                        tracing::error!(%vm, %volume, %problem, "no room can be given");
                        return Ok(false);
                    }
                },
            }
        }
        Ok(false)
    }

    async fn resume(&self, vm: VmId, fill: &Fill, all_have: bool) -> Result<(), HypervisorError> {
        if !fill.lacks_room || !all_have {
            return Ok(());
        }
        tracing::warn!(%vm, "it stood still for want of room, and has it now");
        self.hypervisor.resume(vm).await
    }
}
