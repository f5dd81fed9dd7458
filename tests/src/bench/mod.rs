//! `make bench`: merges and calls beside their peers, as ratios.
//!
//! ```text
//!   for each benchmark: one round that is not counted, then some that are
//!     ours │ peer │ …   one after the other within a round, so that the machine's moods hit both
//!
//!   delete     one snapshot                / virsh blockcommit and rm, / raw QMP without a guest
//!   stall      the guest's longest wait    / virsh blockcommit --pivot
//!   batch      8 snapshots in one pass     / 8 x virsh blockcommit and rm
//!   direction  the way that copies less    / a commit
//!   lvm        100 logical volumes removed / one lvremove naming all
//!   disks      4 disks of one machine      / a machine with 1 disk
//!   file       a scattered file removed    / rm
//!   purge      a volume of many objects    / s5cmd, rclone and aws, on one S3 server
//!
//!   get        GetSnapshot                 / a bare server of tonic, the same answer
//!   accept     DeleteSnapshot, durable     / single-row commits of the SQLite library
//!   watches    2,000 watches               / 64 MiB, and 100 ms until a change is shown
//! ```
//! Ours and the peer's guest are twins that write records all the time. A ratio is the median of the
//! rounds' ratios. No figure decides a test.

mod accept;
mod batch;
mod delete;
mod direction;
mod disks;
pub mod echo;
mod figures;
mod file;
mod floor;
mod get;
mod lvm;
mod ours;
mod peer;
mod purge;
mod served;
mod stall;
mod steps;
mod watch;
mod watches;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::guest::domain::Workload;
use crate::qmp::Qmp;
use crate::rig::{Guest, Rig};
use figures::{Figures, Spread};

const DISK: &str = "vda";
const DISK_BYTES: u64 = 4 << 30;
/// Behind the records, and the same place each time, so that the base has it allocated.
const FILL_AT_MIB: u64 = 1024;
const LIMIT: Duration = Duration::from_secs(300);
/// A record each 10 ms, so that a stall of 20 ms is seen.
const WORKLOAD: Workload = Workload {
    slots: 256,
    fill_mib: 0,
    background_kib: 0,
    rate: 100,
};

/// One of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// One snapshot, beside virsh and beside raw QMP
    Delete,
    /// The guest's longest wait while a snapshot is deleted, beside virsh
    Stall,
    /// Eight snapshots that overlap, in one pass, beside virsh one by one: time and bytes written
    Batch,
    /// A light layer under a heavy one, pulled by free choice, beside a commit
    Direction,
    /// A hundred logical volumes removed in a virtual host, beside one lvremove
    Lvm,
    /// Four disks at once, beside one alone
    Disks,
    /// A scattered file removed, beside rm: time, a neighbour's longest wait, and the longest step
    File,
    /// A volume of many objects removed, beside s5cmd
    Purge,
    /// GetSnapshot, beside a bare server of tonic
    Get,
    /// DeleteSnapshot accepted durably, beside commits of the SQLite library
    Accept,
    /// Two thousand watches: memory, and how late a change is shown
    Watches,
}

impl Bench {
    async fn measure(self, runs: Option<usize>, figures: &mut Figures) -> Result<()> {
        match self {
            Self::Delete => Box::pin(delete::measure(runs.unwrap_or(7), figures)).await,
            Self::Stall => Box::pin(stall::measure(runs.unwrap_or(15), figures)).await,
            Self::Batch => Box::pin(batch::measure(runs.unwrap_or(7), figures)).await,
            Self::Direction => Box::pin(direction::measure(runs.unwrap_or(5), figures)).await,
            Self::File => file::measure(runs.unwrap_or(5), figures).await,
            Self::Lvm => Box::pin(lvm::measure(runs.unwrap_or(5), figures)).await,
            Self::Disks => Box::pin(disks::measure(runs.unwrap_or(7), figures)).await,
            Self::Purge => Box::pin(purge::measure(runs.unwrap_or(5), figures)).await,
            Self::Get => Box::pin(get::measure(runs.unwrap_or(7), figures)).await,
            Self::Accept => Box::pin(accept::measure(runs.unwrap_or(7), figures)).await,
            Self::Watches => Box::pin(watches::measure(runs.unwrap_or(5), figures)).await,
        }
    }
}

/// Measures, all of them where none is named, prints a table and writes the figures to `json`.
/// `runs` is how many rounds are counted, where it shall not be what each benchmark takes by itself.
pub async fn run(benches: &[Bench], runs: Option<usize>, json: &Path) -> Result<()> {
    let all = Bench::value_variants();
    let benches = if benches.is_empty() { all } else { benches };
    let mut figures = Figures::new();
    for bench in benches {
        bench.measure(runs, &mut figures).await?;
        // Whoever stops it half-way has what was measured.
        figures.write(json)?;
    }
    figures.print();
    Ok(())
}

/// A guest that writes, with a monitor through which its disks are filled.
async fn boot(disks: &[&str], workload: Workload) -> Result<(Rig, Guest, Qmp)> {
    let rig = Rig::new()?;
    let mut spec = rig.describe("bench", disks, DISK_BYTES, workload)?;
    let socket = rig.path().join("monitor");
    spec.monitor = Some(socket.clone());
    let guest = rig.start(spec)?;
    for disk in disks {
        guest.acks.wait_for(disk, 20, LIMIT).await?;
    }
    let monitor = Qmp::connect(&socket)?;
    Ok((rig, guest, monitor))
}

/// A region of a disk, in MiB.
#[derive(Debug, Clone, Copy)]
struct Region {
    at: u64,
    mib: u64,
}

impl Region {
    /// As the benchmarks use it that need only one.
    fn of(mib: u64) -> Self {
        let at = FILL_AT_MIB;
        Self { at, mib }
    }
}

/// Fills a region of the active layer of a guest's disk, by the disk's place among the guest's.
fn fill(monitor: &mut Qmp, disk: usize, overlay: &Path, region: Region) -> Result<()> {
    let device = format!("/machine/peripheral/virtio-disk{disk}/virtio-backend");
    monitor.write_through(&device, region.at, region.mib)?;
    let allocated = std::fs::metadata(overlay)?.blocks() * 512;
    ensure!(
        allocated >= region.mib << 20,
        "{} holds {allocated} bytes, not {} MiB",
        overlay.display(),
        region.mib
    );
    Ok(())
}

/// The middle of the values.
fn median(values: &[f64]) -> f64 {
    Spread::of(values).median
}
