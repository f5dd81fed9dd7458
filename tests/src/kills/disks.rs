//! QEMU dies when the first of two disks is merged: deleting again does what is left, and that only.

use anyhow::{Context as _, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::{Kill, LIMIT, Scene, nothing_lost};

const FIRST: &str = "vda";
const SECOND: &str = "vdb";

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
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
    // The earliest moment is that the first is merged: no volume is removed yet.
    let (which, phase) = match phase {
        MergePhase::Pending => (known, MergePhase::Merged),
        later => (known + 1, later),
    };
    kill.saw(scene.until_phase(which, phase).await?);
    tokio::time::sleep(kill.delay).await;
    scene.kill_qemu()?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;

    // Each disk is merged and its volume gone, or neither; what is not is left.
    let mut rest = Vec::new();
    for (disk, top) in [FIRST, SECOND].into_iter().zip(tops) {
        let of_disk = ended.disks.iter().find(|of_disk| of_disk.disk == disk);
        let phase = of_disk.context("the disk is not shown")?.phase();
        let removed = phase == MergePhase::Removed;
        ensure!(removed || phase == MergePhase::Failed, "{disk}: {phase:?}");
        ensure!(
            removed != top.exists(),
            "{disk}: {phase:?}, {}",
            top.display()
        );
        if !removed {
            rest.push(disk);
        }
    }
    let merged = rest.is_empty();
    kill.merged = merged;
    let succeeded = ended.state() == v1::OperationState::Succeeded;
    ensure!(merged == succeeded, "{ended:?}");
    let left = scene.api.list(vm).await?;
    if merged {
        ensure!(left.is_empty(), "snapshots: {left:?}");
    } else {
        let failure = ended.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VM_DIED", "{failure:?}");
        ensure!(
            left.len() == 1
                && left[0].id == snapshot
                && left[0].state() == v1::SnapshotState::Incomplete,
            "snapshots: {left:?}"
        );
    }
    nothing_lost(scene, kill).await?;

    scene.restart_guest().await?;
    if !merged {
        delete_the_rest(scene, &snapshot, &rest).await?;
    }
    ensure!(scene.api.list(vm).await?.is_empty());
    for top in tops {
        ensure!(!top.exists(), "{} is still there", top.display());
    }
    ensure!(scene.images_of(FIRST).await? == first[..kept]);
    ensure!(scene.images_of(SECOND).await? == second[..kept]);
    Ok(())
}

/// The merged disk is not touched again.
async fn delete_the_rest(scene: &mut Scene, snapshot: &str, rest: &[&str]) -> Result<()> {
    let known = scene.merges().await?.len();
    let again = scene.api.delete(snapshot).await?;
    let ended = scene.api.succeeded(&again, LIMIT).await?;
    let of: Vec<_> = ended.disks.iter().map(|disk| disk.disk.as_str()).collect();
    ensure!(of == rest, "the second delete worked on {of:?}");
    let merges = scene.merges().await?;
    let disks: Vec<_> = merges[known..].iter().map(|m| m.disk.as_str()).collect();
    // None, when the pivot had been made and QEMU died before that was seen.
    ensure!(
        disks.iter().all(|disk| rest.contains(disk)),
        "merged again: {disks:?}"
    );
    Ok(())
}
