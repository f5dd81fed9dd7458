//! Kills of real processes at many moments of a merge, under a guest that writes.
//!
//! ```text
//!   snapshot ─▶ delete ─▶ moment seen ─▶ delay ─▶ kill -9 ─▶ what must be so after it is looked at
//!      ▲                                                               │
//!      └── the next snapshot ◀── machine starts again ◀── every acknowledged record is in the
//!                                                         images that it starts from
//! ```
//! The moment and the delay come from a seed; the exact instant is the machine's. What is killed, and
//! what must be so then: [`machine`], [`disks`], [`agent`], [`start`].

mod agent;
mod disks;
mod machine;
mod pivot;
mod start;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::MergePhase;

use crate::guest::domain::Workload;
use crate::scene::{LIMIT, Scene};
use crate::sweep::Tally;

const WORKLOAD: Workload = Workload {
    slots: 256,
    fill_mib: 0,
    background_kib: 2048,
    rate: 0,
};
/// The longest delay after a phase was seen: about as long as a pivot takes.
const DELAY_US: u64 = 40_000;
/// The longest delay after the pivot was asked for: libvirt has written all down within it.
const IN_PIVOT_US: u64 = 16_000;
/// Moments at which the kill's delay begins.
const PHASES: [MergePhase; 5] = [
    MergePhase::Pending,
    MergePhase::Copying,
    MergePhase::Ready,
    MergePhase::Pivoting,
    MergePhase::Verifying,
];

/// Who is killed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// QEMU, while its only disk is merged.
    Machine,
    /// QEMU, when the first of its two disks is merged and the second in any phase.
    MachineBetweenDisks,
    /// The agent alone.
    Agent,
    /// The agent, and libvirt within it, while they start the block job.
    AgentAtStart,
    /// The agent, and libvirt within it, while they switch the guest.
    AgentInPivot,
}

/// What came of one kill.
#[derive(Debug, Clone)]
pub struct Kill {
    /// The moment after which the delay began.
    pub moment: String,
    /// The delay.
    pub delay: Duration,
    /// Whether the merge had been won when the victim died.
    pub merged: bool,
    /// Whether QEMU had a block job of which libvirt had not written anything down.
    pub unmarked: bool,
}

/// So many kills of a machine with one disk, and a quarter as many of each other victim, as a part
/// of the sweep. Prints how they ended.
pub async fn sweep(kills: u32, seed: u64) -> Tally {
    let (half, quarter) = (kills / 2, kills.div_ceil(4));
    let (first, second) = (seed, seed.wrapping_add(1));
    let mut tally = Tally {
        seeds: vec![first, second],
        ..Tally::default()
    };
    let rounds = [
        [
            (Victim::Machine, half, first),
            (Victim::Machine, kills - half, second),
        ],
        [
            (Victim::MachineBetweenDisks, quarter, first),
            (Victim::Agent, quarter, second),
        ],
        [
            (Victim::AgentAtStart, quarter, first),
            (Victim::AgentInPivot, quarter, second),
        ],
    ];
    let mut done = BTreeMap::<Victim, Vec<Kill>>::new();
    for [one, other] in rounds {
        let (left, right) = tokio::join!(
            Box::pin(run(one.0, one.1, one.2)),
            Box::pin(run(other.0, other.1, other.2))
        );
        for (victim, part) in [(one.0, left), (other.0, right)] {
            match part {
                Ok(part) => done.entry(victim).or_default().extend(part),
                Err(error) => {
                    eprintln!("a promise was broken: {error:#}");
                    tally.failed += 1;
                }
            }
        }
    }
    tally.cases = done.values().map(Vec::len).sum::<usize>() + tally.failed;
    print(&done);
    tally
}

#[allow(clippy::print_stdout, reason = "this is the sweep's output")]
fn print(done: &BTreeMap<Victim, Vec<Kill>>) {
    println!("kills of real processes, each delayed at random after a moment was seen:");
    for (victim, kills) in done {
        let mut moments: Vec<&str> = Vec::new();
        for kill in kills {
            if !moments.contains(&kill.moment.as_str()) {
                moments.push(&kill.moment);
            }
        }
        for moment in moments {
            let of_moment = || kills.iter().filter(|kill| kill.moment == moment);
            println!(
                "  {victim:?}, {moment}: {} kills, {} after the merge was won, {} of a job that \
                 libvirt did not know, 0 records lost",
                of_moment().count(),
                of_moment().filter(|kill| kill.merged).count(),
                of_moment().filter(|kill| kill.unmarked).count(),
            );
        }
    }
}

