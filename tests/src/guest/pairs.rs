//! Whether a point in time is one and the same for two disks.
//!
//! A guest that is told to ([`GuestSpec::pairs`]) writes number after number: each into the last block
//! of its first disk and, when that is acknowledged, into the last block of the second. So the first
//! disk is never behind the second, and never ahead by more than one:
//!
//! ```text
//!   vda  7 ── 8 ──── 9 ──        frozen together:        (7, 7) or (8, 7)
//!   vdb    ─ 7 ── 8 ─            the first one before:   (7, 8)
//! ```
//!
//! [`GuestSpec::pairs`]: super::domain::GuestSpec::pairs

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::record::{RECORD_BYTES, Record};
use crate::process::run;

/// The newest number of a disk (`vda`) in an image of it, which may be in use; 0 before the first.
pub fn newest(disk: &str, image: &Path) -> Result<u64> {
    let info = run(Command::new("qemu-img")
        .args(["info", "-U", "--output=json"])
        .arg(image))?;
    let info: Value = serde_json::from_str(&info)?;
    let size = info["virtual-size"].as_u64().context("no size is told")?;
    let last = (size / RECORD_BYTES as u64).checked_sub(1);
    let last = last.context("an empty disk")?;
    let block = tempfile::NamedTempFile::new_in("/var/tmp")?;
    run(Command::new("qemu-img")
        .args(["dd", "-U", "-O", "raw"])
        .arg(format!("bs={RECORD_BYTES}"))
        .arg(format!("skip={last}"))
        .arg(format!("if={}", image.display()))
        .arg(format!("of={}", block.path().display())))?;
    let read = std::fs::read(block.path())?;
    let read = read.first_chunk().context("a short block")?;
    let record = Record::decode(read);
    let own = record.filter(|record| record.disk == Record::new(disk, 0).disk);
    Ok(own.map_or(0, |record| record.number))
}

/// The numbers in two layers that were frozen together, of disks of these names.
///
/// # Errors
/// When they were not frozen together, or before the first pair.
pub fn together(disks: [&str; 2], layers: [&Path; 2]) -> Result<[u64; 2]> {
    let [first, second] = [newest(disks[0], layers[0])?, newest(disks[1], layers[1])?];
    let torn = || format!("{} has number {first}, {} {second}", disks[0], disks[1]);
    ensure!(first > 0, "no pair is written yet");
    ensure!(first == second || first == second + 1, "{}", torn());
    Ok([first, second])
}
