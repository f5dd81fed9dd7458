//! The agent dies in a merge of layers that others have made, each with a relative name of the one below:
//! the names stay relative whoever wrote them last, QEMU or the next agent, and each layer's data are kept.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{MergeDirection, MergePhase, VmState};
use livemerge_storage::ImageHead;

use super::{Kill, LIMIT, ON_ONE_GUEST, Scene, WORKLOAD, agent, nothing_lost, pull_the_plug};
use crate::guest::domain::{DiskSpec, Format};
use crate::process::run;
use crate::rig::Rig;

const DISK: &str = "vda";
const POLL: Duration = Duration::from_millis(50);
const DISK_BYTES: u64 = 2 << 30;
/// One leaves with each kill: the base and the layer that the guest writes are left.
const LAYERS: u32 = ON_ONE_GUEST + 2;
/// Where each layer has a MiB that no other one has, beyond all that the guest writes.
const OWN_AT_MIB: u32 = 1536;

/// A guest on a chain that others have made.
pub(super) async fn begin() -> Result<Scene> {
    let rig = Rig::with_daemon()?;
    let mut active = rig.create_image(&name(0), DISK_BYTES)?;
    fill(&active, 0)?;
    for layer in 1..LAYERS {
        let below = name(layer - 1);
        let options = ["-F", "qcow2", "-b", &below];
        active = rig.create_image_with(&name(layer), Format::Qcow2, &options, DISK_BYTES)?;
        fill(&active, layer)?;
    }
    let disk = DiskSpec {
        target: DISK.to_owned(),
        path: active,
        format: Format::Qcow2,
    };
    let guest = rig.start(rig.describe_with("vm", vec![disk], WORKLOAD)?)?;
    Scene::around(rig, guest).await
}

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let vm = scene.vm();
    let offline = number % 3 == 2;
    let mut images = scene.images_of(DISK).await?;
    ensure!(images.len() > 2, "too short: {images:?}");
    // What is above the base goes into it, or what is below the layer that the guest writes into that.
    let (direction, of, leaves) = match number % 3 {
        1 => (MergeDirection::Pull, images.len() - 2, images.len() - 2),
        _ => (MergeDirection::Commit, 0, 1),
    };
    let snapshot = snapshot_of(scene, &images[of]).await?;
    if offline {
        scene.rig.virsh().power_off(&scene.guest.spec.name)?;
        scene.api.until_vm(vm, VmState::ShutOff, LIMIT).await?;
    }
    // Neither has a pivot.
    let phase = match phase {
        MergePhase::Ready | MergePhase::Pivoting if !offline => MergePhase::Copying,
        phase => phase,
    };
    agent::kill_within(scene, kill, &snapshot, direction, phase).await?;

    let gone = images.remove(leaves);
    ensure!(!gone.exists(), "{} is still there", gone.display());
    if offline {
        nothing_lost(scene, kill).await?;
        all_as_before(&images)?;
        scene.restart_guest().await?;
    } else {
        scene.api.wait_for_vm(vm, LIMIT).await?;
        scene.write_more(20).await?;
        pull_the_plug(scene, kill).await?;
    }
    let left = scene.images_of(DISK).await?;
    ensure!(left == images, "images: {left:?}");
    names_are_relative(&images)
}

/// The snapshot that a volume is found as, after a while.
async fn snapshot_of(scene: &mut Scene, image: &Path) -> Result<String> {
    let vm = scene.vm();
    let volume = image.file_name().and_then(|name| name.to_str());
    let look = async {
        loop {
            let listed = scene.api.list(vm).await?;
            let found = listed.into_iter().find(|snapshot| {
                let mut volumes = snapshot.disks.iter().flat_map(|disk| &disk.volume);
                volumes.any(|it| Some(it.name.as_str()) == volume)
            });
            if let Some(found) = found {
                return Ok(found.id);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, look).await;
    found.with_context(|| format!("{} is no snapshot", image.display()))?
}

fn names_are_relative(images: &[PathBuf]) -> Result<()> {
    for (below, image) in images.iter().zip(&images[1..]) {
        let head = ImageHead::read(image, None)?;
        let expected = below.file_name().and_then(|name| name.to_str());
        ensure!(
            head.backing.as_deref() == expected,
            "{} names {:?}, not {expected:?}",
            image.display(),
            head.backing
        );
    }
    Ok(())
}

/// Of a machine that is off: what each layer has of its own is read through the active one, and each
/// names the next one as before.
fn all_as_before(images: &[PathBuf]) -> Result<()> {
    names_are_relative(images)?;
    let active = images.last().context("no image")?;
    for layer in 0..LAYERS {
        own("read", active, layer).with_context(|| format!("of layer {layer}"))?;
    }
    Ok(())
}

fn fill(image: &Path, layer: u32) -> Result<()> {
    own("write", image, layer)
}

/// Writes a layer's own MiB, or reads it: another pattern than its own counts as an error.
fn own(what: &str, image: &Path, layer: u32) -> Result<()> {
    let at = OWN_AT_MIB + layer;
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2", "-c"]);
    command.arg(format!("{what} -P {} {at}M 1M", layer + 1));
    let said = run(command.arg(image))?;
    ensure!(!said.contains("failed"), "{said}");
    Ok(())
}

fn name(layer: u32) -> String {
    format!("layer-{layer:02}.qcow2")
}
