//! What stands beside a row's machine, and how it is set up.

use std::time::Duration;

use anyhow::{Context as _, Result};
use livemerge_host_agent::hypervisor::KeptSnapshot;
use livemerge_host_agent::hypervisor::fake::IMAGE_BYTES;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::v1;
use livemerge_storage::Locator;
use uuid::Uuid;

use super::ledger::Ledger;
use super::scenario::{Beside, FROZEN};
use super::stage::Stage;
use super::world::{Pace, World};
use crate::api::Api;
use crate::cluster::{Cluster, Settings};

/// After this time a copy that falls behind is helped.
const STALLED: Duration = Duration::from_millis(300);
/// How long the merge that comes first holds up the other one.
const FIRST: Duration = Duration::from_millis(1500);
/// So long each of two merges waits for the other one to have its share, if a fault keeps it from that.
const SHARED: Duration = Duration::from_secs(30);
/// Time between two looks at the record.
const LOOK: Duration = Duration::from_millis(20);
/// Time between two steps.
const STEP: Duration = Duration::from_millis(2);
/// The time in which layers of others are listed, and the first merge begins.
const LISTED: Duration = Duration::from_secs(120);
/// What all jobs copy together: each of two has half of it.
const TOTAL: u32 = 6_000_000;
/// A volume that is built on the first snapshot's.
pub(super) const CLONE: &str = "clone.qcow2";
/// A volume that nobody names, called as overlays are: what has no such name and is built on nothing may be
/// the disk of a machine that is not defined now.
pub(super) const LEFTOVER: &str = "01a20a41-0000-7000-8000-00000000dead.qcow2";
/// As large a disk is made.
pub(super) const GROWN: u64 = 2 * IMAGE_BYTES;

impl Beside {
    /// Whether two merges share a rate: the case's own one copies nothing until it has been given all of it.
    pub(super) fn shares(self) -> bool {
        self == Self::Rates
    }

    /// What the services are configured with for it.
    pub(super) fn settings(self) -> Settings {
        let heavy = matches!(self, Self::Rush | Self::Flood);
        Settings {
            stalled_after: heavy.then_some(STALLED),
            // It is held back once.
            least_guest_mib: (self == Self::Flood).then_some(32),
            max_per_host: u32::from(self == Self::Queue),
            max_per_storage: u32::from(self == Self::StorageQueue),
            total_bytes_per_second: if self == Self::Rates { TOTAL } else { 0 },
            pivots_running: self == Self::Running,
        }
    }
}

/// The merge that comes first.
pub(super) struct First {
    /// Of its machine.
    world: World,
    api: Api,
    operation: String,
}

/// Sets it up. Gives the merge that comes first, if one does.
pub(super) async fn set(
    beside: Beside,
    cluster: &mut Cluster,
    world: &World,
    ledger: &mut Ledger,
    vm: Uuid,
) -> Result<Option<First>> {
    let disk: DiskTarget = "vda".parse()?;
    match beside {
        Beside::Nothing | Beside::Running => {}
        Beside::Rush => world.writes_at(Pace::Fast),
        Beside::Flood => world.writes_at(Pace::Flood),
        Beside::Grown => {
            let layers = layers(world, &disk)?;
            let images = cluster.hypervisor.images();
            images.make_raw(layers.first().context("it has layers")?);
            images.grow(layers.last().context("it has layers")?, GROWN);
        }
        Beside::Leftover => drop(cluster.volumes.add_base(LEFTOVER)),
        Beside::Clone => {
            let base = layers(world, &disk)?.remove(0);
            cluster.volumes.add_overlay(CLONE, &base);
        }
        Beside::Metadata => {
            let kept = KeptSnapshot {
                name: "of-libvirt".to_owned(),
                disks: None,
            };
            let vm = VmId::from(vm);
            cluster.hypervisor.set_kept_snapshots(vm, vec![kept]);
        }
        Beside::Encrypted => cluster.volumes.encrypt(&name(&layers(world, &disk)?[0])?),
        Beside::Bitmap => {
            let active = layers(world, &disk)?.pop().context("it has layers")?;
            cluster.volumes.add_bitmap(&name(&active)?, "backup");
        }
        Beside::Frozen => freeze(cluster, world, ledger, vm, &disk).await?,
        Beside::Queue | Beside::StorageQueue | Beside::Rates => {
            let first = cluster.add_vm("first", &["vda"]).await?;
            let snapshot = cluster.api.snapshot(first, "a").await?;
            let delete = cluster.api.delete(&snapshot).await?;
            let copies = tokio::time::timeout(LISTED, copies(cluster, &delete.id)).await;
            copies.context("the first merge never begins")??;
            let stage = Stage::new(&[]);
            let hypervisor = cluster.hypervisor.clone();
            return Ok(Some(First {
                world: World::new(hypervisor, VmId::from(first), stage),
                api: cluster.api.clone(),
                operation: delete.id,
            }));
        }
    }
    Ok(None)
}

