//! Packing a directory as a kernel's first file system.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Packs everything under `root`, owned by root, into the file `to`.
///
/// # Errors
/// When `cpio` is missing or fails.
pub fn pack(root: &Path, to: &Path) -> Result<()> {
    let mut cpio = Command::new("cpio");
    cpio.current_dir(root)
        .args(["-o", "-H", "newc", "--quiet", "-R", "0:0"]);
    let mut child = cpio
        .stdin(Stdio::piped())
        .stdout(fs::File::create(to)?)
        .spawn()
        .context("starting cpio: run `make setup`")?;
    {
        let mut names = child.stdin.take().context("cpio's input was asked for")?;
        for name in list(root, Path::new(""))? {
            writeln!(names, "{}", name.display())?;
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "cpio failed: {status}");
    Ok(())
}

/// Everything under `root`, each directory before what it holds.
fn list(root: &Path, under: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(under))? {
        let entry = entry?;
        let name = under.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type()?.is_dir() {
            names.extend(list(root, &name)?);
        }
    }
    Ok(names)
}
