//! QEMU dies when the first of two disks is merged: deleting again does what is left, and that only.

use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::{LIMIT, Scene, nothing_lost};

const FIRST: &str = "vda";
const SECOND: &str = "vdb";

/// True when both merges were won.
pub(super) async fn kill(
    scene: &mut Scene,
    number: u32,
    phase: MergePhase,
    delay: Duration,
) -> Result<bool> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let first = scene.images_of(FIRST).await?;
    let second = scene.images_of(SECOND).await?;
    let (kept, tops) = (
        first.len() - 1,
        [&first[first.len() - 1], &second[second.len() - 1]],
    );

    let known = scene.merges().await?.len();
    let deletion = scene.api.delete(&snapshot).await?;
    if phase == MergePhase::Pending {
        // The earliest moment: the first disk's volume is not removed yet.
        scene.until_phase(known, MergePhase::Merged).await?;
    } else {
        scene.until_phase(known + 1, phase).await?;
    }
    tokio::time::sleep(delay).await;
    scene.kill_qemu()?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;

    let shown: Vec<_> = ended
        .disks
        .iter()
        .map(|disk| (disk.disk.as_str(), disk.phase()))
        .collect();
    ensure!(
        shown.first() == Some(&(FIRST, MergePhase::Removed)),
        "{shown:?}"
    );
    ensure!(!tops[0].exists(), "{} is still there", tops[0].display());
    let merged = ended.state() == v1::OperationState::Succeeded;
    let left = scene.api.list(vm).await?;
    if merged {
        ensure!(shown[1] == (SECOND, MergePhase::Removed), "{shown:?}");
        ensure!(
            left.is_empty() && !tops[1].exists(),
            "snapshot or volume is left"
        );
    } else {
        let failure = ended.failure.clone().unwrap_or_default();
        ensure!(
            ["VM_DIED", "VM_NOT_RUNNING"].contains(&failure.reason.as_str()),
            "{failure:?}"
        );
        ensure!(shown[1] == (SECOND, MergePhase::Failed), "{shown:?}");
        ensure!(
            left.len() == 1
                && left[0].id == snapshot
                && left[0].state() == v1::SnapshotState::Incomplete,
            "snapshots: {left:?}"
        );
        ensure!(tops[1].exists(), "a volume is gone that was not merged");
    }
    nothing_lost(scene).await?;

    scene.restart_guest().await?;
    if !merged {
        delete_the_rest(scene, &snapshot).await?;
    }
    ensure!(scene.api.list(vm).await?.is_empty());
    ensure!(!tops[1].exists(), "{} is still there", tops[1].display());
    ensure!(scene.images_of(FIRST).await? == first[..kept]);
    ensure!(scene.images_of(SECOND).await? == second[..kept]);
    Ok(merged)
}

/// The merged disk is not touched again.
async fn delete_the_rest(scene: &mut Scene, snapshot: &str) -> Result<()> {
    let known = scene.merges().await?.len();
    let again = scene.api.delete(snapshot).await?;
    let ended = scene.api.succeeded(&again, LIMIT).await?;
    let of: Vec<_> = ended.disks.iter().map(|disk| disk.disk.as_str()).collect();
    ensure!(of == [SECOND], "the second delete worked on {of:?}");
    let merges = scene.merges().await?;
    let disks: Vec<_> = merges[known..].iter().map(|m| m.disk.as_str()).collect();
    // None, when the pivot had been made and QEMU died before that was seen.
    ensure!(
        disks == [SECOND] || disks.is_empty(),
        "merged again: {disks:?}"
    );
    Ok(())
}
