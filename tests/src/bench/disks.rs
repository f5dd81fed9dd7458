//! Four disks of one machine at once, beside the slowest of them alone.
//!
//! ```text
//!   4 disks, 64 MiB each │ DeleteSnapshot ──▶ all four volumes removed   records: 25 a second each
//!   1 disk,  64 MiB      │ DeleteSnapshot ──▶ its volume removed         records: 100 a second
//! ```
//! The layers are equally heavy, so that each disk is the slowest. It is done twice: with each job
//! limited to 64 MiB a second, as if each disk had storage of its own, which shows whether anything
//! waits for its turn; and without a limit, where the four also share one device of this machine and
//! one QEMU, which is as fast as these are.

use anyhow::Result;
use livemerge_proto::v1::MergeOptions;

use super::figures::{Comparison, Figures};
use super::ours::{self, Ours};
use super::{DISK, Region, WORKLOAD};
use crate::guest::domain::Workload;

const DISKS: [&str; 4] = [DISK, "vdb", "vdc", "vdd"];
const LAYER_MIB: u64 = 64;
const GOAL: f64 = 1.3;
/// What one job copies in a second, where it is limited: the limit of an operation is shared among
/// its disks.
const LIMIT_MIB: i64 = 32;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let shared = Workload {
        rate: WORKLOAD.rate / DISKS.len() as u64,
        ..WORKLOAD
    };
    let mut all = Ours::begin(&DISKS, shared).await?;
    let mut alone = Ours::begin(&DISKS[..1], WORKLOAD).await?;
    for (job_mib, each) in [
        (LIMIT_MIB, "each limited to 32 MiB/s"),
        (0, "without a limit, on one device"),
    ] {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for round in 0..=runs {
            let (four, one) = (
                merge(&mut all, job_mib * DISKS.len() as i64).await?,
                merge(&mut alone, job_mib).await?,
            );
            if round > 0 {
                ours.push(four);
                peer.push(one);
            }
        }
        figures.add(&Comparison {
            what: &format!("delete a snapshot of 4 disks, {LAYER_MIB} MiB each, {each}"),
            beside: "the same of 1 disk alone",
            goal: Some(GOAL),
            unit: "ms",
            ours: &ours,
            peer: &peer,
        });
    }
    Ok(())
}

/// In milliseconds, with so many MiB a second for all jobs together, or 0.
async fn merge(ours: &mut Ours, mib_per_second: i64) -> Result<f64> {
    let snapshot = ours.layer(Region::of(LAYER_MIB)).await?;
    let options = MergeOptions {
        bytes_per_second: mib_per_second << 20,
        ..ours::commit()
    };
    let (round, _) = ours.delete(&[snapshot], options).await?;
    Ok(round.ms())
}
