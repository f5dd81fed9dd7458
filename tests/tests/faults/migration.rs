//! A migration and a merge of one machine, between two libvirt daemons that have the same images:
//! whichever was there first refuses the other, and goes on.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Service, Services};
use livemerge_tests::virsh::Virsh;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{PATIENT, POLL, WORKLOAD, assert_nothing_lost, slow};

const DISK: &str = "vda";
const HERE: &str = "host-1";
const THERE: &str = "host-2";
/// A merge of so much takes longer than a migration is refused in.
const WEIGHT_BYTES: i64 = 48 << 20;
/// The guest dirties no more memory than is carried over.
const CALM: Workload = Workload {
    background_kib: 16 << 10,
    ..WORKLOAD
};
/// What a migration carries in a second, in MiB, when it shall not end: the guest has more.
const CRAWL: &str = "1";
const RUN: &str = "4096";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_does_not_move_while_it_is_merged_and_is_not_merged_while_it_moves() -> Result<()>
{
    let mut rig = Rig::with_daemon()?;
    rig.start_neighbour()?;
    // One that begins in saved memory expects it there, too, and not what a migration brings.
    let guest = rig.boot(rig.describe("vm", &[DISK], 2 << 30, CALM)?)?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    services.agent.set(PATIENT);
    let mut scene = Scene::with(rig, guest, services).await?;
    let mut there = scene.services.neighbour_s_agent(&scene.rig, THERE)?;
    there.start()?;

    the_merge_was_first(&mut scene).await?;
    the_migration_was_first(&mut scene).await?;
    it_is_merged_where_it_has_moved(&mut scene).await?;
    scene.agrees().await?;
    ends_with_all_that_was_acknowledged(scene, there).await
}

async fn the_merge_was_first(scene: &mut Scene) -> Result<()> {
    let (snapshot, images) = heavy_snapshot(scene).await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;

    let refused = migration(scene)?.await?;
    let refused = refused.err().context("it has moved")?;
    eprintln!("refused: {refused:#}");
    assert!(format!("{refused:#}").contains("block job"), "{refused:#}");
    assert_eq!(scene.rig.virsh().state("vm")?, "running");
    assert!(scene.rig.neighbour()?.state("vm").is_err());
    let open = scene.api.operation(&deletion.id).await?;
    assert_eq!(open.state(), v1::OperationState::Running, "{open:?}");
    assert_eq!(scene.images_of(DISK).await?, images);
    scene.write_more(20).await?;
    scene.api.limit(&deletion, 0).await?;
    is_merged(scene, &deletion, &images, HERE).await
}

/// Nothing is begun, and nothing is left of what was asked for. The migration is called off.
async fn the_migration_was_first(scene: &mut Scene) -> Result<()> {
    let (snapshot, images) = heavy_snapshot(scene).await?;
    let moving = begin_to_move(scene).await?;
    are_refused(scene, &snapshot).await?;
    assert!(!moving.is_finished(), "it was too fast to be met");
    scene.rig.virsh().call(&["domjobabort", "vm"])?;
    let ended = moving.await?;
    assert!(ended.is_err(), "it has moved");
    assert_eq!(scene.images_of(DISK).await?, images);

    let deletion = scene.api.delete(&snapshot).await?;
    is_merged(scene, &deletion, &images, HERE).await
}

async fn it_is_merged_where_it_has_moved(scene: &mut Scene) -> Result<()> {
    let (snapshot, images) = heavy_snapshot(scene).await?;
    let moving = begin_to_move(scene).await?;
    are_refused(scene, &snapshot).await?;
    scene.rig.virsh().call(&["migrate-setspeed", "vm", RUN])?;
    moving.await??;
    assert_eq!(scene.rig.neighbour()?.state("vm")?, "running");
    is_seen_there(scene).await?;
    assert_eq!(scene.images_of(DISK).await?, images);

    let deletion = scene.api.delete(&snapshot).await?;
    is_merged(scene, &deletion, &images, THERE).await
}

