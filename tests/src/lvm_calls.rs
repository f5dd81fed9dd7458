//! What a service has LVM do, call by call: it finds a program of LVM's name that notes how it was called,
//! and then does what it was called for.

use anyhow::{Context as _, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// Notes of LVM's calls.
#[derive(Debug)]
pub struct LvmCalls {
    dir: TempDir,
}

impl LvmCalls {
    /// No call yet.
    ///
    /// # Errors
    /// When the program cannot be written.
    pub fn watch() -> Result<Self> {
        let this = Self {
            dir: TempDir::new()?,
        };
        let path = path()?;
        let script = format!(
            "#!/bin/sh\necho \"$*\" >>'{}'\nPATH='{path}' exec lvm \"$@\"\n",
            this.noted().display()
        );
        std::fs::write(this.noted(), "")?;
        let program = this.dir.path().join("lvm");
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Ok(this)
    }

    /// What a service has in its environment whose calls are noted.
    ///
    /// # Errors
    /// When this process has no search path.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let first = format!("{}:{}", self.dir.path().display(), path()?);
        Ok(vec![("PATH".to_owned(), first)])
    }

    /// The calls of a command so far, with all their arguments.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub fn of(&self, command: &str) -> Result<Vec<String>> {
        let noted = std::fs::read_to_string(self.noted())?;
        let is = |line: &&str| line.split(' ').next() == Some(command);
        Ok(noted.lines().filter(is).map(str::to_owned).collect())
    }

    fn noted(&self) -> PathBuf {
        self.dir.path().join("calls")
    }
}

fn path() -> Result<String> {
    std::env::var("PATH").context("no search path")
}
