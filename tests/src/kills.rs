//! Kills of real processes at many moments of a merge, under a guest that writes.
//!
//! ```text
//!   snapshot ─▶ delete ─▶ moment seen ─▶ delay ─▶ kill -9 ─▶ what must be so after it is looked at
//!      ▲                                                               │
//!      └── the next snapshot ◀── machine starts again ◀── every acknowledged record is in the
//!                                                         images that it starts from
//! ```
//! The moment and the delay come from a seed; the exact instant is the machine's. What is killed, and
//! what must be so then: [`machine`], [`switch`], [`disks`], [`host`], [`libvirtd`], [`agent`],
//! [`names`], [`start`], [`pivot`], [`server`], [`exporter`].

mod agent;
mod disks;
mod exporter;
mod frozen;
mod host;
mod libvirtd;
mod machine;
mod names;
mod pivot;
mod server;
mod stage;
mod start;
mod switch;
mod tally;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum as _;
use futures::{StreamExt as _, stream};
use livemerge_proto::v1::MergePhase;
use tokio_util::sync::CancellationToken;

use crate::guest::domain::Workload;
use crate::objects::Objects;
use crate::scene::{LIMIT, Scene};
use crate::sweep::Tally;
use agent::Way;
pub use tally::{Kill, Kills};

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
/// Lines of a log that are told after a failure.
const LAST_WORDS: usize = 60;
/// After so many failures the rest is not worth its time: it is counted as not done.
const MOST_FAILURES: usize = 3;
/// From so many kills around QEMU's switch on, both sides of it must have been hit.
const HITS_BOTH_SIDES: usize = 50;
/// Moments at which the kill's delay begins.
const PHASES: [MergePhase; 5] = [
    MergePhase::Pending,
    MergePhase::Copying,
    MergePhase::Ready,
    MergePhase::Pivoting,
    MergePhase::Verifying,
];

/// Who is killed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Victim {
    /// QEMU, while its only disk is merged.
    Machine,
    /// QEMU, while it switches its guest.
    MachineInPivot,
    /// QEMU, when the first of its two disks is merged and the second in any phase.
    MachineBetweenDisks,
    /// The agent, libvirt and QEMU at once, as by a power cut.
    Host,
    /// The libvirt daemon.
    Libvirtd,
    /// The API server.
    Server,
    /// The agent alone.
    Agent,
    /// The same, in a pull.
    AgentInPull,
    /// The same, while the machine is off.
    AgentOffline,
    /// The agent, in any of these ways, where each layer names the one below it by a relative name.
    AgentBesideNames,
    /// The agent, and libvirt within it, while they start the block job.
    AgentAtStart,
    /// The agent, and libvirt within it, while they switch the guest.
    AgentInPivot,
    /// The exporter of a guest whose images are objects.
    Exporter,
}

/// What a victim is part of. The guest and the services end before the objects that they are on.
struct Place {
    scene: Scene,
    objects: Option<Objects>,
}

/// Guests side by side: each waits more than it works.
const LANES: usize = 3;
/// Kills of one victim that one guest goes through, unless it has to be given up before.
const ON_ONE_GUEST: u32 = 10;
/// Its S3 server frees nothing of what was overwritten, and takes no more than it has room for.
const ON_ONE_S3_SERVER: u32 = 5;

/// So many kills of a machine within its pivot, and a quarter as many of each other victim, as a part
/// of the sweep; or of these alone, if there are any. Tells of each kill, and at the end how they
/// ended. When it is stopped, no kill is begun any more, and the rest is counted as skipped.
pub async fn sweep(kills: u32, seed: u64, victims: &[Victim], stop: &CancellationToken) -> Tally {
    let wanted = |victim: &&Victim| victims.is_empty() || victims.contains(*victim);
    let parts = Victim::value_variants().iter().filter(wanted);
    let parts = parts.flat_map(|&victim| {
        let all = match victim {
            Victim::MachineInPivot => kills,
            _ => kills.div_ceil(4),
        };
        let some = match victim {
            Victim::Exporter => ON_ONE_S3_SERVER,
            _ => ON_ONE_GUEST,
        };
        let firsts = (0..all).step_by(some as usize);
        firsts.map(move |first| (victim, first..all.min(first + some)))
    });
    let mut parts = stream::iter(parts)
        .map(async |(victim, numbers)| (victim, run_until(victim, numbers, seed, stop).await))
        .buffer_unordered(LANES);
    let mut tally = Tally {
        seeds: vec![seed],
        ..Tally::default()
    };
    let mut done = BTreeMap::<Victim, Kills>::new();
    while let Some((victim, part)) = parts.next().await {
        tally.failed += part.failed.len();
        tally.cases += part.done.len() + part.failed.len();
        tally.skipped += part.outstanding;
        done.entry(victim).or_default().append(part);
    }
    tally::print(&done);
    let in_pivot = done.get(&Victim::MachineInPivot);
    let enough = in_pivot.filter(|kills| kills.done.len() >= HITS_BOTH_SIDES);
    if let Some(Err(one_sided)) = enough.map(|kills| switch::sides(&kills.done)) {
        eprintln!("one side of the switch was never hit: {one_sided}");
        tally.failed += 1;
    }
    tally
}

/// The kills of these numbers, on one guest, or on another one after a kill that was followed by what
/// must not be. The number gives the moment, and with the seed the delay.
pub async fn run(victim: Victim, kills: Range<u32>, seed: u64) -> Kills {
    run_until(victim, kills, seed, &CancellationToken::new()).await
}

