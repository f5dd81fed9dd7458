//! Eight snapshots in one pass, beside one by one.
//!
//! ```text
//!   base      ────────────────────────────
//!   layer 1   ████████                       each rewrites 64 MiB, 8 MiB further on:
//!   layer 2    ████████                      512 MiB in all, 120 MiB of different places
//!      …          …
//!   layer 8          ████████                the guest writes here
//! ```
//! Ours commits all layers in one job. virsh commits them one by one, oldest first, where each layer
//! is copied once; the other way round it would copy more. Both are told to commit, and leave the
//! base alone. What is written is what the kernel counts for the QEMU process (`write_bytes`),
//! of both alike.

use anyhow::Result;

use super::figures::{Comparison, Figures};
use super::ours::{self, Ours};
use super::peer::Peer;
use super::watch::Round;
use super::{DISK, FILL_AT_MIB, Region, WORKLOAD};

const LAYERS: u64 = 8;
const LAYER_MIB: u64 = 64;
const STEP_MIB: u64 = 8;
const GOAL: f64 = 0.3;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let mut ours = Ours::begin(&[DISK], WORKLOAD).await?;
    let mut peer = Peer::begin(WORKLOAD).await?;
    let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let (ours, peer) = (in_one_pass(&mut ours).await?, one_by_one(&mut peer).await?);
        if round > 0 {
            our_rounds.push(ours);
            peer_rounds.push(peer);
        }
    }
    let mut tell = |what: &str, unit: &'static str, value: fn(&Round) -> f64| {
        let ours: Vec<f64> = our_rounds.iter().map(value).collect();
        let peer: Vec<f64> = peer_rounds.iter().map(value).collect();
        figures.add(&Comparison {
            what: &format!("{what} {LAYERS} overlapping snapshots of {LAYER_MIB} MiB in one pass"),
            beside: &format!("{LAYERS} x virsh blockcommit --wait and rm"),
            goal: Some(GOAL),
            unit,
            ours: &ours,
            peer: &peer,
        });
    };
    tell("delete", "ms", Round::ms);
    tell("bytes written to delete", "MiB", Round::written_mib);
    Ok(())
}

fn regions() -> impl Iterator<Item = Region> {
    (0..LAYERS).map(|layer| Region {
        at: FILL_AT_MIB + layer * STEP_MIB,
        mib: LAYER_MIB,
    })
}

async fn in_one_pass(ours: &mut Ours) -> Result<Round> {
    let mut snapshots = Vec::new();
    for region in regions() {
        snapshots.push(ours.layer(region).await?);
    }
    Ok(ours.delete(&snapshots, ours::commit()).await?.0)
}

async fn one_by_one(peer: &mut Peer) -> Result<Round> {
    let layers: Result<Vec<_>> = regions().map(|region| peer.layer(region)).collect();
    peer.merge(&layers?).await
}
