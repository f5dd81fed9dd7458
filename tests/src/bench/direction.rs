//! A light layer under a heavy one, merged the way that copies less, beside a commit.
//!
//! ```text
//!   base ◀── 64 MiB ◀── 2 GiB, active        the snapshot between the last two is deleted:
//!                └── pull ──▶                   64 MiB go up, by free choice
//!                ◀── commit ──┘                 2 GiB go down, when a commit is asked for
//! ```
//! Both are ours, of one guest. The base holds the records and stays out of both; the rest of the
//! chain is put away between the rounds, uncounted.

use anyhow::{Result, ensure};
use livemerge_proto::v1::{MergeDirection, MergeKind};

use super::figures::{Comparison, Figures};
use super::ours::{Ours, towards};
use super::watch::Round;
use super::{DISK, FILL_AT_MIB, Region, WORKLOAD};

const LIGHT: Region = Region {
    at: FILL_AT_MIB,
    mib: 64,
};
const HEAVY: Region = Region {
    at: LIGHT.at + LIGHT.mib,
    mib: 2048,
};
const GOAL: f64 = 0.15;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let mut ours = Ours::begin(&[DISK], WORKLOAD).await?;
    let (mut free, mut commit) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let free_choice = merge(&mut ours, MergeDirection::Unspecified, MergeKind::Pull).await?;
        let asked = merge(&mut ours, MergeDirection::Commit, MergeKind::ActiveCommit).await?;
        if round > 0 {
            free.push(free_choice);
            commit.push(asked);
        }
    }
    let mut tell = |what: &str, unit: &'static str, goal, value: fn(&Round) -> f64| {
        let ours: Vec<f64> = free.iter().map(value).collect();
        let peer: Vec<f64> = commit.iter().map(value).collect();
        figures.add(&Comparison {
            what: &format!(
                "{what} a layer of {} MiB under one of {} MiB by free choice",
                LIGHT.mib, HEAVY.mib
            ),
            beside: "the same by commit only",
            goal,
            unit,
            ours: &ours,
            peer: &peer,
        });
    };
    tell("merge", "ms", Some(GOAL), Round::ms);
    tell("bytes written to merge", "MiB", None, Round::written_mib);
    Ok(())
}

async fn merge(ours: &mut Ours, direction: MergeDirection, expected: MergeKind) -> Result<Round> {
    let below = ours.layer(LIGHT).await?;
    let between = ours.layer(HEAVY).await?;
    let (round, done) = ours.delete(&[between], towards(direction)).await?;
    let kinds: Vec<MergeKind> = done.disks.iter().map(|disk| disk.kind()).collect();
    ensure!(kinds == [expected], "{direction:?} became {kinds:?}");
    // The new base has shadowed nearly all of the old one, so that a pull is soon done.
    ours.delete(&[below], towards(MergeDirection::Pull)).await?;
    Ok(round)
}