async fn run_until(
    victim: Victim,
    kills: Range<u32>,
    seed: u64,
    stop: &CancellationToken,
) -> Kills {
    let mut all = Kills {
        outstanding: kills.len(),
        ..Kills::default()
    };
    let mut random = SplitMix::of(seed);
    let mut on = None;
    for _ in 0..kills.start {
        random.next();
    }
    for number in kills {
        if stop.is_cancelled() {
            break;
        }
        let mut kill = Kill::default();
        let drawn = random.next();
        let done = match on.take() {
            Some(place) => Ok(place),
            None => begin(victim).await,
        };
        let done = match done {
            Ok(mut place) => {
                let done = one(&mut place, &mut kill, victim, number, drawn).await;
                if done.is_err() {
                    tell_what_was_said(&place.scene);
                }
                done.map(|()| on = Some(place))
            }
            Err(error) => Err(error),
        };
        all.outstanding -= 1;
        match done {
            Ok(()) => {
                eprintln!("{victim:?} {number}: {kill}");
                all.done.push(kill);
            }
            Err(error) => {
                let which = format!("{victim:?}, seed {seed}, kill {number}");
                let error = error.context(which);
                eprintln!("a promise was broken: {error:#}: {kill:?}");
                all.failed.push((kill, error));
            }
        }
        if all.failed.len() == MOST_FAILURES {
            break;
        }
    }
    all
}

/// The last words of the services, and of QEMU: their rig is about to go.
fn tell_what_was_said(scene: &Scene) {
    let services = [&scene.services.api, &scene.services.agent];
    let services = services.map(|service| service.log_text());
    for log in services.into_iter().chain([scene.rig.virsh().log("vm")]) {
        let lines: Vec<_> = log.lines().collect();
        eprintln!(
            "{}",
            lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
        );
    }
}

async fn begin(victim: Victim) -> Result<Place> {
    let scene = match victim {
        Victim::Exporter => return exporter::begin().await,
        Victim::AgentBesideNames => names::begin().await,
        Victim::Machine
        | Victim::Host
        | Victim::Libvirtd
        | Victim::Agent
        | Victim::AgentInPull
        | Victim::AgentOffline
        | Victim::Server => Scene::begin_with_daemon(&["vda"], WORKLOAD).await,
        Victim::MachineInPivot => Scene::begin_with_daemon_and_monitor(&["vda"], WORKLOAD).await,
        Victim::MachineBetweenDisks => Scene::begin_with_daemon(&["vda", "vdb"], WORKLOAD).await,
        Victim::AgentInPivot => Scene::begin(&["vda"], WORKLOAD).await,
        Victim::AgentAtStart => Scene::begin_with_monitor(&["vda"], WORKLOAD).await,
    };
    let objects = None;
    scene.map(|scene| Place { scene, objects })
}

async fn one(
    place: &mut Place,
    kill: &mut Kill,
    victim: Victim,
    number: u32,
    drawn: u64,
) -> Result<()> {
    let phase = PHASES[number as usize % PHASES.len()];
    let longest = match victim {
        Victim::MachineInPivot | Victim::AgentInPivot => IN_PIVOT_US,
        _ => DELAY_US,
    };
    *kill = Kill::after(Duration::from_micros(drawn % longest));
    let scene = &mut place.scene;
    match victim {
        Victim::Exporter => exporter::kill(place, kill, number, phase).await,
        Victim::Machine => machine::kill(scene, kill, number, phase).await,
        Victim::MachineInPivot => switch::kill(scene, kill, number).await,
        Victim::MachineBetweenDisks => disks::kill(scene, kill, number, phase).await,
        Victim::Host => host::kill(scene, kill, number, phase).await,
        Victim::Libvirtd => libvirtd::kill(scene, kill, number, phase).await,
        Victim::Server => server::kill(scene, kill, number, drawn).await,
        Victim::Agent => agent::kill(scene, kill, number, phase, Way::Commit).await,
        Victim::AgentInPull => agent::kill(scene, kill, number, phase, Way::Pull).await,
        Victim::AgentOffline => agent::kill(scene, kill, number, phase, Way::Offline).await,
        Victim::AgentBesideNames => names::kill(scene, kill, number, phase).await,
        Victim::AgentAtStart => start::kill(scene, kill, number, drawn).await,
        Victim::AgentInPivot => pivot::kill(scene, kill, number).await,
    }
}

/// Kills the machine, looks for every acknowledged record in the image that it would start from,
/// and starts it again. A running agent's libvirt is given away meanwhile.
async fn pull_the_plug(scene: &mut Scene, kill: &mut Kill) -> Result<()> {
    with_libvirt(scene)?;
    scene.kill_qemu()?;
    shut_off(scene).await?;
    nothing_lost(scene, kill).await?;
    scene.restart_guest().await
}

/// libvirt finds out by itself that the machine has died, in its own time.
async fn shut_off(scene: &Scene) -> Result<()> {
    let begun = Instant::now();
    while scene.rig.virsh().state(&scene.guest.spec.name)? != "shut off" {
        ensure!(
            begun.elapsed() < LIMIT,
            "libvirt sees no end of the machine"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Takes libvirt from the agent, if it is within it.
fn with_libvirt(scene: &mut Scene) -> Result<()> {
    match scene.rig.daemon() {
        Some(_) => Ok(()),
        None => scene.services.agent.stop(),
    }
}

/// Every acknowledged record is in the images from which the machine, which is dead, would start.
async fn nothing_lost(scene: &mut Scene, kill: &mut Kill) -> Result<()> {
    scene.guest.acks.catch_up().await?;
    for disk in scene.guest.spec.disks.clone() {
        let name = &scene.guest.spec.name;
        let image = scene.rig.virsh().next_image(name, &disk.target)?;
        let verdict = scene.look(&disk.target, image.as_ref())?;
        kill.count(&format!("{} of {image}", disk.target), &verdict)?;
    }
    Ok(())
}

/// A small generator that a seed fixes for ever.
#[derive(Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
