//! The floor: the same merge by bare commands to a storage daemon, with no guest, no libvirt and no
//! record; and the cost of one durable commit of the record.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use livemerge_api_server::snapshot::{EventKind, NewEvent, Severity};
use livemerge_api_server::store::{SqliteStore, Store};
use serde_json::{Value, json};

use super::{FILL_AT_MIB, median};
use crate::process::run;
use crate::qmp::Qmp;
use crate::rig::Rig;

pub(super) struct Floor {
    base: PathBuf,
    rounds: u32,
    rig: Rig,
}

impl Floor {
    pub(super) fn begin() -> Result<Self> {
        let rig = Rig::new()?;
        let base = rig.create_image("base.qcow2", super::DISK_BYTES)?;
        Ok(Self {
            base,
            rounds: 0,
            rig,
        })
    }

    /// From the command to the file's end.
    pub(super) fn round(&mut self, mib: u64) -> Result<Duration> {
        self.rounds += 1;
        let overlay = self.overlay(mib)?;
        let socket = self.rig.path().join(format!("q{}", self.rounds));
        let daemon = Daemon::start(&socket, &self.base, &overlay)?;
        let mut monitor = Qmp::connect(&socket)?;
        let begun = Instant::now();
        monitor.execute("block-commit", &json!({ "job-id": "j", "device": "top" }))?;
        monitor.wait_for(|event| event["event"] == "BLOCK_JOB_READY")?;
        monitor.execute("job-complete", &json!({ "id": "j" }))?;
        let ended = monitor.wait_for(|event| event["event"] == "BLOCK_JOB_COMPLETED")?;
        anyhow::ensure!(ended["data"]["error"] == Value::Null, "{ended}");
        monitor.execute("blockdev-del", &json!({ "node-name": "top" }))?;
        std::fs::remove_file(&overlay)?;
        let took = begun.elapsed();
        drop(daemon);
        Ok(took)
    }

    fn overlay(&self, mib: u64) -> Result<PathBuf> {
        let overlay = self.rig.images().join(format!("overlay-{}", self.rounds));
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
        run(create.arg(&self.base).arg(&overlay))?;
        let mut write = Command::new("qemu-io");
        write.args(["-f", "qcow2", "-t", "none", "-c"]);
        write.arg(format!("write -P 90 {FILL_AT_MIB}M {mib}M"));
        run(write.arg(&overlay))?;
        Ok(overlay)
    }
}

/// A storage daemon with a chain of two open.
struct Daemon(Child);

impl Daemon {
    fn start(socket: &Path, base: &Path, overlay: &Path) -> Result<Self> {
        let node = |name: &str, file: &Path, backing: Value| {
            let node = json!({
                "driver": "qcow2",
                "node-name": name,
                "backing": backing,
                "file": {
                    "driver": "file",
                    "filename": file,
                    "cache": { "direct": true, "no-flush": false },
                },
            });
            node.to_string()
        };
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("base", base, Value::Null)])
            .args(["--blockdev", &node("top", overlay, json!("base"))])
            .arg("--chardev")
            .arg(format!(
                "socket,id=m,path={},server=on,wait=off",
                socket.display()
            ))
            .args(["--monitor", "chardev=m"])
            .stdin(Stdio::null())
            .spawn();
        Ok(Self(child.context("starting qemu-storage-daemon")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The median time of one durable commit of the API server's record, on the same file system.
pub(super) async fn durable_commit(runs: usize) -> Result<Duration> {
    let rig = Rig::new()?;
    let store = SqliteStore::open(&rig.path().join("bench.db")).await?;
    let mut times = Vec::new();
    for run in 0..runs {
        let event = event(&format!("bench {run}"));
        let begun = Instant::now();
        store.add_events(&[event]).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(&times)))
}

fn event(message: &str) -> NewEvent {
    NewEvent {
        kind: EventKind::LiveMergePlanned,
        severity: Severity::Info,
        occurred_at: Timestamp::UNIX_EPOCH,
        host: None,
        vm: None,
        snapshot: None,
        operation: None,
        actor: None,
        message: message.to_owned(),
        details: std::collections::BTreeMap::new(),
    }
}
