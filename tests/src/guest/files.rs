//! The file system of a guest's disk, as it lies in an image: the guest's agent can freeze it.
//!
//! ext4 says in its superblock whether its journal has to be played back. It has to while the file
//! system is mounted and can be written; one that is frozen has emptied its journal. So a layer that
//! was frozen by a snapshot says itself how it was taken.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use super::oracle::frozen_slots;
use crate::filesystem::SmallFileSystem;
use crate::process::run;

const PLACE: &str = "/var/tmp";
const SUPERBLOCK: usize = 1024;
const MAGIC: usize = SUPERBLOCK + 0x38;
const INCOMPATIBLE: usize = SUPERBLOCK + 0x60;
const NEEDS_RECOVERY: u8 = 4;

/// Makes a qcow2 image with an empty file system.
pub(crate) fn make(image: &Path, mib: u64) -> Result<()> {
    let raw = image.with_extension("raw");
    SmallFileSystem::make(&raw, mib)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
    run(convert.arg(&raw).arg(image))?;
    Ok(std::fs::remove_file(raw)?)
}

/// The file that the guest writes its records to, as whoever mounts an image next finds it. Nobody may
/// write the image.
pub fn records(image: &Path) -> Result<NamedTempFile> {
    let raw = NamedTempFile::new_in(PLACE)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-U", "-O", "raw"]);
    run(convert.arg(image).arg(raw.path()))?;
    // The journal is played back: 1 is for what was mended by that.
    let mut check = Command::new("e2fsck");
    let checked = check.arg("-fy").arg(raw.path()).output()?;
    let sound = checked.status.code().is_some_and(|code| code <= 1);
    let said = String::from_utf8_lossy(&checked.stdout);
    ensure!(sound, "no sound ext4 in {}: {said}", image.display());
    let records = NamedTempFile::new_in(PLACE)?;
    let dump = format!("dump /records {}", records.path().display());
    run(Command::new("debugfs").args(["-R", &dump]).arg(raw.path()))?;
    Ok(records)
}

/// Whether the file system in a layer that nobody writes any more was mounted and not frozen.
pub fn needs_recovery(layer: &Path) -> Result<bool> {
    let start = frozen_slots(layer, 1)?;
    let magic = start.get(MAGIC..MAGIC + 2).context("a short image")?;
    ensure!(magic == [0x53, 0xef], "no ext4 in {}", layer.display());
    Ok(start[INCOMPATIBLE] & NEEDS_RECOVERY != 0)
}
