//! Is every acknowledged record in the image that the guest would boot from?
//!
//! The guest writes record `i` to block `i mod slots`, in order. So each slot must hold the newest
//! acknowledged record that fell on it, or a newer one that was in flight:
//!
//! ```text
//! slots 4, newest acknowledged 5:    slot    0   1   2   3
//!                                    holds   4   5   2   3     (6 in slot 2 is as good)
//! ```
//! Only for a guest that is off: the images are read under QEMU's lock, and an image in use, or
//! one that cannot be read, is an error and not a verdict.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::acks::Acknowledged;
use super::record::{RECORD_BYTES, Record};
use crate::process::run;

/// What the oracle found on one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many slots had to hold a record.
    pub acknowledged: u64,
    /// How many of them hold it, or a newer one.
    pub found: u64,
    /// The acknowledged records that are gone, in order.
    pub lost: Vec<u64>,
}

/// Reads the chain under `top` and judges the records of `disk` (`vda`). It is an error if nothing
/// was acknowledged: nothing would be shown by it.
pub fn verify(disk: &str, top: &Path, slots: u64, acks: &Acknowledged) -> Result<Verdict> {
    look(disk, top, slots, acks, &[])
}

/// As [`verify`], of a frozen layer, which nobody writes even if a guest above it runs.
pub fn verify_frozen(disk: &str, layer: &Path, slots: u64, acks: &Acknowledged) -> Result<Verdict> {
    look(disk, layer, slots, acks, &["-U"])
}

/// What the slots read in a frozen layer.
pub fn frozen_slots(layer: &Path, slots: u64) -> Result<Vec<u8>> {
    let raw = beside(layer)?;
    read_slots(layer, raw.path(), slots, &["-U"])?;
    Ok(std::fs::read(raw.path())?)
}

fn look(
    disk: &str,
    top: &Path,
    slots: u64,
    acks: &Acknowledged,
    options: &[&str],
) -> Result<Verdict> {
    let newest = acks
        .newest
        .with_context(|| format!("no record of {disk} was acknowledged"))?;
    ensure!(slots > 0, "a disk with no slots holds no record");
    let raw = beside(top)?;
    read_slots(top, raw.path(), slots, options)?;
    judge(disk, raw.as_file(), slots, newest, &acks.lost_at_boot)
}

/// A place for what is read: on the image's own file system, if it lies on one.
fn beside(image: &Path) -> Result<tempfile::NamedTempFile> {
    let dir = image.parent().unwrap_or(Path::new("."));
    let dir = if dir.is_dir() && !image.starts_with("/dev") {
        dir
    } else {
        Path::new("/var/tmp")
    };
    Ok(tempfile::NamedTempFile::new_in(dir)?)
}

/// Copies the records of a chain into a raw file. Without `-U` the image lock is honoured.
fn read_slots(top: &Path, raw: &Path, slots: u64, options: &[&str]) -> Result<()> {
    let of = |key: &str, path: &Path| format!("{key}={}", path.display());
    let mut command = Command::new("qemu-img");
    command.arg("dd").args(options).args([
        "-O",
        "raw",
        &format!("bs={RECORD_BYTES}"),
        &format!("count={slots}"),
    ]);
    run(command.arg(of("if", top)).arg(of("of", raw)))?;
    Ok(())
}

fn judge(disk: &str, raw: &File, slots: u64, newest: u64, lost_at_boot: &[u64]) -> Result<Verdict> {
    let mut verdict = Verdict {
        lost: lost_at_boot.to_vec(),
        ..Verdict::default()
    };
    for expected in (newest + 1).saturating_sub(slots)..=newest {
        let mut block = [0; RECORD_BYTES];
        raw.read_exact_at(&mut block, expected % slots * RECORD_BYTES as u64)?;
        verdict.acknowledged += 1;
        if holds(&block, Record::new(disk, expected), slots) {
            verdict.found += 1;
        } else {
            verdict.lost.push(expected);
        }
    }
    verdict.lost.sort_unstable();
    verdict.lost.dedup();
    Ok(verdict)
}

