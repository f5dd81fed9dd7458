//! The file system of a guest's disk, as it lies in an image: the guest's agent can freeze it.
//!
//! ext4 says in its superblock whether its journal has to be played back. It has to while the file
//! system is mounted and can be written; one that is frozen has emptied its journal. So a layer that
//! was frozen by a snapshot says itself how it was taken.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::oracle::frozen_slots;
use crate::filesystem::SmallFileSystem;
use crate::process::run;

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

/// Whether the file system in a layer that nobody writes any more was mounted and not frozen.
pub fn needs_recovery(layer: &Path) -> Result<bool> {
    let start = frozen_slots(layer, 1)?;
    let magic = start.get(MAGIC..MAGIC + 2).context("a short image")?;
    ensure!(magic == [0x53, 0xef], "no ext4 in {}", layer.display());
    Ok(start[INCOMPATIBLE] & NEEDS_RECOVERY != 0)
}
