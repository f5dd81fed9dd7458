//! QEMU dies while its only disk is merged: the merge is won, or has failed and can be had again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::{LIMIT, Scene, nothing_lost};

const DISK: &str = "vda";

/// True when the merge was won.
pub(super) async fn kill(
    scene: &mut Scene,
    number: u32,
    phase: MergePhase,
    delay: Duration,
) -> Result<bool> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let (base, top) = (&images[images.len() - 2], &images[images.len() - 1]);

    let known = scene.merges().await?.len();
    let deletion = scene.api.delete(&snapshot).await?;
    scene.until_phase(known, phase).await?;
    tokio::time::sleep(delay).await;
    scene.kill_qemu()?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;

    let merged = ended.state() == v1::OperationState::Succeeded;
    let left = scene.api.list(vm).await?;
    if merged {
        let starts_from = scene.rig.virsh().next_image(&scene.guest.spec.name, DISK)?;
        ensure!(
            &PathBuf::from(&starts_from) == base,
            "it starts from {starts_from}"
        );
        ensure!(
            left.is_empty() && !top.exists(),
            "snapshot or volume is left"
        );
    } else {
        let failure = ended.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VM_DIED", "{failure:?}");
        ensure!(
            left.len() == 1 && left[0].id == snapshot,
            "snapshots: {left:?}"
        );
        ensure!(base.exists() && top.exists(), "a volume is gone");
        let told = scene.api.log(vm).await?;
        let failed = told.iter().any(|event| {
            event.operation_id == ended.id && event.r#type() == v1::EventType::LiveMergeFailed
        });
        ensure!(failed, "no live-merge-failure event is in the log");
    }
    nothing_lost(scene).await?;

    scene.restart_guest().await?;
    if !merged {
        let again = scene.api.delete(&snapshot).await?;
        scene.api.succeeded(&again, LIMIT).await?;
        ensure!(!top.exists(), "{} is still there", top.display());
    }
    ensure!(scene.images_of(DISK).await?.len() == images.len() - 1);
    Ok(merged)
}
