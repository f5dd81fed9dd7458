//! The exporter dies, through which a guest uses images that are objects: another one takes its place, and
//! the merge, whose job has failed, is won nevertheless, or has failed before anything was copied and can
//! be had again.
//!
//! QEMU (7.2) now and then ends itself when the images of a job that has caught up do not answer: "Permission
//! conflict on node". Then it is a machine that has died: what holds after that is looked at, and the kill is
//! told apart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::{Kill, LIMIT, Place, Scene, WORKLOAD, shut_off, with_libvirt};
use crate::guest::domain::Workload;
use crate::objects::Objects;
use crate::rig::Rig;
use crate::services::{Reach, Services};

const DISK: &str = "vda";
const DISK_BYTES: u64 = 1 << 30;
/// So that the copy lasts for as long as the kills' moments are drawn from.
const HEAVY_BYTES: i64 = 48 << 20;
/// A job is started again up to 12 times, up to 20 s apart.
const TRIES: Duration = Duration::from_secs(300);
/// What QEMU says when it ends itself.
const FALLS: &str = "Permission conflict on node";
const POLL: Duration = Duration::from_millis(100);

/// A guest on one volume, on an S3 server of its own.
pub(super) async fn begin() -> Result<Place> {
    let objects = Objects::start().await?;
    let rig = Rig::new()?;
    let disk = objects.create_disk("vm", DISK, DISK_BYTES).await?;
    let workload = Workload {
        background_kib: 16 << 10,
        ..WORKLOAD
    };
    let guest = rig.start(rig.describe_with("vm", vec![disk], workload)?)?;
    let services = Services::on_objects(&rig, Reach::Unix, &objects)?;
    let scene = Scene::with(rig, guest, services).await?;
    Ok(Place {
        scene,
        objects: Some(objects),
    })
}

pub(super) async fn kill(
    place: &mut Place,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let scene = &mut place.scene;
    let objects = place.objects.as_mut().context("no objects")?;
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    scene.grow_active_layer(DISK, HEAVY_BYTES).await?;
    let images = scene.images_of(DISK).await?;
    let (top, kept) = images.split_last().context("no image")?;
    let uuid = objects.uuid_of(top).await?;
    let (before, known) = (objects.exporter()?, scene.merges().await?.len());
    let deletion = scene.api.delete(&snapshot).await?;
    kill.saw(scene.until_phase(known, phase).await?);
    tokio::time::sleep(kill.delay).await;
    let (virsh, name) = (scene.rig.virsh().clone(), scene.guest.spec.name.clone());
    let fallen = || virsh.log(&name).matches(FALLS).count();
    let earlier = fallen();
    objects.kill_exporter()?;
    let falls = async {
        while fallen() == earlier {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        written = scene.write_more(20) => written?,
        () = falls => kill.fell = true,
    }

    let ended = scene.api.ended(&deletion, TRIES).await?;
    ensure!(objects.exporter()? != before, "there is no other one");
    kill.merged = ended.state() == v1::OperationState::Succeeded;
    if kill.fell {
        // Whatever it was told until then.
        let active = if kill.merged { kept.last() } else { Some(top) };
        let active = active.context("no image")?.clone();
        nothing_lost_in(scene, kill, &active).await?;
        tokio::time::timeout(LIMIT, scene.restart_guest()).await??;
    }
    if !kill.merged {
        let failure = ended.failure.unwrap_or_default();
        let expected = if kill.fell {
            "VM_DIED"
        } else {
            "MERGE_IO_ERROR"
        };
        ensure!(failure.reason == expected, "{failure:?}");
        let listed = scene.api.list(scene.vm()).await?;
        let stays = listed.iter().any(|listed| listed.id == snapshot);
        ensure!(stays, "the snapshot is gone");
        let again = scene.api.delete(&snapshot).await?;
        scene.api.succeeded(&again, TRIES).await?;
    }
    let left = scene.images_of(DISK).await?;
    ensure!(left == kept, "images: {left:?}");
    ensure!(
        objects.count(&uuid).await? == 0,
        "objects of {uuid} are left"
    );
    scene.write_more(20).await?;
    scene.agrees().await?;

    // Whatever it was told is on the disk is in the store when QEMU dies, too.
    with_libvirt(scene)?;
    scene.kill_qemu()?;
    let active = kept.last().context("no image")?.clone();
    nothing_lost_in(scene, kill, &active).await?;
    tokio::time::timeout(LIMIT, scene.restart_guest()).await?
}

/// Every acknowledged record is in the image of a machine that is dead.
async fn nothing_lost_in(scene: &mut Scene, kill: &mut Kill, active: &Path) -> Result<()> {
    with_libvirt(scene)?;
    shut_off(scene).await?;
    scene.guest.acks.catch_up().await?;
    let verdict = scene.look(DISK, active)?;
    kill.count(&active.display().to_string(), &verdict)
}
