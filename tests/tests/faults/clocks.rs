//! The clock of a real agent is set while it merges, forward and back, by more than anything here is
//! kept for.

use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_runtime::{Clock as _, SystemClock};
use livemerge_tests::clock::ProcessClock;
use livemerge_tests::journal::starts;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};

use super::{DISK_BYTES, PATIENT, POLL, WEIGHT_BYTES, WORKLOAD, assert_nothing_lost, slow};

const DAYS: i64 = 8;
const DAY: i64 = 86_400;
/// How far a clock may be from where it was set.
const WITHIN: i64 = 3600;

/// What happens to the agent when its clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes on.
    GoesOn,
    /// It is killed, and the clock is set before its next start.
    StartsAgain,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_an_agent_jumps_in_mid_merge_and_the_merge_ends() -> Result<()> {
    let rig = Rig::new()?;
    let guest = rig.start_guest("vm", &["vda"], DISK_BYTES, WORKLOAD)?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    let clock = ProcessClock::new(&rig.path().join("clock"))?;
    services.agent.give(clock.environment());
    services.agent.set(PATIENT);
    let mut scene = Scene::with(rig, guest, services).await?;
    // Each begins where the one before has left the clock.
    for (days, then) in [
        (DAYS, Then::GoesOn),
        (-DAYS, Then::GoesOn),
        (DAYS, Then::StartsAgain),
        (-DAYS, Then::StartsAgain),
    ] {
        merges_while_it_jumps(&mut scene, &clock, days, then).await?;
    }
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

async fn merges_while_it_jumps(
    scene: &mut Scene,
    clock: &ProcessClock,
    days: i64,
    then: Then,
) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", WEIGHT_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;

    match then {
        Then::GoesOn => clock.set_days(days)?,
        Then::StartsAgain => {
            copies(scene, &merge).await?;
            let agent = &mut scene.services.agent;
            agent.kill()?;
            clock.set_days(days)?;
            agent.start()?;
            scene.api.wait_for_vm(vm, LIMIT).await?;
        }
    }
    until_it_is_read(scene, days).await?;
    scene.write_more(20).await?;
    let story = scene.journal().history(&merge)?;
    let now = story.last().map(|line| &*line.phase);
    ensure!(now == Some("copying"), "{story:?}");
    scene.api.limit(&deletion, 0).await?;

    scene.api.succeeded(&deletion, LIMIT).await?;
    let merge = scene.until_merged(&merge).await?;
    let (began, ended) = (seconds(&merge.accepted_at), seconds(&merge.ended_at));
    assert!((ended - began).abs() > (DAYS - 1) * DAY, "{merge:?}");
    let story = scene.journal().history(&merge.id)?;
    assert_eq!(starts(&story), 1, "{days} {then:?}: {story:?}");
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    scene.write_more(20).await
}

/// Waits until QEMU has the job, and has copied some. Before that libvirt, which dies with the agent, may
/// know of a job that QEMU does not.
async fn copies(scene: &Scene, merge: &str) -> Result<()> {
    let look = async {
        loop {
            let merges = scene.merges().await?;
            let shown = merges.iter().find(|shown| shown.id == merge);
            if shown.is_some_and(|shown| shown.done_bytes > 0) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await?
}

fn seconds(at: &Option<prost_types::Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds)
}

/// Waits until the agent, asked itself, has the time that was set.
async fn until_it_is_read(scene: &Scene, days: i64) -> Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let here = SystemClock.now().as_second();
        let there = seconds(&scene.chain_on_host("vda").await?.observed_at);
        if (there - here - days * DAY).abs() < WITHIN {
            return Ok(());
        }
        let apart = Duration::from_secs((there - here).unsigned_abs());
        ensure!(begun.elapsed() < LIMIT, "the clock is {apart:?} apart");
        tokio::time::sleep(POLL).await;
    }
}
