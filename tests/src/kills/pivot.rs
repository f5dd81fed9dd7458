//! The agent dies, and libvirt within it, while the guest is being switched: from the journal's
//! line that says so, before a look from outside could show it.
//!
//! libvirt writes two definitions of the machine, one after the other, and may die between them; it
//! may even leave one that it cannot read itself. Then it loses the machine, which goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;

use super::{LIMIT, Scene, nothing_lost, pull_the_plug};

const DISK: &str = "vda";
/// How long a machine that libvirt has lost is waited for.
const LOST: Duration = Duration::from_secs(20);

/// True when the guest was switched.
pub(super) async fn kill(scene: &mut Scene, number: u32, delay: Duration) -> Result<bool> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let top = images.last().context("no image")?.clone();
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let intent = |line: &crate::journal::Line| line.window.as_deref() == Some("intent");
    scene.until_written(&known, intent).await?;
    std::thread::sleep(delay);
    scene.services.agent.kill()?;
    scene.services.agent.start()?;

    let ended = tokio::time::timeout(LOST, scene.api.ended(&deletion, LIMIT)).await;
    let ended = match ended {
        Ok(ended) => ended?,
        Err(_) => return lost(scene, &deletion, &top).await,
    };
    let merged = ended.state() == v1::OperationState::Succeeded;
    if !merged {
        // The mark stays in libvirt's definition until the machine starts again.
        let failure = ended.failure.unwrap_or_default();
        ensure!(failure.reason == "CHAIN_DIVERGED", "{failure:?}");
    }
    // It runs, and what it writes from here on is what it starts from.
    scene.write_more(20).await?;
    pull_the_plug(scene).await?;
    finish(scene, &snapshot, &images, merged).await?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    Ok(merged)
}

/// libvirt has lost the machine: nothing is said to have ended, and nothing is removed, until its
/// process is.
async fn lost(scene: &mut Scene, deletion: &v1::Operation, top: &Path) -> Result<bool> {
    let now = scene.api.operation(&deletion.id).await?;
    ensure!(now.ended_at.is_none(), "{now:?}");
    ensure!(top.exists(), "{} is gone", top.display());
    scene.end_writer_of(top)?;
    let ended = scene.api.ended(deletion, LIMIT).await?;
    let failure = ended.failure.unwrap_or_default();
    ensure!(failure.reason == "VM_DIED", "{failure:?}");
    nothing_lost(scene).await?;
    scene.restart_guest().await?;
    let snapshot = ended.snapshot_id;
    let images = scene.images_of(DISK).await?;
    finish(scene, &snapshot, &images, false).await?;
    Ok(false)
}

/// What is left of the delete is done.
async fn finish(scene: &mut Scene, snapshot: &str, images: &[PathBuf], merged: bool) -> Result<()> {
    let vm = scene.vm();
    if !merged {
        let again = scene.api.delete(snapshot).await?;
        scene.api.succeeded(&again, LIMIT).await?;
    }
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    ensure!(scene.images_of(DISK).await? == images[..images.len() - 1]);
    Ok(())
}
