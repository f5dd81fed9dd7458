//! How long one step of freeing a file takes, seen from outside: a file system notes the new size at once
//! and lets the size be changed again when the room behind it is free.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between two looks at the file: what a step may seem shorter or longer by.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Looks at a file that is being freed, until it is told to end.
pub(super) struct Steps {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<std::io::Result<Duration>>,
}

impl Steps {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let looks = std::thread::spawn(move || longest(&file, &stopped));
        Ok(Self { stop, looks })
    }

    /// The longest step.
    pub(super) fn end(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.looks.join();
        Ok(longest.map_err(|_| anyhow!("whoever looks at the file has died"))??)
    }
}

/// The longest time from one change of the size to the next one, or to the end of the last piece.
fn longest(file: &File, stopped: &AtomicBool) -> std::io::Result<Duration> {
    let mut size = file.metadata()?.len();
    let (mut begun, mut longest) = (None::<Instant>, Duration::ZERO);
    while !stopped.load(Ordering::Relaxed) {
        let now = file.metadata()?;
        let all_free = now.len() == 0 && now.blocks() == 0;
        if now.len() != size || all_free {
            longest = longest.max(begun.map_or(Duration::ZERO, |begun| begun.elapsed()));
            (size, begun) = (now.len(), Some(Instant::now()));
        }
        if all_free {
            return Ok(longest);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(begun.map_or(longest, |begun| longest.max(begun.elapsed())))
}
