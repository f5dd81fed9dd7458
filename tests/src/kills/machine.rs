//! QEMU dies while its only disk is merged: the merge is won, or has failed and can be had again.

use anyhow::Result;
use livemerge_proto::v1::MergePhase;

use super::stage::Stage;
use super::{Kill, LIMIT, Scene};

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let stage = Stage::set(scene, number).await?;
    let known = scene.merges().await?.len();
    let deletion = scene.api.delete(&stage.snapshot).await?;
    kill.saw(scene.until_phase(known, stage.phase(phase)).await?);
    tokio::time::sleep(kill.delay).await;
    scene.kill_qemu()?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    stage.end(scene, kill, &ended).await
}