/// Whether the block has the record, or a newer one of the same disk and slot.
fn holds(block: &[u8; RECORD_BYTES], expected: Record, slots: u64) -> bool {
    Record::decode(block).is_some_and(|found| {
        found.disk == expected.disk
            && found.number >= expected.number
            && found.number % slots == expected.number % slots
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const SLOTS: u64 = 8;
    const NEWEST: u64 = 20;

    /// A raw image on which the writer has just written record 20.
    struct Image {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Image {
        fn new() -> Result<Self> {
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("disk.raw");
            File::create(&path)?.set_len(1 << 20)?;
            let image = Self { _dir: dir, path };
            (0..=NEWEST).try_for_each(|number| image.write("vda", number, number % SLOTS))?;
            Ok(image)
        }

        fn write(&self, disk: &str, number: u64, slot: u64) -> Result<()> {
            let mut block = [0; RECORD_BYTES];
            Record::new(disk, number).encode(&mut block);
            self.write_bytes(&block, slot * RECORD_BYTES as u64)
        }

        fn write_bytes(&self, bytes: &[u8], at: u64) -> Result<()> {
            let file = File::options().write(true).open(&self.path)?;
            Ok(file.write_all_at(bytes, at)?)
        }

        fn verdict(&self) -> Result<Verdict> {
            let acks = Acknowledged {
                newest: Some(NEWEST),
                lost_at_boot: Vec::new(),
            };
            verify("vda", &self.path, SLOTS, &acks)
        }

        fn lost(&self) -> Result<Vec<u64>> {
            Ok(self.verdict()?.lost)
        }
    }

    #[test]
    fn all_records_are_found() -> Result<()> {
        let verdict = Image::new()?.verdict()?;
        assert_eq!(
            verdict,
            Verdict {
                acknowledged: 8,
                found: 8,
                lost: vec![]
            }
        );
        Ok(())
    }

    #[test]
    fn a_record_in_flight_is_as_good() -> Result<()> {
        let image = Image::new()?;
        image.write("vda", 21, 21 % SLOTS)?;
        assert!(image.lost()?.is_empty());
        Ok(())
    }

    #[test]
    fn a_stale_record_is_a_loss() -> Result<()> {
        let image = Image::new()?;
        image.write("vda", NEWEST - SLOTS, NEWEST % SLOTS)?;
        assert_eq!(
            image.verdict()?,
            Verdict {
                acknowledged: 8,
                found: 7,
                lost: vec![20]
            }
        );
        Ok(())
    }

    #[test]
    fn a_missing_record_is_a_loss() -> Result<()> {
        let image = Image::new()?;
        image.write_bytes(&[0; RECORD_BYTES], 3 * RECORD_BYTES as u64)?;
        assert_eq!(image.lost()?, [19]);
        Ok(())
    }

    #[test]
    fn a_corrupt_record_is_a_loss() -> Result<()> {
        let image = Image::new()?;
        image.write_bytes(&[0xff], 2 * RECORD_BYTES as u64 + 1000)?;
        assert_eq!(image.lost()?, [18]);
        Ok(())
    }

    #[test]
    fn a_record_of_another_disk_or_slot_is_a_loss() -> Result<()> {
        let image = Image::new()?;
        image.write("vdb", 16, 0)?;
        image.write("vda", 24, 1)?;
        assert_eq!(image.lost()?, [16, 17]);
        Ok(())
    }

    #[test]
    fn what_a_restarted_guest_missed_stays_lost() -> Result<()> {
        let image = Image::new()?;
        let acks = Acknowledged {
            newest: Some(NEWEST),
            lost_at_boot: vec![11],
        };
        assert_eq!(verify("vda", &image.path, SLOTS, &acks)?.lost, [11]);
        Ok(())
    }

    #[test]
    fn fewer_records_than_slots() -> Result<()> {
        let image = Image::new()?;
        let acks = Acknowledged {
            newest: Some(2),
            lost_at_boot: Vec::new(),
        };
        assert_eq!(verify("vda", &image.path, SLOTS, &acks)?.acknowledged, 3);
        Ok(())
    }

    #[test]
    fn without_an_acknowledgement_there_is_no_verdict() -> Result<()> {
        let image = Image::new()?;
        assert!(verify("vda", &image.path, SLOTS, &Acknowledged::default()).is_err());
        Ok(())
    }

    #[test]
    fn an_image_that_cannot_be_read_is_no_verdict() {
        let acks = Acknowledged {
            newest: Some(1),
            lost_at_boot: Vec::new(),
        };
        assert!(verify("vda", Path::new("/missing/image"), SLOTS, &acks).is_err());
    }
}
