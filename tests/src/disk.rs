//! A disk of which a sector can go bad and become good again, or which becomes slow, and a file
//! system on it.
//!
//! ```text
//!   guest's images
//!   ext4                    mounted by the rig
//!   loop device             over RIG/disk/device, a file in FUSE
//!   qemu-storage-daemon     device ─ raw ─┬─ file                     good
//!                                         ├─ blkdebug (EIO) ─ file    bad
//!                                         └─ throttle ─ file          slow
//!   RIG/disk/bytes
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::filesystem::SmallFileSystem;
use crate::process::run;
use crate::qmp::Qmp;

/// The node that the device shows.
const DEVICE: &str = "device";
/// The nodes that it is put over.
const GOOD: &str = "good";
const BAD: &str = "bad";
const SLOW: &str = "slow";
/// What bounds the slow one.
const BOUNDS: &str = "bounds";

/// Works as long as it lives.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    daemon: Child,
    monitor: Qmp,
}

impl Disk {
    /// Makes one in this directory, which is its own, with an empty file system on it.
    pub(crate) fn start(dir: PathBuf, mib: u64) -> Result<Self> {
        fs::create_dir(&dir)?;
        let bytes = dir.join("bytes");
        SmallFileSystem::make(&bytes, mib)?;
        let (socket, device) = (dir.join("monitor"), dir.join("device"));
        File::create(&device)?;
        let node = |node: Value| node.to_string();
        let good = json!({ "driver": "file", "node-name": GOOD, "filename": bytes });
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node(good)])
            .args(["--blockdev", &node(over(GOOD))])
            .arg("--chardev")
            .arg(format!(
                "socket,id=m,path={},server=on,wait=off",
                socket.display()
            ))
            .args(["--monitor", "chardev=m"])
            .arg("--export")
            .arg(format!(
                "fuse,id=e,node-name={DEVICE},mountpoint={},writable=on",
                device.display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .context("starting qemu-storage-daemon")?;
        // It makes its monitor first, and answers there when the export is up.
        let monitor = Qmp::connect(&socket)?;
        Ok(Self {
            dir,
            daemon,
            monitor,
        })
    }

    /// The file that shows it.
    pub(crate) fn device(&self) -> PathBuf {
        self.dir.join("device")
    }

    /// From now on a write that touches one of the sectors of this file fails with EIO: the one in
    /// the middle of its longest extent.
    pub fn spoil(&mut self, file: &Path) -> Result<()> {
        self.fail("write", middle_sector(file)?)
    }

    /// From now on a read of that sector fails with EIO: nothing that was read before is remembered.
    pub fn make_unreadable(&mut self, file: &Path) -> Result<()> {
        let sector = middle_sector(file)?;
        for cached in [file, &self.device()] {
            let cached = File::open(cached)?;
            cached.sync_all()?;
            fadvise(&cached, 0, None, Advice::DontNeed)?;
        }
        self.fail("read", sector)
    }

    fn fail(&mut self, kind: &str, sector: u64) -> Result<()> {
        let rule = json!({
            "event": "none", "iotype": kind, "errno": 5, "sector": sector,
        });
        let bad = json!({
            "driver": "blkdebug", "node-name": BAD, "image": GOOD, "inject-error": [rule],
        });
        self.monitor.execute("blockdev-add", &bad)?;
        self.put_over(BAD)
    }

    /// From now on it takes no more than so many bytes a second.
    pub fn slow_down(&mut self, bytes_per_second: u64) -> Result<()> {
        let bounds = json!({
            "qom-type": "throttle-group", "id": BOUNDS,
            "limits": { "bps-write": bytes_per_second },
        });
        self.monitor.execute("object-add", &bounds)?;
        let slow = json!({
            "driver": "throttle", "node-name": SLOW, "throttle-group": BOUNDS, "file": GOOD,
        });
        self.monitor.execute("blockdev-add", &slow)?;
        self.put_over(SLOW)
    }

    /// From now on it is as fast as it was.
    pub fn speed_up(&mut self) -> Result<()> {
        self.put_over(GOOD)?;
        let (node, bounds) = (json!({ "node-name": SLOW }), json!({ "id": BOUNDS }));
        self.monitor.execute("blockdev-del", &node)?;
        self.monitor.execute("object-del", &bounds).map(drop)
    }

    /// All sectors are good again.
    pub fn heal(&mut self) -> Result<()> {
        self.put_over(GOOD)?;
        self.monitor
            .execute("blockdev-del", &json!({ "node-name": BAD }))
            .map(drop)
    }

    fn put_over(&mut self, node: &str) -> Result<()> {
        let options = json!({ "options": [over(node)] });
        self.monitor.execute("blockdev-reopen", &options).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It takes the export away before it ends.
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if let Err(error) = self.daemon.wait() {
            eprintln!("qemu-storage-daemon did not end: {error:#}");
        }
    }
}

fn over(node: &str) -> Value {
    json!({ "driver": "raw", "node-name": DEVICE, "file": node })
}

/// Where on its disk a file lies, in sectors of 512 bytes.
fn middle_sector(file: &Path) -> Result<u64> {
    let table = run(Command::new("filefrag")
        .args(["-s", "-v", "-b512"])
        .arg(file))?;
    let longest = table
        .lines()
        .filter_map(extent)
        .max_by_key(|(_, length)| *length);
    let (first, length) = longest.with_context(|| format!("no extents: {table}"))?;
    Ok(first + length / 2)
}

/// First sector and length of one line: `0:  0..  255:  34816..  35071:  256:  last,eof`.
fn extent(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split(':').skip(2);
    let first = fields.next()?.split("..").next()?.trim().parse().ok()?;
    let length = fields.next()?.trim().parse().ok()?;
    Some((first, length))
}
