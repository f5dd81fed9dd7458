//! The removal of a scattered file, beside `rm`.
//!
//! ```text
//!   100,000 pieces of 4 KiB with as large holes between them, written out and out of the cache
//!     ours  FileStore: condemned, cut off step by step, unlinked
//!     peer  rm
//!   a neighbour on the same file system writes 4 KiB and fsyncs all the while: its longest wait
//!   somebody looks at the file's size all the while: the longest step of freeing it
//! ```

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use livemerge_storage::{FileStore, RemovalId, RemovalOrder, RemovalState, VolumeStore as _};
use uuid::Uuid;

use super::figures::{Comparison, Figures};
use super::steps::Steps;
use crate::rig::Rig;

const PIECES: u64 = 100_000;
const PIECE: usize = 4096;
const GOAL: f64 = 1.1;
/// Of the neighbour's longest wait.
const GOAL_OF_WAIT: f64 = 0.1;
/// The longest that one step of a removal should hold the file system, in milliseconds.
const STEP_MS: f64 = 50.0;

/// How long a removal took, the neighbour's longest wait meanwhile, and its longest step, in
/// milliseconds.
#[derive(Debug, Clone, Copy)]
struct Round {
    took_ms: f64,
    wait_ms: f64,
    /// Not known of `rm`: whoever has the file open to look at it keeps `rm` from freeing it.
    step_ms: Option<f64>,
}

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let rig = Rig::new()?;
    let dir = rig.images();
    let store = FileStore::open("bench".parse()?, &dir).await?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let by_us = removed_by(&dir, "ours.raw", true, async |_| remove(&store).await).await?;
        let by_rm = removed_by(&dir, "peer.raw", false, async |path| rm(&path).await).await?;
        if round > 0 {
            ours.push(by_us);
            peer.push(by_rm);
        }
    }
    let mut tell = |what: &str, goal, value: fn(&Round) -> f64| {
        let ours: Vec<f64> = ours.iter().map(value).collect();
        let peer: Vec<f64> = peer.iter().map(value).collect();
        figures.add(&Comparison {
            what: &format!("{what} a file of {PIECES} pieces"),
            beside: "rm",
            goal: Some(goal),
            unit: "ms",
            ours: &ours,
            peer: &peer,
        });
    };
    tell("remove", GOAL, |round| round.took_ms);
    tell(
        "a neighbour's longest fsync during the removal of",
        GOAL_OF_WAIT,
        |round| round.wait_ms,
    );
    let steps: Vec<f64> = ours.iter().filter_map(|round| round.step_ms).collect();
    figures.add(&Comparison {
        what: &format!("the longest step of removing a file of {PIECES} pieces"),
        beside: "the longest that it should take",
        goal: Some(1.0),
        unit: "ms",
        ours: &steps,
        peer: &vec![STEP_MS; steps.len()],
    });
    Ok(())
}

async fn removed_by(
    dir: &Path,
    name: &str,
    watched: bool,
    remove: impl AsyncFnOnce(PathBuf) -> Result<()>,
) -> Result<Round> {
    let path = dir.join(name);
    scatter(&path)?;
    let neighbour = Neighbour::begin(dir)?;
    let steps = watched.then(|| Steps::of(&path)).transpose()?;
    let begun = Instant::now();
    remove(path.clone()).await?;
    let took = begun.elapsed();
    let step = steps.map(Steps::end).transpose()?;
    let wait = neighbour.end()?;
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(Round {
        took_ms: took.as_secs_f64() * 1000.0,
        wait_ms: wait.as_secs_f64() * 1000.0,
        step_ms: step.map(|step| step.as_secs_f64() * 1000.0),
    })
}

async fn remove(store: &FileStore) -> Result<()> {
    let name = "ours.raw".parse().map_err(|error| anyhow!("{error}"))?;
    let identity = store.stat(&name).await?.identity;
    let order = RemovalOrder::new(RemovalId::from(Uuid::new_v4()), name, identity);
    let removal = store.remove(&order).await?;
    ensure!(removal.state == RemovalState::Gone, "{removal:?}");
    Ok(())
}

async fn rm(path: &Path) -> Result<()> {
    let mut rm = Command::new("rm");
    rm.arg("--").arg(path);
    let removed = tokio::task::spawn_blocking(move || rm.status()).await??;
    ensure!(removed.success(), "rm: {removed}");
    // Both leave nothing to be written out.
    let dir = File::open(path.parent().unwrap_or(Path::new("/")))?;
    tokio::task::spawn_blocking(move || dir.sync_all()).await??;
    Ok(())
}

/// Every second piece of a file, each an extent of its own, on the device and out of the cache.
fn scatter(path: &Path) -> Result<()> {
    let file = File::create_new(path)?;
    let piece = vec![7; PIECE];
    for number in 0..PIECES {
        file.write_all_at(&piece, number * 2 * PIECE as u64)?;
    }
    file.sync_all()?;
    drop(file);
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    Ok(())
}

/// Somebody else who writes on the same file system.
struct Neighbour {
    stop: Arc<AtomicBool>,
    writes: JoinHandle<std::io::Result<Duration>>,
}

impl Neighbour {
    fn begin(dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writes = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                file.write_all_at(&[1; PIECE], 0)?;
                let begun = Instant::now();
                file.sync_all()?;
                longest = longest.max(begun.elapsed());
            }
            Ok(longest)
        });
        // It is at work before the removal begins.
        std::thread::sleep(Duration::from_millis(50));
        Ok(Self { stop, writes })
    }

    fn end(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self
            .writes
            .join()
            .map_err(|_| anyhow!("the neighbour has died"))?;
        Ok(longest?)
    }
}
