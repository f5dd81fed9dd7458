//! Keeps the layers of all running machines of this host in room.

use super::Room;
use super::decide::{Layer, Next, decide};
use super::looks::Looks;
use crate::hypervisor::{Fill, Hypervisor, HypervisorError, HypervisorEvent, LayerFill, VmState};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_runtime::Shutdown;
use livemerge_storage::VolumeRef;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

/// The longest time between two looks at all machines: events may be missed.
const ROUND: Duration = Duration::from_secs(5);
/// Looks at once: they leave libvirt some of its calls when many machines do not answer.
const MOST_LOOKS: usize = 16;
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

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Which machines run.
    Host,
    Vm(VmId),
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
    let keeper = Arc::new(Keeper {
        hypervisor,
        volumes,
        margin,
        resumed: Mutex::default(),
        looks: Semaphore::new(MOST_LOOKS),
    });
    let mut round = tokio::time::interval(every);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = round.tick() => {
                keeper.resumed().clear();
                looks.begin(At::Host, Arc::clone(&keeper).look(At::Host));
            }
            (at, running, again) = looks.ended() => {
                for vm in running.into_iter().flatten() {
                    looks.begin(At::Vm(vm), Arc::clone(&keeper).look(At::Vm(vm)));
                }
                if again {
                    looks.begin(at, Arc::clone(&keeper).look(at));
                }
            }
            heard = events.recv() => {
                let at = match heard {
                    Ok(HypervisorEvent::Filling { vm }) => {
                        tracing::debug!(%vm, "a layer is written beyond its threshold");
                        At::Vm(vm)
                    }
                    Ok(HypervisorEvent::Lifecycle { vm } | HypervisorEvent::BlockJob { vm, .. }) => {
                        At::Vm(vm)
                    }
                    Ok(HypervisorEvent::Disconnected) => continue,
                    Err(RecvError::Closed) => return,
                    Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_)) => At::Host,
                };
                looks.begin(at, Arc::clone(&keeper).look(at));
            }
        }
    }
}

struct Keeper {
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<dyn Room>,
    margin: u64,
    /// The machines that were resumed since the last round began.
    resumed: Mutex<HashSet<VmId>>,
    looks: Semaphore,
}

/// What a look has found of a layer's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It has more than is written, or was given some.
    Some,
    /// It has none left, and there is none to be had.
    None,
}

impl Keeper {
    fn resumed(&self) -> std::sync::MutexGuard<'_, HashSet<VmId>> {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the machines that are to be looked at next.
    async fn look(self: Arc<Self>, at: At) -> Vec<VmId> {
        match at {
            At::Host => self.running().await,
            At::Vm(vm) => {
                self.look_at(vm).await;
                Vec::new()
            }
        }
    }

    async fn running(&self) -> Vec<VmId> {
        // One that does not answer now does so in the next round.
        let vms = self.hypervisor.vms().await.unwrap_or_default();
        let running = vms.iter().filter(|vm| vm.state != VmState::ShutOff);
        running.map(|vm| vm.id).collect()
    }

    async fn look_at(&self, vm: VmId) {
        let _one_of_many = self.looks.acquire().await;
        match self.provide(vm).await {
            Ok(())
            | Err(
                HypervisorError::NotFound(_)
                | HypervisorError::Refused(_)
                | HypervisorError::Storage(_)
                | HypervisorError::Migrating(_),
            ) => {}
            Err(error) => tracing::warn!(%vm, %error, "whether its disks have room cannot be told"),
        }
    }

    async fn provide(&self, vm: VmId) -> Result<(), HypervisorError> {
        let fill = self.hypervisor.fill(vm).await?;
        let mut found: BTreeMap<&DiskTarget, Found> = BTreeMap::new();
        for layer in &fill.layers {
            let Some(volume) = self.volumes.provided(&layer.locator).await else {
                continue;
            };
            let room = self.provide_layer(vm, layer, &volume).await;
            let of_disk = found.entry(&layer.disk).or_insert(Found::Some);
            if room == Found::None {
                *of_disk = Found::None;
            }
        }
        self.resume(vm, &fill, &found).await
    }

    async fn provide_layer(&self, vm: VmId, layer: &LayerFill, volume: &VolumeRef) -> Found {
        if layer.written_to == 0 && layer.watched_at > 0 {
            return Found::Some;
        }
        let mut room = match self.volumes.room(volume).await {
            Ok(room) => room,
            Err(problem) => {
                tracing::warn!(%vm, %volume, %problem, "its room cannot be told");
                return Found::None;
            }
        };
        let mut given = false;
        let found = |given, room| match given || room > layer.written_to {
            true => Found::Some,
            false => Found::None,
        };
        for _gift in 0..MOST_GIFTS {
            let now = Layer {
                written_to: layer.written_to,
                watched_at: layer.watched_at,
                room,
            };
            match decide(now, self.margin) {
                Next::Enough => break,
                Next::Watch(at) => {
                    self.watch(vm, layer, at).await;
                    break;
                }
                Next::Give(bytes) => match self.volumes.provide(volume, bytes).await {
                    Ok(now) if now > room => {
                        tracing::info!(%vm, %volume, room = now, "given room");
                        (given, room) = (true, now);
                    }
                    // It has all that a full volume needs.
                    Ok(_) => break,
                    Err(problem) => {
                        tracing::error!(%vm, %volume, %problem, "no room can be given");
                        break;
                    }
                },
            }
        }
        found(given, room)
    }

    /// A layer that is gone from the chain by now is watched no more; whatever else is in the way, the
    /// next round tries again.
    async fn watch(&self, vm: VmId, layer: &LayerFill, at: u64) {
        let (disk, locator) = (&layer.disk, &layer.locator);
        if let Err(error) = self.hypervisor.watch_fill(vm, disk, locator, at).await {
            tracing::warn!(%vm, %disk, %locator, %error, "it cannot be watched");
        }
    }

    /// Only when each disk that had no room has some by now, as far as room is given here; and not as
    /// often as it stops again.
    async fn resume(
        &self,
        vm: VmId,
        fill: &Fill,
        found: &BTreeMap<&DiskTarget, Found>,
    ) -> Result<(), HypervisorError> {
        let has_room = |disk: &DiskTarget| found.get(disk) == Some(&Found::Some);
        if fill.lacks_room.is_empty() || !fill.lacks_room.iter().all(has_room) {
            return Ok(());
        }
        if !self.resumed().insert(vm) {
            return Ok(());
        }
        tracing::warn!(%vm, "it stood still for want of room, and has it now");
        // Giving room takes its time: somebody may have let it run and stopped it again meanwhile.
        self.hypervisor.resume_if_lacks_room(vm).await
    }
}
