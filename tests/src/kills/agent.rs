//! The agent dies: its next start takes the merge to its end, whichever way that goes.

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::{MergeDirection, MergeOptions, MergePhase, VmState};

use super::{Kill, LIMIT, Scene, nothing_lost, pull_the_plug};

const DISK: &str = "vda";

/// Which merge the agent dies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// An active commit.
    Commit,
    /// A pull into the layer that the guest writes.
    Pull,
    /// A commit of a machine that is off: its job dies with the agent.
    Offline,
}

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    phase: MergePhase,
    way: Way,
) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    if way == Way::Offline {
        scene.rig.virsh().power_off(&scene.guest.spec.name)?;
        scene.api.until_vm(vm, VmState::ShutOff, LIMIT).await?;
    }
    let direction = match way {
        Way::Commit | Way::Offline => MergeDirection::Commit,
        Way::Pull => MergeDirection::Pull,
    };
    kill_within(scene, kill, &snapshot, direction, phase).await?;
    if way != Way::Offline {
        scene.api.wait_for_vm(vm, LIMIT).await?;
    }
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    let mut kept = images;
    let gone = kept.len().checked_sub(if way == Way::Pull { 2 } else { 1 });
    let gone = kept.remove(gone.context("no image")?);
    ensure!(!gone.exists(), "{} is still there", gone.display());
    ensure!(scene.images_of(DISK).await? == kept);
    if way == Way::Offline {
        nothing_lost(scene, kill).await?;
        return scene.restart_guest().await;
    }
    // A guest that stood still when the agent died runs again.
    scene.write_more(20).await?;
    pull_the_plug(scene, kill).await
}

/// Deletes a snapshot and kills the agent in a phase of the merge. The next one takes up what the journal
/// says, and the delete succeeds.
pub(super) async fn kill_within(
    scene: &mut Scene,
    kill: &mut Kill,
    snapshot: &str,
    direction: MergeDirection,
    phase: MergePhase,
) -> Result<()> {
    let (known, before) = (scene.merges().await?.len(), scene.journal().merges());
    let options = MergeOptions {
        direction: direction.into(),
        bytes_per_second: 0,
    };
    let deletion = scene.api.delete_with(snapshot, options).await?;
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
    let after = journal.history(&merge)?;
    ensure!(after.starts_with(&story), "{story:?} became {after:?}");
    if seen >= MergePhase::Ready {
        let copies = after.iter().filter(|line| line.phase == "copying");
        ensure!(copies.count() == 1, "a job was started again: {after:?}");
    }
    Ok(())
}