/// The merge that comes first takes its time, and is no part of the case.
pub(super) async fn turn(beside: Beside, first: Option<First>, own: &World) {
    let Some(mut first) = first else {
        return std::future::pending().await;
    };
    if beside.shares() {
        within(SHARED, share(&first.world, own)).await;
    } else {
        tokio::time::sleep(FIRST).await;
    }
    let world = first.world.clone();
    let goes_on = async {
        loop {
            world.step();
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::pin!(goes_on);
    if beside.shares() {
        let halves = own.speeds();
        let alone = async {
            first.has_ended().await;
            until(|| own.speeds() != halves).await;
        };
        tokio::select! {
            () = &mut goes_on => unreachable!("it goes on until dropped"),
            () = within(SHARED, alone) => own.hold(false),
        }
    }
    goes_on.await;
}

impl First {
    async fn has_ended(&mut self) {
        loop {
            let shown = self.api.operation(&self.operation).await;
            if shown.is_ok_and(|shown| shown.ended_at.is_some()) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Both copy, each with its share.
async fn share(first: &World, own: &World) {
    let all = first.speeds();
    let copies = |world: &World| world.speeds().iter().all(Option::is_some);
    until(|| first.speeds() != all && copies(own)).await;
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(STEP).await;
    }
}

async fn within(most: Duration, it: impl Future<Output = ()>) {
    let _may_never_be = tokio::time::timeout(most, it).await;
}

/// Somebody else freezes a layer, and then another one. The server looks until both are listed.
async fn freeze(
    cluster: &mut Cluster,
    world: &World,
    ledger: &mut Ledger,
    vm: Uuid,
    disk: &DiskTarget,
) -> Result<()> {
    cluster.discover().await?;
    for (layer, listed_as) in ["theirs.qcow2", "theirs-too.qcow2"].into_iter().zip(FROZEN) {
        let below = layers(world, disk)?.pop().context("it has layers")?;
        let then = world.acknowledged();
        let layer = cluster.volumes.add_overlay(layer, &below);
        cluster.hypervisor.freeze(VmId::from(vm), disk, &[layer]);
        world.write_on();
        let id = tokio::time::timeout(LISTED, listed(cluster, vm, listed_as)).await;
        let id = id.context("a frozen layer is never listed")??;
        ledger.taken.insert(id, then);
    }
    cluster.stop_discovering().await
}

async fn listed(cluster: &mut Cluster, vm: Uuid, name: &str) -> Result<String> {
    loop {
        let listed = cluster.api.list(vm).await?;
        if let Some(found) = listed.into_iter().find(|snapshot| snapshot.name == name) {
            return Ok(found.id);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns when an operation's merge copies: what befalls the case's own is not for this one.
async fn copies(cluster: &mut Cluster, operation: &str) -> Result<()> {
    loop {
        let shown = cluster.api.operation(operation).await?;
        let copies = |disk: &v1::DiskProgress| disk.phase() == v1::MergePhase::Copying;
        if shown.disks.iter().any(copies) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A disk's layers, oldest first.
fn layers(world: &World, disk: &DiskTarget) -> Result<Vec<Locator>> {
    let view = world.view().context("the machine is gone")?;
    let disk = view.disk(disk).context("the disk is gone")?;
    let layers = disk.chain.iter().map(|layer| layer.locator.clone());
    Ok(layers.collect())
}

/// The name of the volume that stands there.
pub(super) fn name(layer: &Locator) -> Result<String> {
    let path = layer.to_string();
    let name = path.rsplit('/').next();
    Ok(name.context("a path has a last part")?.to_owned())
}