async fn is_seen_there(scene: &mut Scene) -> Result<()> {
    let vm = scene.vm();
    let begun = Instant::now();
    loop {
        // It may be nowhere for a moment.
        let seen = scene.api.vm(vm).await;
        let there = |seen: &v1::Vm| seen.host_id == THERE && seen.state() == v1::VmState::Running;
        if seen.as_ref().is_ok_and(there) {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "it is seen as {seen:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// A snapshot, with something to copy above it. Gives its id, and the images.
async fn heavy_snapshot(scene: &mut Scene) -> Result<(String, Vec<PathBuf>)> {
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer(DISK, WEIGHT_BYTES).await?;
    Ok((snapshot, scene.images_of(DISK).await?))
}

/// A migration to the neighbour, as `virsh migrate` does it, until it ends.
fn migration(scene: &Scene) -> Result<JoinHandle<Result<()>>> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (here, there) = (scene.rig.virsh().clone(), scene.rig.neighbour()?.uri());
    let carried = format!("tcp://127.0.0.1:{port}");
    Ok(spawn_blocking(move || {
        // libvirt does not know that both have the images.
        let manner = ["--live", "--persistent", "--undefinesource", "--unsafe"];
        let call = [
            &["migrate", "vm", &there, "--migrateuri", &carried],
            &manner[..],
        ];
        here.call(&call.concat()).map(drop)
    }))
}

/// Begins one that does not end by itself, and waits until it is under way.
async fn begin_to_move(scene: &Scene) -> Result<JoinHandle<Result<()>>> {
    scene.rig.virsh().call(&["migrate-setspeed", "vm", CRAWL])?;
    let moving = migration(scene)?;
    let begun = Instant::now();
    while !is_moving(scene.rig.virsh()) {
        ensure!(!moving.is_finished(), "{:?}", moving.await);
        ensure!(begun.elapsed() < LIMIT, "no migration begins");
        tokio::time::sleep(POLL).await;
    }
    // It has carried something, and is not about to begin.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(moving)
}

fn is_moving(virsh: &Virsh) -> bool {
    let job = virsh.call(&["domjobinfo", "vm"]);
    job.is_ok_and(|job| job.contains("Outgoing migration"))
}

/// A delete and a snapshot of a machine on its way: both are refused, and leave no trace.
async fn are_refused(scene: &mut Scene, snapshot: &str) -> Result<()> {
    let (vm, merges) = (scene.vm(), scene.merges().await?.len());
    let listed = scene.api.list(vm).await?;
    let deletion = scene.api.delete(snapshot).await;
    let creation = scene.api.create(vm, "another").await;
    for asked in [deletion, creation] {
        let ended = scene.api.ended(&asked?, LIMIT).await?;
        let failure = ended.failure.unwrap_or_default();
        assert_eq!(failure.reason, "VM_MIGRATING", "{failure:?}");
    }
    assert_eq!(scene.merges().await?.len(), merges);
    let left = scene.api.list(vm).await?;
    let states = |listed: &[v1::Snapshot]| -> Vec<_> {
        let one = |listed: &v1::Snapshot| (listed.id.clone(), listed.state());
        listed.iter().map(one).collect()
    };
    assert_eq!(states(&left), states(&listed));
    assert_eq!(
        states(&left),
        [(snapshot.to_owned(), v1::SnapshotState::Ready)]
    );
    Ok(())
}

async fn is_merged(
    scene: &mut Scene,
    deletion: &v1::Operation,
    images: &[PathBuf],
    host: &str,
) -> Result<()> {
    let vm = scene.vm();
    scene.api.succeeded(deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    assert_eq!(scene.api.vm(vm).await?.host_id, host);
    scene.write_more(20).await
}

/// Looks for every record where the machine is by now.
async fn ends_with_all_that_was_acknowledged(mut scene: Scene, mut there: Service) -> Result<()> {
    let images = scene.images_of(DISK).await?;
    there.stop()?;
    scene.services.agent.stop()?;
    scene.services.api.stop()?;
    scene.rig.neighbour()?.power_off("vm")?;
    scene.guest.acks.catch_up().await?;
    assert_eq!(scene.guest.acks.errors(DISK), 0);
    assert_nothing_lost(&[scene.look(DISK, &images[0])?]);
    Ok(())
}
