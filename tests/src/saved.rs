//! Guests that have booted already.
//!
//! An emulated guest boots for five seconds of a core, and all that it does in them is the same each
//! time. So one guest of each kind boots, says that it holds, and its memory and devices are saved;
//! every other one of the kind begins there, reads what it is to do, loads the drivers of its disks
//! and goes on as if it had booted by itself.
//!
//! ```text
//!            once of a kind                         each start
//!  boot -> HOLDS -> target/rig/saved-HASH  --->  work -> drivers of disks -> writers
//! ```
//! Two guests are of a kind if QEMU gives them the same devices: what is on their disks, and where
//! those are, makes no difference, as nobody has looked at them yet.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::guest::domain::{Agent, Begins, DiskSpec, Format, GuestSpec, Workload};
use crate::guest::image;
use crate::process::run;
use crate::rig::Rig;

const EMULATOR: &str = "qemu-system-x86_64";
/// The one that is saved.
const NAME: &str = "saved";
/// What it says when it can be.
const HOLDS: &str = "HOLDS";
const DISK_BYTES: u64 = 1 << 20;
/// How long a boot may take, and the saving after it.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Where a guest like this one begins. The first one of its kind is waited for.
pub(crate) fn like(spec: &GuestSpec) -> Result<Begins> {
    let directory = image::directory()?;
    let saved = directory.join(format!("saved-{}", kind(spec)?));
    // Whoever comes meanwhile waits for what this one saves.
    let turn = File::create(directory.join("saved.lock"))?;
    turn.lock()?;
    if !saved.exists() {
        save(spec, &saved)?;
    }
    Ok(Begins::Saved(saved))
}

/// What its devices are, and what has booted on them.
fn kind(spec: &GuestSpec) -> Result<String> {
    let emulator = run(Command::new(EMULATOR).arg("--version"))?;
    let alike = template(spec, Path::new("/"));
    let mut hash = Sha256::new();
    hash.update(emulator);
    hash.update(alike.xml());
    let name = |byte: &u8| format!("{byte:02x}");
    Ok(hash.finalize()[..8].iter().map(name).collect())
}

/// A guest of the same kind, with its files in a directory.
fn template(spec: &GuestSpec, directory: &Path) -> GuestSpec {
    let disk = |disk: &DiskSpec| DiskSpec {
        target: disk.target.clone(),
        path: directory.join(format!("{NAME}-{}.qcow2", disk.target)),
        format: Format::Qcow2,
    };
    GuestSpec {
        name: NAME.to_owned(),
        uuid: uuid::Uuid::nil(),
        disks: spec.disks.iter().map(disk).collect(),
        serial_log: directory.join("serial"),
        workload: Workload::default(),
        monitor: None,
        agent: spec.agent.clone().map(|agent| Agent {
            socket: directory.join("agent"),
            ..agent
        }),
        begins: Begins::Holding,
        ..spec.clone()
    }
}

fn save(spec: &GuestSpec, to: &Path) -> Result<()> {
    let rig = Rig::new()?;
    let mut spec = template(spec, rig.path());
    spec.uuid = uuid::Uuid::new_v4();
    for disk in &mut spec.disks {
        disk.path = rig.create_disk(NAME, &disk.target, DISK_BYTES)?.path;
    }
    let guest = rig.boot(spec)?;
    until("the guest holds", || {
        let said = fs::read_to_string(&guest.spec.serial_log)?;
        Ok(said.contains(HOLDS))
    })?;

    let part = rig.path().join("part");
    let migrate = format!(
        r#"{{"execute": "migrate", "arguments": {{"uri": "exec:exec cat >'{}'"}}}}"#,
        part.display()
    );
    let monitor = |command: &str| rig.virsh().call(&["qemu-monitor-command", NAME, command]);
    let begun = monitor(&migrate)?;
    ensure!(begun.contains("return"), "not saved: {begun}");
    until("the guest is saved", || {
        let state = monitor(r#"{"execute": "query-migrate"}"#)?;
        ensure!(!state.contains("failed"), "not saved: {state}");
        Ok(state.contains("completed"))
    })?;
    rig.virsh().destroy(NAME)?;
    keep(&part, to)
}

/// It is whole when it has its name. A virtual host does not see the lock, so each has a file of its own
/// until then.
fn keep(part: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a directory")?;
    let whole = NamedTempFile::new_in(directory)?;
    fs::copy(part, whole.path())?;
    whole.persist(to)?;
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !holds()? {
        if Instant::now() > end {
            bail!("waited {LIMIT:?} until {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}
