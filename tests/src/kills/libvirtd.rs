//! The libvirt daemon dies, and comes back: QEMU and the agent go on.
//!
//! Killed within a pivot, it may leave a definition that it cannot read itself. It is not the agent's
//! to mend: libvirt has lost the machine, whose guest stands still, until somebody ends its process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::pivot::{end, finish};
use super::{Kill, LIMIT, Scene, nothing_lost};
use crate::process::wait_for_end;

const DISK: &str = "vda";
/// How long a machine that libvirt has lost is looked at.
const LOST: Duration = Duration::from_secs(3);

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let known = scene.merges().await?.len();
    let deletion = scene.api.delete(&snapshot).await?;
    kill.saw(scene.until_phase(known, phase).await?);
    tokio::time::sleep(kill.delay).await;
    let name = scene.guest.spec.name.clone();
    let qemu = scene.rig.virsh().qemu_pid(&name)?;
    let daemon = scene.rig.daemon().context("a daemon")?;
    daemon.kill()?;
    daemon.live()?;
    // It says so before it takes anything else in.
    if scene.rig.virsh().state(&name)? == "shut off" && test_kill_process(qemu).is_ok() {
        return lost(scene, kill, &deletion, &images, qemu).await;
    }
    end(scene, kill, &deletion, &images).await
}

/// Nothing is said to have ended, and nothing is removed, until the machine's process has.
async fn lost(
    scene: &mut Scene,
    kill: &mut Kill,
    deletion: &v1::Operation,
    images: &[PathBuf],
    qemu: Pid,
) -> Result<()> {
    kill.forgotten = true;
    scene.guest.acks.catch_up().await?;
    let written = scene.guest.acks.count(DISK);
    tokio::time::sleep(LOST).await;
    ensure!(scene.guest.acks.count(DISK) == written, "the guest runs on");
    let now = scene.api.operation(&deletion.id).await?;
    ensure!(now.ended_at.is_none(), "{now:?}");
    let there = |image: &PathBuf| Path::exists(image);
    ensure!(images.iter().all(there), "a volume is gone");
    kill_process(qemu, Signal::KILL)?;
    wait_for_end(qemu)?;
    let ended = scene.api.ended(deletion, LIMIT).await?;
    let failure = ended.failure.unwrap_or_default();
    ensure!(failure.reason == "VM_DIED", "{failure:?}");
    nothing_lost(scene, kill).await?;
    scene.restart_guest().await?;
    finish(scene, kill, &ended.snapshot_id, images).await
}
