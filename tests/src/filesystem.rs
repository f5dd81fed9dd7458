//! A file system of a given size on a loop device: what is full is really full.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::process::run;

/// What takes all the space and all the files of a file system.
const BALLAST: &str = "ballast";

/// Mounted as long as it lives.
#[derive(Debug)]
pub struct SmallFileSystem {
    at: PathBuf,
}

impl SmallFileSystem {
    /// Makes one in `image` and mounts it at `at`, a directory.
    pub(crate) fn make_and_mount(image: &Path, at: &Path, mib: u64) -> Result<Self> {
        Self::make(image, mib)?;
        Self::mount(image, at)
    }

    /// Makes one in a file.
    pub(crate) fn make(image: &Path, mib: u64) -> Result<()> {
        File::create(image)?.set_len(mib << 20)?;
        // Few files, so that they can be used up.
        let options = ["-q", "-m", "0", "-N", "256"];
        run(Command::new("mkfs.ext4").args(options).arg(image))?;
        Ok(())
    }

    /// Mounts what was made at `at`, a directory.
    pub(crate) fn mount(image: &Path, at: &Path) -> Result<Self> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Shows a file at the place of another one, `at`, which exists.
    pub(crate) fn show(file: &Path, at: &Path) -> Result<Self> {
        run(Command::new("mount").arg("--bind").arg(file).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Where it is.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Takes so much of the free space that only `leave_mib` is left. The space is free again when
    /// the file is removed.
    pub fn fill(&self, leave_mib: u64) -> Result<PathBuf> {
        let stat = statvfs(&self.at)?;
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = self.at.join(BALLAST);
        let file = File::create(&ballast)?;
        let size = free.saturating_sub(leave_mib << 20);
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        Ok(ballast)
    }

    /// Takes all: the last block, and the last file.
    pub fn fill_up(&self) -> Result<Ballast> {
        let dir = self.at.join(BALLAST);
        fs::create_dir(&dir)?;
        let ballast = Ballast(dir);
        ballast.take_files()?;
        ballast.take_blocks()?;
        let left = statvfs(&self.at)?;
        ensure!(
            left.f_bavail == 0 && left.f_favail == 0,
            "{} blocks and {} files are left",
            left.f_bavail,
            left.f_favail
        );
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

/// The file system is full until this is dropped.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    fn take_files(&self) -> Result<()> {
        loop {
            match File::create(self.0.join(format!("{}", fs::read_dir(&self.0)?.count()))) {
                Ok(_one_less) => {}
                Err(full) if full.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// In ever smaller steps, at the end of the first file.
    fn take_blocks(&self) -> Result<()> {
        let file = File::options().write(true).open(self.0.join("0"))?;
        let (mut size, mut step) = (0, 1 << 30);
        while step >= 1024 {
            match fallocate(&file, FallocateFlags::empty(), size, step) {
                Ok(()) => size += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays full: {error}", self.0.display());
        }
    }
}
