//! Overwriting and discarding what a condemned volume held, before its room is given back.
//!
//! Done again from the start when it was interrupted: a volume half of which are zeros is condemned
//! still.

use super::content::{Room, open};
use super::domain::Domain;
use super::report::{Group, Logical};
use crate::error::io_error;
use crate::program::Program;
use crate::{RemovalOrder, StorageError};
use rustix::fs::{major, minor};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is written at once.
const STEP: usize = 4 << 20;

impl Domain {
    /// Empties a condemned volume, which nobody can open by its name.
    pub(super) async fn empty(
        self: &Arc<Self>,
        name: String,
        order: &RemovalOrder,
    ) -> Result<(), StorageError> {
        let (wipe, discard) = (order.wipe, order.discard);
        let activated = self.lvm.activate(&[&name]).await;
        let volume = self.condemned(&self.report().await?, &name)?;
        activated?;
        if wipe {
            let rate = self.config().wipe_bytes_per_second.max(1);
            self.with(move |domain| domain.wipe(&volume, rate)).await?;
        }
        if discard {
            let device = self.name.path(&name);
            Program::new("blkdiscard", failure)
                .run(&["--".as_ref(), device.as_os_str()])
                .await?;
        }
        self.lvm.deactivate(&[&name]).await
    }

    fn condemned(&self, group: &Group, name: &str) -> Result<Logical, StorageError> {
        let gone = || StorageError::Busy {
            what: format!("logical volume {name}"),
        };
        // Another process has ended the removal meanwhile.
        group
            .ours()
            .find(|volume| volume.name == name)
            .cloned()
            .ok_or_else(gone)
    }

    /// Zeros, around the page cache, no faster than the neighbours can bear.
    fn wipe(&self, volume: &Logical, bytes_per_second: u64) -> Result<(), StorageError> {
        let failed = || io_error(format!("logical volume {}", volume.name));
        let device = open(&self.name, volume, true).map_err(failed())?;
        let mut zeros = Room::new(STEP);
        let (begun, mut at) = (Instant::now(), 0);
        while at < volume.bytes {
            let bytes = (volume.bytes - at).min(STEP as u64);
            device
                .write_all_at(&zeros.bytes()[..bytes as usize], at)
                .map_err(failed())?;
            at += bytes;
            let due = Duration::from_secs_f64(at as f64 / bytes_per_second as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        device.sync_all().map_err(failed())
    }
}

/// # Errors
/// `Invalid` when a device that the volume lies on cannot discard.
pub(super) fn check_discard(volume: &Logical) -> Result<(), StorageError> {
    for piece in volume.pieces.iter().flatten() {
        if !discards(&piece.device).map_err(io_error(piece.device.display()))? {
            let text = format!("{} cannot discard", piece.device.display());
            return Err(StorageError::Invalid(text));
        }
    }
    Ok(())
}

fn discards(device: &Path) -> io::Result<bool> {
    let number = fs::metadata(device)?.rdev();
    let own = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    // A partition has the queue of its disk.
    let limit = fs::read_to_string(format!("{own}/queue/discard_max_bytes"))
        .or_else(|_| fs::read_to_string(format!("{own}/../queue/discard_max_bytes")))?;
    Ok(limit.trim() != "0")
}

fn failure(status: ExitStatus, text: &str) -> StorageError {
    let source = io::Error::other(format!("{status}: {text}"));
    StorageError::Unreachable {
        what: "blkdiscard".to_owned(),
        source,
    }
}
