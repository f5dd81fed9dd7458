//! A file system of a given size on a loop device: what is full is really full.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::run;

/// Mounted as long as it lives.
#[derive(Debug)]
pub struct SmallFileSystem {
    at: PathBuf,
}

impl SmallFileSystem {
    /// Makes one in `image` and mounts it at `at`, a directory.
    pub(crate) fn mount(image: &Path, at: &Path, mib: u64) -> Result<Self> {
        File::create(image)?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Takes so much of the free space that only `leave_mib` is left. The space is free again when
    /// the file is removed.
    pub fn fill(&self, leave_mib: u64) -> Result<PathBuf> {
        let stat = rustix::fs::statvfs(&self.at)?;
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = self.at.join("ballast");
        let file = File::create(&ballast)?;
        let size = free.saturating_sub(leave_mib << 20);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?;
        Ok(ballast)
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.at)) {
            eprintln!("{} stays mounted: {error:#}", self.at.display());
        }
    }
}
