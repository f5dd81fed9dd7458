//! Disks that note every write and every flush, in order.
//!
//! ```text
//!   ext4                    mounted by the rig
//!   loop device             over DIR/NAME.device, a file in FUSE
//!   qemu-storage-daemon     blklogwrites ─┬─ DIR/NAME.bytes
//!                                         └─ DIR/NAME.log      see [`super::log`]
//!                           DIR/NAME.first: what the disk held before the first write
//! ```
//! What the host has in its memory does not come so far: a write stands in the log when the disk was
//! given it, and a flush when the host asked for one and had its answer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::filesystem::SmallFileSystem;
use crate::process::run;
use crate::qmp::Qmp;
use crate::rig::{Mount, PLACE};

/// A disk for each who could have its own: an order between two of them is kept by nobody's journal.
/// Each is the directory of a rig that is on it, and its size in MiB.
pub(super) const DISKS: [(&str, u64); 4] =
    [("agent", 32), ("v", 64), ("images", 512), ("record", 32)];

/// How far each log has come, in bytes.
pub(super) type Position = [u64; DISKS.len()];

/// Whether all that had come about at the first position had so at the second one.
pub(super) fn reached(first: &Position, second: &Position) -> bool {
    first
        .iter()
        .zip(second)
        .all(|(first, second)| first <= second)
}

/// The files of the disks, which stay until this is dropped.
#[derive(Debug)]
pub(super) struct Disks {
    dir: TempDir,
}

impl Disks {
    /// Makes them, each with an empty file system.
    pub(super) fn make() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lmpower")
            .tempdir_in(PLACE)?;
        let disks = Self { dir };
        for (name, mib) in DISKS {
            let bytes = disks.file(name, "bytes");
            SmallFileSystem::make(&bytes, mib)?;
            copy(&bytes, &disks.file(name, "first"))?;
            File::create(disks.file(name, "log"))?;
            File::create(disks.file(name, "device"))?;
        }
        Ok(disks)
    }

    /// Shows them as files that devices can be made of, until what is returned is dropped.
    pub(super) fn show(&self) -> Result<Shown> {
        let mut daemon = Command::new("qemu-storage-daemon");
        let mut node = |node: Value| {
            daemon.arg("--blockdev").arg(node.to_string());
        };
        for (name, _) in DISKS {
            let named = |part: &str| format!("{name}-{part}");
            for part in ["bytes", "log"] {
                let file = self.file(name, part);
                node(json!({ "driver": "file", "node-name": named(part), "filename": file }));
            }
            node(json!({
                "driver": "blklogwrites", "node-name": name, "file": named("bytes"),
                "log": named("log"), "log-sector-size": 512,
            }));
        }
        let monitor = self.dir.path().join("monitor");
        let listens = format!("socket,id=m,path={},server=on,wait=off", monitor.display());
        daemon.args(["--chardev", &listens, "--monitor", "chardev=m"]);
        for (name, _) in DISKS {
            let at = self.file(name, "device");
            daemon.arg("--export").arg(format!(
                "fuse,id=e-{name},node-name={name},mountpoint={},writable=on",
                at.display()
            ));
        }
        let daemon = daemon.stdin(Stdio::null()).spawn();
        let daemon = daemon.context("starting qemu-storage-daemon: run `make setup`")?;
        let shown = Shown { daemon };
        // It makes its monitor first, and answers there when the exports are up.
        Qmp::connect(&monitor)?;
        Ok(shown)
    }

    /// Where a rig mounts them.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let mount = |(name, _): (&'static str, _)| Mount {
            dir: name,
            device: self.file(name, "device"),
        };
        DISKS.map(mount).into()
    }

    /// How far the logs have come at one moment.
    pub(super) fn position(&self) -> Result<Position> {
        let mut last = self.look()?;
        loop {
            let again = self.look()?;
            if again == last {
                return Ok(last);
            }
            last = again;
        }
    }

    fn look(&self) -> Result<Position> {
        let mut position = Position::default();
        for ((name, _), bytes) in DISKS.iter().zip(&mut position) {
            *bytes = fs::metadata(self.file(name, "log"))?.len();
        }
        Ok(position)
    }

    /// What a disk held at first, and its log.
    pub(super) fn first_and_log(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.file(name, "first"), self.file(name, "log"))
    }

    /// A directory for what is made of them.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, part: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.{part}"))
    }
}

/// The disks can be used as long as it lives.
#[derive(Debug)]
pub(super) struct Shown {
    daemon: Child,
}

impl Drop for Shown {
    fn drop(&mut self) {
        // It takes the exports away before it ends.
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if let Err(error) = self.daemon.wait() {
            eprintln!("qemu-storage-daemon did not end: {error:#}");
        }
    }
}

/// Copies a file of which most is holes, as a new one: a device may still be over an old one.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    run(copy
        .args(["--sparse=always", "--remove-destination"])
        .arg(from)
        .arg(to))?;
    Ok(())
}
