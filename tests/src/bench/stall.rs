//! What the guest notices: the longest time between two acknowledged writes of a guest that writes
//! as fast as it can, from the command to the end of a light merge, so that the pivot is most of it.
//!
//! By default the guest stands still while it is switched, so that a death of QEMU leaves no doubt; virsh
//! lets it run. So both ways of ours are measured.

use anyhow::Result;

use super::figures::{Comparison, Figures};
use super::ours::Ours;
use super::peer::Peer;
use super::watch::Round;
use super::{DISK, WORKLOAD};
use crate::guest::domain::Workload;

const MIB: u64 = 1;
const GOAL: f64 = 1.0;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    for (pivot, how) in [
        ("suspended", "while it stands still for the switch"),
        ("running", "while it runs on, as virsh lets it"),
    ] {
        with(pivot, how, runs, figures).await?;
    }
    Ok(())
}

async fn with(pivot: &str, how: &str, runs: usize, figures: &mut Figures) -> Result<()> {
    let workload = Workload {
        rate: 0,
        ..WORKLOAD
    };
    let mut ours = Ours::begin_set(&[DISK], workload, &format!("merge.pivot={pivot}")).await?;
    let mut peer = Peer::begin(workload).await?;
    let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for _ in 0..=runs {
        our_rounds.push(ours.round(MIB).await?);
        peer_rounds.push(peer.round(MIB).await?);
    }
    let stalls =
        |rounds: &[Round]| -> Vec<f64> { rounds.iter().skip(1).map(Round::stall_ms).collect() };
    figures.add(&Comparison {
        what: &format!("the guest's longest wait while a snapshot of {MIB} MiB is deleted {how}"),
        beside: "virsh blockcommit --active --pivot --wait",
        goal: Some(GOAL),
        unit: "ms",
        ours: &stalls(&our_rounds),
        peer: &stalls(&peer_rounds),
    });
    Ok(())
}
