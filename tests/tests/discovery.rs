//! Layers that others have frozen, with both services on a scripted hypervisor.

use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_storage::Locator;
use livemerge_tests::cluster::Cluster;
use uuid::Uuid;

const QUICK: Pace = Pace::Every(Duration::from_millis(2));
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until so many snapshots are listed.
async fn until_listed(cluster: &mut Cluster, vm: Uuid, count: usize) -> Result<Vec<v1::Snapshot>> {
    let look = async {
        loop {
            let listed = cluster.api.list(vm).await?;
            if listed.len() == count {
                return Ok(listed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let listed = tokio::time::timeout(LIMIT, look).await;
    listed.with_context(|| format!("not {count} snapshots are listed"))?
}

/// Somebody else puts a layer on the disk.
fn freeze(cluster: &Cluster, vm: Uuid, name: &str, below: &Locator) -> Locator {
    let layer = cluster.volumes.add_overlay(name, below);
    let disk = "vda".parse().expect("a target");
    let layers = std::slice::from_ref(&layer);
    cluster.hypervisor.freeze(VmId::from(vm), &disk, layers);
    layer
}

fn active(cluster: &Cluster, vm: Uuid) -> Locator {
    let vm = cluster.hypervisor.peek(VmId::from(vm)).expect("a machine");
    let active = vm.disks[0].active().expect("a layer");
    active.locator.clone()
}

#[tokio::test]
async fn a_layer_that_somebody_froze_is_listed_and_deleted_beside_our_own() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    cluster.discover().await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let ours = cluster.api.snapshot(vm, "ours").await?;
    let own = active(&cluster, vm);
    freeze(&cluster, vm, "theirs.qcow2", &own);
    let listed = until_listed(&mut cluster, vm, 2).await?;
    assert_eq!(listed[0].id, ours);
    assert_eq!(listed[0].origin(), v1::SnapshotOrigin::Requested);
    assert_eq!(listed[1].origin(), v1::SnapshotOrigin::Discovered);
    let log = cluster.api.log(vm).await?;
    let discovered = log
        .iter()
        .filter(|event| event.r#type() == v1::EventType::SnapshotDiscovered);
    assert_eq!(discovered.count(), 1, "our own snapshot is not found again");

    // In the middle of it the agent is gone for a moment.
    let deletion = cluster.api.delete(&listed[1].id).await?;
    cluster.crash_agent();
    cluster.start_agent().await?;
    cluster.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(active(&cluster, vm), own);
    assert_eq!(cluster.api.list(vm).await?.len(), 1);
    let deletion = cluster.api.delete(&ours).await?;
    cluster.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    Ok(())
}

#[tokio::test]
async fn a_layer_that_somebody_took_away_again_is_listed_no_longer() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    cluster.discover().await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let base = active(&cluster, vm);
    freeze(&cluster, vm, "theirs.qcow2", &base);
    until_listed(&mut cluster, vm, 1).await?;
    let disk = "vda".parse().expect("a target");
    cluster.hypervisor.thaw(VmId::from(vm), &disk);
    until_listed(&mut cluster, vm, 0).await?;
    let log = cluster.api.log(vm).await?;
    assert!(
        log.iter()
            .any(|event| event.r#type() == v1::EventType::SnapshotVanished)
    );
    Ok(())
}
