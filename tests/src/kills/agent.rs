//! The agent dies: its next start takes the merge to its end.

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::MergePhase;

use super::{Kill, LIMIT, Scene, pull_the_plug};

const DISK: &str = "vda";

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let (known, before) = (scene.merges().await?.len(), scene.journal().merges());
    let deletion = scene.api.delete(&snapshot).await?;
    let seen = scene.until_phase(known, phase).await?;
    kill.saw(seen);
    tokio::time::sleep(kill.delay).await;
    scene.services.agent.kill()?;

    let journal = scene.journal();
    let mut own = journal.merges();
    own.retain(|merge| !before.contains(merge));
    let merge = own.pop().context("the merge is not in the journal")?;
    let story = journal.history(&merge)?;
    kill.merged = story.iter().any(|line| line.phase == "merged");
    scene.services.agent.start()?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let after = journal.history(&merge)?;
    ensure!(after.starts_with(&story), "{story:?} became {after:?}");
    if seen >= MergePhase::Ready {
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
    pull_the_plug(scene, kill).await
}
