//! The agent dies: its next start takes the merge to its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::MergePhase;

use super::{LIMIT, Scene, pull_the_plug};

const DISK: &str = "vda";

/// True when the merge was won before the kill.
pub(super) async fn kill(
    scene: &mut Scene,
    number: u32,
    phase: MergePhase,
    delay: Duration,
) -> Result<bool> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let (known, before) = (scene.merges().await?.len(), scene.journal().merges());
    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_phase(known, phase).await?;
    tokio::time::sleep(delay).await;
    scene.services.agent.kill()?;

    let journal = scene.journal();
    let mut own = journal.merges();
    own.retain(|merge| !before.contains(merge));
    let merge = own.pop().context("the merge is not in the journal")?;
    let story = journal.history(&merge)?;
    let merged = story.iter().any(|line| line.phase == "merged");
    scene.services.agent.start()?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let after = journal.history(&merge)?;
    ensure!(after.starts_with(&story), "{story:?} became {after:?}");
    if phase >= MergePhase::Ready {
        let copies = after.iter().filter(|line| line.phase == "copying");
        ensure!(copies.count() == 1, "a job was started again: {after:?}");
    }
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    let top = images.last().context("no image")?;
    ensure!(!top.exists(), "{} is still there", top.display());
    ensure!(scene.images_of(DISK).await? == images[..images.len() - 1]);
    // A guest that stood still when the agent died runs again.
    scene.write_more(20).await?;
    pull_the_plug(scene).await?;
    Ok(merged)
}
