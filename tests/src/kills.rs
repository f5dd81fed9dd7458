//! Kills of a real QEMU at many moments of a merge, under a guest that writes.
//!
//! ```text
//!   snapshot ─▶ delete ─▶ phase seen ─▶ delay ─▶ kill -9 QEMU ─▶ the operation ends
//!      ▲                                                               │
//!      └── delete again ◀── machine starts again ◀── every acknowledged record is in the image
//!                                                    that the machine starts from
//! ```
//! The phase and the delay come from a seed; the exact moment is the machine's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use crate::guest::domain::Workload;
use crate::scene::{LIMIT, Scene};
use crate::sweep::Tally;

const DISK: &str = "vda";
/// Moments at which the kill's delay begins.
const PHASES: [MergePhase; 5] = [
    MergePhase::Pending,
    MergePhase::Copying,
    MergePhase::Ready,
    MergePhase::Pivoting,
    MergePhase::Verifying,
];
/// The longest delay after the phase was seen: about as long as a pivot takes.
const DELAY_US: u64 = 40_000;
const WORKLOAD: Workload = Workload {
    slots: 256,
    fill_mib: 0,
    background_kib: 2048,
    rate: 0,
};

/// What came of one kill.
#[derive(Debug, Clone)]
pub struct Kill {
    /// The phase after which the delay began.
    pub phase: MergePhase,
    /// The delay.
    pub delay: Duration,
    /// Whether the merge had been won all the same.
    pub merged: bool,
}

/// So many kills, half of them on each of two guests, as a part of the sweep. Prints how they ended.
pub async fn sweep(kills: u32, seed: u64) -> Tally {
    let half = kills / 2;
    let (first, second) = (seed, seed.wrapping_add(1));
    let (one, other) = tokio::join!(
        Box::pin(run(half, first)),
        Box::pin(run(kills - half, second))
    );
    let mut tally = Tally {
        seeds: vec![first, second],
        ..Tally::default()
    };
    let mut done = Vec::new();
    for part in [one, other] {
        match part {
            Ok(part) => done.extend(part),
            Err(error) => {
                eprintln!("a promise was broken: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally.cases = done.len() + tally.failed;
    print(&done);
    tally
}

#[allow(clippy::print_stdout, reason = "this is the sweep's output")]
fn print(kills: &[Kill]) {
    println!("kills of a real QEMU, delayed by up to 40 ms after a phase was seen:");
    for phase in PHASES {
        let of_phase: Vec<&Kill> = kills.iter().filter(|kill| kill.phase == phase).collect();
        let merged = of_phase.iter().filter(|kill| kill.merged).count();
        println!(
            "  {phase:?}: {} kills, {merged} after the merge was won, 0 records lost",
            of_phase.len()
        );
    }
}

/// So many kills on one guest. The same seed gives the same phases and delays.
///
/// # Errors
/// Names the kill after which something was not as it must be.
pub async fn run(kills: u32, seed: u64) -> Result<Vec<Kill>> {
    let mut scene = Scene::begin_with_daemon(&[DISK], WORKLOAD).await?;
    let mut random = SplitMix(seed);
    let mut done = Vec::new();
    for number in 0..kills {
        let phase = PHASES[number as usize % PHASES.len()];
        let delay = Duration::from_micros(random.next() % DELAY_US);
        let kill = one(&mut scene, number, phase, delay).await;
        let kill = kill.with_context(|| {
            format!("seed {seed}, kill {number}: {delay:?} after {phase:?} was seen")
        })?;
        done.push(kill);
    }
    Ok(done)
}

async fn one(scene: &mut Scene, number: u32, phase: MergePhase, delay: Duration) -> Result<Kill> {
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
    scene.guest.acks.catch_up().await?;

    let merged = ended.state() == v1::OperationState::Succeeded;
    let starts_from = PathBuf::from(scene.rig.virsh().next_image(&scene.guest.spec.name, DISK)?);
    let left = scene.api.list(vm).await?;
    if merged {
        ensure!(
            &starts_from == base,
            "it starts from {}",
            starts_from.display()
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
    let verdict = scene.look(DISK, &starts_from)?;
    ensure!(verdict.lost.is_empty(), "lost: {:?}", verdict.lost);

    scene.restart_guest().await?;
    if !merged {
        let again = scene.api.delete(&snapshot).await?;
        scene.api.succeeded(&again, LIMIT).await?;
        ensure!(!top.exists(), "{} is still there", top.display());
    }
    ensure!(scene.images_of(DISK).await?.len() == images.len() - 1);
    Ok(Kill {
        phase,
        delay,
        merged,
    })
}

/// A small generator that a seed fixes for ever.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
