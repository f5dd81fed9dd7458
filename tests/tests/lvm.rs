//! Snapshots on logical volumes, in a virtual host: both services, a guest that fills its volumes as
//! long as the test takes, and every acknowledged record at the end.
//!
//! ```text
//!   base ◀─ first ◀─ second      each begins with one chunk of room, and is written all the time
//!   base ◀───────── second       the snapshot `first` is deleted: a layer that nobody writes
//!   base                         the snapshot `second` is: the one that the guest writes
//! ```

#![allow(
    clippy::print_stdout,
    reason = "a virtual host's test shows how far it came"
)]

use anyhow::{Context as _, Result, ensure};
use livemerge_tests::api::Api;
use livemerge_tests::groups::Group;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::image::GuestImage;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};
use livemerge_vhost::VirtualHost;
use rustix::process::{Pid, setpriority_process};
use std::path::Path;
use std::time::{Duration, Instant};

const TEST: &str =
    "lvm::a_guest_that_fills_its_logical_volumes_never_stops_while_snapshots_are_deleted";
const DISK: &str = "vda";
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 32 * MIB;
/// What the guest writes in a second, beside the records. It fills the half of a chunk that is left
/// when the agent is told in a time within which LVM does its work on a busy machine, too.
const BACKGROUND_KIB: u64 = 384;
/// How long the guest may take to start, and for whatever it does.
const SLOW: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[test]
fn a_guest_that_fills_its_logical_volumes_never_stops_while_snapshots_are_deleted() -> Result<()> {
    // Built out here, where it stays.
    GuestImage::build()?;
    let host = VirtualHost {
        memory_mib: 2048,
        processors: 2,
        limit: Duration::from_secs(1100),
        ..VirtualHost::default()
    };
    if !host.run_this_test(TEST)? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(snapshots_come_and_go())
}

async fn snapshots_come_and_go() -> Result<()> {
    let begun = Instant::now();
    let (mut scene, group) = begin().await?;
    let mark = scene.guest.acks.mark();
    let tell = |what: &str| println!("{:6.1?} {what}", begun.elapsed());
    tell("the guest writes");

    let mut snapshots = Vec::new();
    for name in ["first", "second"] {
        let snapshot = scene.snapshot(name).await.context(name)?;
        snapshots.push(snapshot);
        tell("a snapshot");
        grown(&mut scene).await?;
        tell("its layer has grown");
    }
    assert_eq!(group.sizes()?.len(), 3, "{:?}", group.sizes()?);
    let volumes = scene.images_of(DISK).await.context("the chain")?;

    for (left, snapshot) in [(2, &snapshots[0]), (1, &snapshots[1])] {
        let deletion = scene.api.delete(snapshot).await.context("a delete")?;
        scene.api.succeeded(&deletion, SLOW).await?;
        tell("a snapshot is deleted");
        assert_eq!(group.sizes()?.len(), left, "{:?}", group.sizes()?);
        scene.write_more(20).await?;
    }
    assert_eq!(scene.images_of(DISK).await?, volumes[..1]);
    let vm = scene.vm();
    assert_eq!(scene.api.list(vm).await?, []);
    let left = group.sizes()?;
    assert!(left.keys().eq(["base"]) && left["base"] > CHUNK, "{left:?}");
    let gap = scene.guest.acks.longest_gap_since(DISK, mark);
    tell(&format!("the longest wait of the guest was {gap:.1?}"));
    room_was_given_in_time(&scene)?;
    scene.agrees().await?;
    for verdict in scene.verdicts().await? {
        println!("{verdict:?}");
        assert_eq!(verdict.lost, [0; 0]);
        assert_eq!(verdict.found, verdict.acknowledged);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    tell("all is there");
    Ok(())
}

/// Waits until the layer that the guest writes has more room than it began with. The device is asked,
/// and not the services, which have other things to do.
async fn grown(scene: &mut Scene) -> Result<()> {
    let begun = Instant::now();
    let images = scene.images_of(DISK).await?;
    let device = images.last().context("no image")?.canonicalize()?;
    let device = device.file_name().context("no device")?;
    let size = Path::new("/sys/class/block").join(device).join("size");
    let sectors = || -> Result<u64> { Ok(std::fs::read_to_string(&size)?.trim().parse()?) };
    ensure!(sectors()? * 512 == CHUNK, "it did not begin with a chunk");
    while sectors()? * 512 == CHUNK {
        ensure!(begun.elapsed() < SLOW, "it does not grow");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// By QEMU's events, and before the guest stood still for want of it.
fn room_was_given_in_time(scene: &Scene) -> Result<()> {
    let log = scene.services.agent.log_text();
    let said = |what: &str| log.matches(what).count();
    ensure!(said("for want of room") == 0, "it has stood still:\n{log}");
    let (told, given) = (said("beyond its threshold"), said("given room"));
    println!("told {told} times, room given {given} times");
    // Each of the two layers, at least.
    ensure!(told >= 2 && given >= 2, "{log}");
    Ok(())
}

/// One processor for all of it: the guest has what the services and LVM leave of it.
fn give_way(guest: Pid) -> Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{}/task", guest.as_raw_nonzero()))? {
        let thread: i32 = thread?.file_name().to_string_lossy().parse()?;
        // One that has ended meanwhile is in nobody's way.
        let _ended = setpriority_process(Pid::from_raw(thread), 10);
    }
    Ok(())
}

/// A guest on one logical volume of the least size, and the services, before it has filled that.
async fn begin() -> Result<(Scene, Group)> {
    let group = Group::make(CHUNK).await?;
    let disk = group.create_disk("base", DISK, 512 * MIB).await?;
    let rig = Rig::new()?;
    let workload = Workload {
        slots: 256,
        fill_mib: 4,
        background_kib: BACKGROUND_KIB,
        rate: 20,
    };
    let guest = rig.start(rig.describe_with("vm", vec![disk], workload)?);
    let guest = guest.context("starting the guest")?;
    let mut services = Services::on(&rig, Reach::Unix, &group.config())?;
    services.api.set("heartbeat.silence_ms=30000");
    services.api.set("heartbeat.answer_seconds=60");
    services.agent.set("hypervisor.call_seconds=60");
    services.agent.set("server.unary_deadline_seconds=300");
    services
        .agent
        .set("log.filter=info,livemerge_host_agent=debug");
    services.start()?;
    let mut api = Api::at(&services.api.endpoint())?;
    api.wait_for_vm(guest.spec.uuid, LIMIT).await?;
    let booted = guest.acks.wait_for(DISK, 20, SLOW).await;
    booted.with_context(|| services.agent.log_text())?;
    give_way(rig.virsh().qemu_pid(&guest.spec.name)?)?;
    let scene = Scene {
        api,
        services,
        guest,
        rig,
    };
    Ok((scene, group))
}
