//! `make bench`: how long deleting a snapshot takes, beside its peers, in one run.
//!
//! ```text
//!   for each size:  one round that is not counted, then RUNS rounds of
//!     ours  │ DeleteSnapshot ──▶ volume removed              both services, durable record
//!     peer  │ virsh blockcommit --active --pivot --wait; rm  in a virsh that is already open
//!     floor │ block-commit, job-complete; unlink             a storage daemon, no guest
//! ```
//! Ours and the peer's guest are twins that write records all the time. A ratio is the median of the
//! rounds' ratios. No figure decides a test.

mod figures;
mod floor;
mod ours;
mod peer;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::guest::domain::Workload;
use crate::qmp::Qmp;
use crate::rig::{Guest, Rig};
use figures::{Figures, Spread};

const SIZES_MIB: [u64; 3] = [1, 64, 1024];
const RUNS: usize = 7;
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

/// One merge.
#[derive(Debug, Clone, Copy)]
struct Round {
    took: Duration,
    stall: Duration,
}

/// All rounds of one size, in order.
#[derive(Debug, Default)]
struct Rounds {
    ours: Vec<Round>,
    peer: Vec<Round>,
    floor: Vec<Duration>,
}

/// Measures, prints a table and writes `target/bench.json`.
pub async fn run() -> Result<()> {
    let mut ours = ours::Ours::begin().await?;
    let mut peer = peer::Peer::begin().await?;
    let mut floor = floor::Floor::begin()?;
    let commit = floor::durable_commit(101).await?;
    let mut figures = Figures::new(commit);
    for mib in SIZES_MIB {
        let mut rounds = Rounds::default();
        for _ in 0..=RUNS {
            rounds.ours.push(ours.round(mib).await?);
            rounds.peer.push(peer.round(mib).await?);
            rounds.floor.push(floor.round(mib)?);
        }
        figures.add(mib, &rounds.counted());
    }
    figures.print();
    figures.write(Path::new("target/bench.json"))
}

impl Rounds {
    /// Without the first round, which allocates the base and warms the caches.
    fn counted(mut self) -> Self {
        self.ours.remove(0);
        self.peer.remove(0);
        self.floor.remove(0);
        self
    }
}

/// A guest that writes, with a monitor through which its disk is filled.
async fn boot() -> Result<(Rig, Guest, Qmp)> {
    let rig = Rig::new()?;
    let mut spec = rig.describe("bench", &[DISK], DISK_BYTES, WORKLOAD)?;
    let socket = rig.path().join("monitor");
    spec.monitor = Some(socket.clone());
    let guest = rig.start(spec)?;
    guest.acks.wait_for(DISK, 20, LIMIT).await?;
    let monitor = Qmp::connect(&socket)?;
    Ok((rig, guest, monitor))
}

/// Fills the active layer.
fn fill(monitor: &mut Qmp, overlay: &Path, mib: u64) -> Result<()> {
    monitor.write_through(
        "/machine/peripheral/virtio-disk0/virtio-backend",
        FILL_AT_MIB,
        mib,
    )?;
    let allocated = std::fs::metadata(overlay)?.blocks() * 512;
    ensure!(
        allocated >= mib << 20,
        "{} holds {allocated} bytes, not {mib} MiB",
        overlay.display()
    );
    Ok(())
}

/// The middle of the values.
fn median(values: &[f64]) -> f64 {
    Spread::of(values).median
}