/// So many kills on one guest. The same seed gives the same moments and delays.
///
/// # Errors
/// Names the kill after which something was not as it must be.
pub async fn run(victim: Victim, kills: u32, seed: u64) -> Result<Vec<Kill>> {
    let mut scene = begin(victim).await?;
    let mut random = SplitMix(seed);
    let mut done = Vec::new();
    for number in 0..kills {
        let drawn = random.next();
        let kill = one(&mut scene, victim, number, drawn).await;
        let kill = kill.with_context(|| format!("{victim:?}, seed {seed}, kill {number}"))?;
        done.push(kill);
    }
    Ok(done)
}

async fn begin(victim: Victim) -> Result<Scene> {
    match victim {
        Victim::Machine => Scene::begin_with_daemon(&["vda"], WORKLOAD).await,
        Victim::MachineBetweenDisks => Scene::begin_with_daemon(&["vda", "vdb"], WORKLOAD).await,
        Victim::Agent => Scene::begin_with_daemon(&["vda"], WORKLOAD).await,
        Victim::AgentInPivot => Scene::begin(&["vda"], WORKLOAD).await,
        Victim::AgentAtStart => Scene::begin_with_monitor(&["vda"], WORKLOAD).await,
    }
}

async fn one(scene: &mut Scene, victim: Victim, number: u32, drawn: u64) -> Result<Kill> {
    let phase = PHASES[number as usize % PHASES.len()];
    let delay = Duration::from_micros(drawn % DELAY_US);
    let what = || format!("killed {delay:?} after {phase:?} was seen");
    let kill = |merged| Kill {
        moment: format!("{phase:?}"),
        delay,
        merged,
        unmarked: false,
    };
    match victim {
        Victim::Machine => {
            let merged = machine::kill(scene, number, phase, delay).await;
            merged.with_context(what).map(kill)
        }
        Victim::MachineBetweenDisks => {
            let merged = disks::kill(scene, number, phase, delay).await;
            merged.with_context(what).map(kill)
        }
        Victim::Agent => {
            let merged = agent::kill(scene, number, phase, delay).await;
            merged.with_context(what).map(kill)
        }
        Victim::AgentAtStart => start::kill(scene, number, drawn).await,
        Victim::AgentInPivot => {
            let delay = Duration::from_micros(drawn % IN_PIVOT_US);
            let merged = pivot::kill(scene, number, delay).await;
            let merged = merged.with_context(|| format!("killed {delay:?} after the intent"))?;
            Ok(Kill {
                moment: "intent written down".to_owned(),
                delay,
                merged,
                unmarked: false,
            })
        }
    }
}

/// Kills the machine, looks for every acknowledged record in the image that it would start from,
/// and starts it again. A running agent's libvirt is given away meanwhile.
async fn pull_the_plug(scene: &mut Scene) -> Result<()> {
    scene.services.agent.stop()?;
    scene.kill_qemu()?;
    // The next owner of libvirt's root finds out by itself that the machine has died, in its own time.
    let begun = Instant::now();
    while scene.rig.virsh().state(&scene.guest.spec.name)? != "shut off" {
        ensure!(
            begun.elapsed() < LIMIT,
            "libvirt sees no end of the machine"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nothing_lost(scene).await?;
    scene.restart_guest().await
}

/// Every acknowledged record is in the images from which the machine, which is dead, would start.
async fn nothing_lost(scene: &mut Scene) -> Result<()> {
    scene.guest.acks.catch_up().await?;
    for disk in scene.guest.spec.disks.clone() {
        let name = &scene.guest.spec.name;
        let image = scene.rig.virsh().next_image(name, &disk.target)?;
        let verdict = scene.look(&disk.target, image.as_ref())?;
        ensure!(
            verdict.lost.is_empty(),
            "{} lost in {image}: {:?}",
            disk.target,
            verdict.lost
        );
        ensure!(verdict.acknowledged > 0, "the guest wrote nothing");
    }
    Ok(())
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
