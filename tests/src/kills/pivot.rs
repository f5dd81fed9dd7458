//! The agent dies, and libvirt within it, while the guest is being switched: from the journal's
//! line that says so, before a look from outside could show it.
//!
//! libvirt writes two definitions of the machine, one after the other, and may die between them; it
//! may even leave one that it cannot read itself, which the next agent mends. It may go on to show a
//! pivot that QEMU is done with, until the machine starts again: then the merge fails, and nothing
//! is removed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_proto::v1;

use super::{LIMIT, Scene, pull_the_plug};

const DISK: &str = "vda";

/// True when the guest was switched.
pub(super) async fn kill(scene: &mut Scene, number: u32, delay: Duration) -> Result<bool> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let intent = |line: &crate::journal::Line| line.window.as_deref() == Some("intent");
    scene.until_written(&known, intent).await?;
    std::thread::sleep(delay);
    scene.services.agent.kill()?;
    scene.services.agent.start()?;

    let ended = scene.api.ended(&deletion, LIMIT).await?;
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
