//! One snapshot of one disk, light and heavy.
//!
//! ```text
//!   ours  │ DeleteSnapshot ──▶ volume removed              both services, durable record
//!   peer  │ virsh blockcommit --active --pivot --wait; rm  in a virsh that is already open
//!   floor │ block-commit, job-complete; unlink             a storage daemon, no guest
//! ```

use anyhow::Result;

use super::figures::{Comparison, Figures};
use super::floor::{self, Floor};
use super::ours::Ours;
use super::peer::Peer;
use super::watch::Round;
use super::{DISK, WORKLOAD};

const SIZES_MIB: [u64; 3] = [1, 64, 1024];
/// The goal against the floor, after two durable commits are taken off.
const GOAL_AGAINST_FLOOR: f64 = 1.2;
const COMMITS: usize = 101;

/// The goal against virsh, by size in MiB.
fn goal_against_virsh(mib: u64) -> f64 {
    if mib < 1024 { 0.5 } else { 1.05 }
}

/// All rounds of one size, in order.
#[derive(Default)]
struct Rounds {
    ours: Vec<Round>,
    peer: Vec<Round>,
    floor_ms: Vec<f64>,
}

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let mut ours = Ours::begin(&[DISK], WORKLOAD).await?;
    let mut peer = Peer::begin(WORKLOAD).await?;
    let mut floor = Floor::begin()?;
    let commit_ms = floor::durable_commit(COMMITS).await?.as_secs_f64() * 1000.0;
    for mib in SIZES_MIB {
        let mut rounds = Rounds::default();
        for round in 0..=runs {
            let ours = ours.round(mib).await?;
            let peer = peer.round(mib).await?;
            let floor = floor.round(mib)?;
            // The first allocates the base and warms the caches.
            if round > 0 {
                rounds.ours.push(ours);
                rounds.peer.push(peer);
                rounds.floor_ms.push(floor.as_secs_f64() * 1000.0);
            }
        }
        rounds.tell(mib, commit_ms, figures);
    }
    figures.note(format!(
        "One durable commit of the record takes {commit_ms:.1} ms; the ratio to raw QMP is without \
         two of them."
    ));
    Ok(())
}

impl Rounds {
    fn tell(&self, mib: u64, commit_ms: f64, figures: &mut Figures) {
        let ours: Vec<f64> = self.ours.iter().map(Round::ms).collect();
        let peer: Vec<f64> = self.peer.iter().map(Round::ms).collect();
        figures.add(&Comparison {
            what: &format!("delete a snapshot of {mib} MiB"),
            beside: "virsh blockcommit --active --pivot --wait and rm",
            goal: Some(goal_against_virsh(mib)),
            unit: "ms",
            ours: &ours,
            peer: &peer,
        });
        let bare: Vec<f64> = ours.iter().map(|took| took - 2.0 * commit_ms).collect();
        figures.add(&Comparison {
            what: &format!("delete a snapshot of {mib} MiB, less two durable commits"),
            beside: "the same by raw QMP",
            goal: Some(GOAL_AGAINST_FLOOR),
            unit: "ms",
            ours: &bare,
            peer: &self.floor_ms,
        });
        let ours: Vec<f64> = self.ours.iter().map(Round::stall_ms).collect();
        let peer: Vec<f64> = self.peer.iter().map(Round::stall_ms).collect();
        figures.add(&Comparison {
            what: &format!("the guest's longest wait in it, {mib} MiB"),
            beside: "virsh blockcommit",
            goal: None,
            unit: "ms",
            ours: &ours,
            peer: &peer,
        });
    }
}
