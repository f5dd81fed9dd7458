//! The agent dies, and libvirt within it, while the guest is being switched: from the journal's
//! line that says so, before a look from outside could show it.
//!
//! libvirt writes two definitions of the machine, one after the other, and may die between them; it
//! may even leave one that it cannot read itself, which the next agent mends. It may go on to show a
//! pivot that QEMU is done with, until the machine starts again: then the merge fails, and nothing
//! is removed.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;

use super::{Kill, LIMIT, Scene, pull_the_plug};

const DISK: &str = "vda";

pub(super) async fn kill(scene: &mut Scene, kill: &mut Kill, number: u32) -> Result<()> {
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let intent = |line: &crate::journal::Line| line.window.as_deref() == Some("intent");
    scene.until_written(&known, intent).await?;
    kill.moment = "intent written down".to_owned();
    std::thread::sleep(kill.delay);
    scene.services.agent.kill()?;
    scene.services.agent.start()?;
    end(scene, kill, &deletion, &images).await
}

/// libvirt is back. It may have been killed within the pivot, so the merge is won, or libvirt's
/// definition has kept the mark of the job that is over.
pub(super) async fn end(
    scene: &mut Scene,
    kill: &mut Kill,
    deletion: &v1::Operation,
    images: &[PathBuf],
) -> Result<()> {
    let ended = scene.api.ended(deletion, LIMIT).await?;
    kill.merged = ended.state() == v1::OperationState::Succeeded;
    if !kill.merged {
        // The mark stays in libvirt's definition until the machine starts again.
        let failure = ended.failure.unwrap_or_default();
        ensure!(failure.reason == "CHAIN_DIVERGED", "{failure:?}");
    }
    // It runs, and what it writes from here on is what it starts from.
    scene.write_more(20).await?;
    pull_the_plug(scene, kill).await?;
    finish(scene, kill, &ended.snapshot_id, images).await?;
    let vm = scene.vm();
    scene.api.wait_for_vm(vm, LIMIT).await?;
    Ok(())
}

/// What is left of the delete is done.
pub(super) async fn finish(
    scene: &mut Scene,
    kill: &Kill,
    snapshot: &str,
    images: &[PathBuf],
) -> Result<()> {
    let vm = scene.vm();
    if !kill.merged {
        let again = scene.api.delete(snapshot).await?;
        scene.api.succeeded(&again, LIMIT).await?;
    }
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    let top = images.last().context("no image")?;
    ensure!(!top.exists(), "{} is still there", top.display());
    ensure!(scene.images_of(DISK).await? == images[..images.len() - 1]);
    Ok(())
}
