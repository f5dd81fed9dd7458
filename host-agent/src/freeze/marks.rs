//! The agent's durable memory of frozen guests: one small file a machine, two at most.
//!
//! ```text
//!   <dir>/0192…0f.frozen   written before the freeze, away after the thaw
//!   <dir>/0192…0f.taken    what came of the machine's latest order for overlays
//! ```
//!
//! - A file is written beside its place, synced, renamed, and the directory synced: it is there whole,
//!   or as it was before.
//! - What counts of a `.frozen` file is that it is there. Whatever else it says, or does not: the
//!   machine of its name is thawed.

use super::Consistency;
use livemerge_proto::ids::VmId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FROZEN: &str = "frozen";
const TAKEN: &str = "taken";

/// For what a guest is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The order for overlays.
    pub(super) request: uuid::Uuid,
    /// What the guest writes once they are on: one a disk, as people read it.
    pub(super) overlays: Vec<String>,
}

/// What came of an order for overlays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) request: uuid::Uuid,
    pub(super) consistency: Consistency,
}

/// The directory of the files. Its calls block.
#[derive(Debug)]
pub(super) struct Marks {
    dir: PathBuf,
}

impl Marks {
    /// Opens the directory, and makes it if it is missing.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// The machines that may be frozen, with what for, where that can be read.
    pub(super) fn frozen(&self) -> io::Result<Vec<(VmId, Option<Mark>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let named = path.extension().is_some_and(|suffix| suffix == FROZEN);
            let vm = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            if let (true, Some(vm)) = (named, vm) {
                found.push((vm, read(&path)));
            }
        }
        Ok(found)
    }

    /// That a guest is about to be frozen.
    pub(super) fn mark(&self, vm: VmId, mark: &Mark) -> io::Result<()> {
        self.write(&self.path(vm, FROZEN), mark)
    }

    /// Whether a guest may be frozen, as the file says that somebody may have taken away.
    pub(super) fn is_marked(&self, vm: VmId) -> io::Result<bool> {
        self.path(vm, FROZEN).try_exists()
    }

    /// That a guest is frozen no more.
    pub(super) fn unmark(&self, vm: VmId) -> io::Result<()> {
        match fs::remove_file(self.path(vm, FROZEN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    /// What came of an order, instead of what came of the machine's last one.
    pub(super) fn take(&self, vm: VmId, taken: &Taken) -> io::Result<()> {
        self.write(&self.path(vm, TAKEN), taken)
    }

    /// What came of the machine's latest order; `None` when nothing is known.
    pub(super) fn taken(&self, vm: VmId) -> Option<Taken> {
        read(&self.path(vm, TAKEN))
    }

    fn path(&self, vm: VmId, suffix: &str) -> PathBuf {
        self.dir.join(format!("{vm}.{suffix}"))
    }

    fn write(&self, path: &Path, content: &impl Serialize) -> io::Result<()> {
        let fresh = path.with_added_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
