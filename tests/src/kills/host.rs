//! The whole host dies, as by a power cut: the agent, libvirt and QEMU at once, and with them all
//! that stood in `/run`. What had been written to the images is there: the host's memory that QEMU
//! had not flushed is not taken away.
//!
//! Until the host is back nobody knows how its machine is, so nothing ends and nothing is removed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::stage::Stage;
use super::{Kill, LIMIT, Scene};

/// How long the host stays dark after the server has noticed.
const DARK: Duration = Duration::from_millis(1500);

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
) -> Result<()> {
    let stage = Stage::set(scene, number).await?;
    let (known, before) = (scene.merges().await?.len(), scene.journal().merges());
    let deletion = scene.api.delete(&stage.snapshot).await?;
    kill.saw(scene.until_phase(known, stage.phase(phase)).await?);
    tokio::time::sleep(kill.delay).await;
    power_off(scene)?;
    let there = stage.top.exists();
    let mut own = scene.journal().merges();
    own.retain(|merge| !before.contains(merge));
    let merge = own.pop().context("the merge is not in the journal")?;
    let story = scene.journal().history(&merge)?;
    let merged = story.iter().any(|line| line.phase == "merged");
    ensure!(there || merged, "removed before it was merged: {story:?}");

    scene.until_host(v1::HostStatus::Unresponsive).await?;
    let vm = scene.vm();
    let unknown = v1::VmState::Unknown;
    scene.api.until_vm(vm, unknown, LIMIT).await?;
    tokio::time::sleep(DARK).await;
    let dark = scene.api.operation(&deletion.id).await?;
    ensure!(!there || dark.ended_at.is_none(), "ended unseen: {dark:?}");
    ensure!(stage.base.exists(), "{} is gone", stage.base.display());
    ensure!(
        stage.top.exists() == there,
        "{} was removed in the dark",
        stage.top.display()
    );
    let seen = scene.api.vm(vm).await?;
    ensure!(seen.state() == unknown, "{seen:?}");

    scene.rig.daemon().context("a daemon")?.live()?;
    scene.services.agent.start()?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    scene.until_host(v1::HostStatus::Up).await?;
    let off = v1::VmState::ShutOff;
    scene.api.until_vm(vm, off, LIMIT).await?;
    stage.end(scene, kill, &ended).await
}

/// The agent stands still while QEMU and libvirt die, and then dies, too: none sees another's end.
fn power_off(scene: &mut Scene) -> Result<()> {
    scene.services.agent.freeze(true)?;
    scene.kill_qemu()?;
    scene.rig.daemon().context("a daemon")?.lose_power()?;
    scene.services.agent.kill()
}
