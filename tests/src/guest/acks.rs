//! Which writes the guest was told are safe, and when the host heard of it.
//!
//! A thread of its own follows the serial console and takes the host's time of each line as it
//! arrives: a suspended guest's own clock stands still. The longest gap between two acknowledgements
//! is the stall that the guest's application saw; it is exact to about a millisecond.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

pub use super::console::Acknowledged;
use super::console::{Console, Disk, Lines};

const POLL: Duration = Duration::from_millis(1);
const CATCH_UP: Duration = Duration::from_secs(10);

/// A moment to measure gaps from.
#[derive(Debug, Clone, Copy)]
pub struct Mark(Instant);

/// Follows a serial console until it is dropped.
#[derive(Debug)]
pub struct AckLog {
    path: PathBuf,
    console: watch::Receiver<Console>,
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

impl AckLog {
    /// Follows the file, which need not exist yet, from its beginning.
    pub fn follow(serial_log: &Path) -> Result<Self> {
        let (sender, console) = watch::channel(Console::default());
        let stop = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            path: serial_log.to_owned(),
            stop: stop.clone(),
            sender,
        };
        let follower = thread::Builder::new()
            .name("serial console".into())
            .spawn(move || follower.run())
            .context("starting the thread that follows the serial console")?;
        Ok(Self {
            path: serial_log.to_owned(),
            console,
            stop,
            follower: Some(follower),
        })
    }

    /// What was acknowledged of a disk (`vda`) up to now.
    pub fn acknowledged(&self, disk: &str) -> Acknowledged {
        self.disk(disk, |disk| disk.acknowledged.clone())
    }

    /// The newest acknowledged record of a disk.
    pub fn newest(&self, disk: &str) -> Option<u64> {
        self.disk(disk, |disk| disk.acknowledged.newest)
    }

    /// How many acknowledgements of a disk have arrived.
    pub fn count(&self, disk: &str) -> u64 {
        self.disk(disk, |disk| disk.arrivals.len() as u64)
    }

    /// How many writes of records the disk has refused; each was tried again.
    pub fn errors(&self, disk: &str) -> u64 {
        self.disk(disk, |disk| disk.errors)
    }

    /// Whether the guest has written its fill behind the slots of a disk.
    pub fn is_filled(&self, disk: &str) -> bool {
        self.disk(disk, |disk| disk.filled)
    }

    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark(Instant::now())
    }

    /// The longest time between two acknowledgements of a disk, from the first on.
    pub fn longest_gap(&self, disk: &str) -> Duration {
        self.disk(disk, |disk| longest(&disk.arrivals))
    }

    /// The longest time between two acknowledgements since the mark. The gap that the mark falls
    /// into counts whole, and so does the one that is still open.
    pub fn longest_gap_since(&self, disk: &str, mark: Mark) -> Duration {
        self.disk(disk, |disk| {
            let first = disk
                .arrivals
                .partition_point(|at| *at < mark.0)
                .saturating_sub(1);
            let mut arrivals = disk.arrivals[first..].to_vec();
            arrivals.push(Instant::now());
            longest(&arrivals)
        })
    }

    /// Waits until record `number` of a disk is acknowledged.
    pub async fn wait_for(&self, disk: &str, number: u64, limit: Duration) -> Result<()> {
        let what = format!("record {number} of {disk} to be acknowledged");
        self.wait(&what, limit, |console| {
            let newest = console
                .disks
                .get(disk)
                .and_then(|disk| disk.acknowledged.newest);
            newest >= Some(number)
        })
        .await
    }

    /// Waits until `count` more records of a disk are acknowledged.
    pub async fn wait_for_more(&self, disk: &str, count: u64, limit: Duration) -> Result<()> {
        let next = self.newest(disk).map_or(0, |newest| newest + 1);
        self.wait_for(disk, next + count.saturating_sub(1), limit)
            .await
    }

    /// Waits until the guest has written its fill on a disk.
    pub async fn wait_for_fill(&self, disk: &str, limit: Duration) -> Result<()> {
        let filled = |console: &Console| console.disks.get(disk).is_some_and(|disk| disk.filled);
        self.wait(&format!("the fill of {disk}"), limit, filled)
            .await
    }

    /// Waits until everything that the guest has said is heard: when it has just been killed, the
    /// last acknowledgements may still lie in the file.
    pub async fn catch_up(&self) -> Result<()> {
        let said =
            std::fs::metadata(&self.path).with_context(|| self.path.display().to_string())?;
        let heard = |console: &Console| console.read_bytes >= said.len();
        self.wait("the end of the serial console", CATCH_UP, heard)
            .await
    }

    async fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut until: impl FnMut(&Console) -> bool,
    ) -> Result<()> {
        let mut console = self.console.clone();
        let ready = console.wait_for(|console| console.failed.is_some() || until(console));
        let seen = tokio::time::timeout(limit, ready).await;
        let seen = seen.with_context(|| format!("waited {limit:?} for {what}"))?;
        match &seen
            .context("the serial console is not followed any more")?
            .failed
        {
            Some(why) => bail!("the serial console cannot be read: {why}"),
            None => Ok(()),
        }
    }

    fn disk<T: Default>(&self, name: &str, look: impl FnOnce(&Disk) -> T) -> T {
        self.console
            .borrow()
            .disks
            .get(name)
            .map(look)
            .unwrap_or_default()
    }
}

