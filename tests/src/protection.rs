//! What nobody may write, root neither, until it is given free again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::run;

/// A directory under a read-only mount of itself, as long as this lives. A file in it that is open
/// for writing stays so.
#[derive(Debug)]
pub struct ReadOnly(PathBuf);

impl ReadOnly {
    /// Protects the directory from all who open something in it from now on.
    pub fn mount(dir: &Path) -> Result<Self> {
        run(Command::new("mount").arg("--bind").arg(dir).arg(dir))?;
        let mounted = Self(dir.to_owned());
        run(Command::new("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(dir))?;
        Ok(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.0)) {
            eprintln!("{} stays read-only: {error:#}", self.0.display());
        }
    }
}

/// Files that nobody may write, rename or unlink as long as this lives, whoever has them open.
#[derive(Debug)]
pub struct Immutable(Vec<PathBuf>);

impl Immutable {
    /// Protects the files.
    pub fn make(files: Vec<PathBuf>) -> Result<Self> {
        let immutable = Self(files);
        immutable.change("+i")?;
        Ok(immutable)
    }

    fn change(&self, how: &str) -> Result<()> {
        run(Command::new("chattr").arg(how).args(&self.0)).map(drop)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        if let Err(error) = self.change("-i") {
            eprintln!("{:?} stay immutable: {error:#}", self.0);
        }
    }
}