impl Drop for AckLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(follower) = self.follower.take() {
            // A follower that panicked has said so on standard error.
            let _ = follower.join();
        }
    }
}

fn longest(arrivals: &[Instant]) -> Duration {
    arrivals
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default()
}

struct Follower {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    sender: watch::Sender<Console>,
}

impl Follower {
    fn run(&self) {
        if let Err(error) = self.follow() {
            self.sender
                .send_modify(|console| console.failed = Some(error.to_string()));
        }
    }

    fn follow(&self) -> std::io::Result<()> {
        let Some(mut file) = self.open()? else {
            return Ok(());
        };
        let mut lines = Lines::default();
        let mut bytes = [0; 4096];
        loop {
            // Asked before the read: what is there when the log is dropped is still read.
            let last = self.stop.load(Ordering::Relaxed);
            let count = file.read(&mut bytes)?;
            if count > 0 {
                let now = Instant::now();
                let lines = lines.take(&bytes[..count]);
                self.sender.send_modify(|console| {
                    console.read_bytes += count as u64;
                    lines.iter().for_each(|line| console.hear(line, now));
                });
            } else if last {
                return Ok(());
            } else {
                thread::sleep(POLL);
            }
        }
    }

    /// The file, as soon as QEMU has made it; nothing when the log was dropped before.
    fn open(&self) -> std::io::Result<Option<File>> {
        while !self.stop.load(Ordering::Relaxed) {
            match File::open(&self.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => thread::sleep(POLL),
                opened => return opened.map(Some),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_growing_file_is_followed_and_its_gaps_are_measured() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("serial");
        let log = AckLog::follow(&path)?;
        let mut file = File::create(&path)?;
        writeln!(file, "RESUME vda 0\r\nACK vda 0\r")?;
        log.wait_for("vda", 0, LIMIT).await?;
        thread::sleep(Duration::from_millis(60));
        writeln!(file, "ACK vda 1\r\nFILLED vda\r")?;
        log.wait_for_fill("vda", LIMIT).await?;
        assert!(log.longest_gap("vda") >= Duration::from_millis(55));

        let mark = log.mark();
        for number in 2..5 {
            thread::sleep(Duration::from_millis(2));
            writeln!(file, "ACK vda {number}\r")?;
        }
        log.wait_for("vda", 4, LIMIT).await?;
        assert!(log.longest_gap_since("vda", mark) < log.longest_gap("vda"));
        assert_eq!((log.count("vda"), log.newest("vda")), (5, Some(4)));
        Ok(())
    }

    #[tokio::test]
    async fn waiting_ends_at_its_limit_and_says_for_what() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = AckLog::follow(&dir.path().join("serial"))?;
        let waited = log.wait_for("vdb", 3, Duration::from_millis(20)).await;
        let said = waited.err().map(|error| error.to_string());
        assert_eq!(
            said.as_deref(),
            Some("waited 20ms for record 3 of vdb to be acknowledged")
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_console_that_cannot_be_read_is_an_error() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = AckLog::follow(dir.path())?;
        let waited = log.wait_for("vda", 0, LIMIT).await;
        let said = waited
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            said.starts_with("the serial console cannot be read"),
            "{said}"
        );
        Ok(())
    }
}
