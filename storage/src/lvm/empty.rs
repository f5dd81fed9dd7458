//! Overwriting and discarding what a condemned volume held, before its room is given back.
//!
//! Done again from the start when it was interrupted: a volume half of which are zeros is condemned
//! still. One that was overwritten says so in a tag before it is discarded.

use super::content::{Room, open};
use super::domain::Domain;
use super::report::{Group, Logical};
use super::tag;
use crate::calls::blocking;
use crate::error::io_error;
use crate::program::Program;
use crate::{RemovalOrder, StorageError};
use rustix::fs::{major, minor};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What is written at once.
const STEP: usize = 4 << 20;
/// What is discarded at once.
const DISCARD: u64 = 1 << 30;
/// What the kernel says of devices, by their numbers.
const DEVICES: &str = "/sys/dev/block";

impl Domain {
    /// Empties a condemned volume, which nobody can open by its name.
    pub(super) async fn empty(
        self: &Arc<Self>,
        name: String,
        order: &RemovalOrder,
    ) -> Result<(), StorageError> {
        let (wipe, discard) = (order.wipe, order.discard);
        let activated = self.lvm.alone().activate(&[&name]).await;
        let volume = self.condemned(&self.report().await?, &name)?;
        activated?;
        let bytes = volume.bytes;
        if wipe && !tag::is_wiped(&volume.tags) {
            self.wipe_in_turn(volume.clone()).await?;
            if discard {
                let wiped = [tag::WIPED.to_owned()];
                self.lvm.alone().retag(&name, &wiped, &[]).await?;
            }
        }
        if discard && discards_whole(Path::new(DEVICES), &volume)? {
            self.discard(&name, bytes).await?;
        }
        self.lvm.alone().deactivate(&[&name]).await
    }

    /// One after the other: each would take as long again, and their neighbours no less. It takes
    /// hours, so it is none of the domain's calls. When this process ends before, so does it.
    async fn wipe_in_turn(self: &Arc<Self>, volume: Logical) -> Result<(), StorageError> {
        let _one = self.wiping.lock().await;
        let rate = self.config().wipe_bytes_per_second.max(1);
        let domain = Arc::clone(self);
        let (wipes, _waits) = oneshot::channel();
        blocking(move || domain.wipe(&volume, rate, &wipes)).await
    }

    /// In pieces, each of which a device has done with in time.
    async fn discard(&self, name: &str, bytes: u64) -> Result<(), StorageError> {
        let device = self.name.path(name);
        let program = Program::new("blkdiscard", failure);
        for (at, length) in pieces(bytes) {
            let [at, length] = [at.to_string(), length.to_string()];
            let range = ["--offset", &at, "--length", &length, "--"].map(OsStr::new);
            let args = [&range[..], &[device.as_os_str()]].concat();
            program.run(&args).await?;
        }
        Ok(())
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
    fn wipe(
        &self,
        volume: &Logical,
        bytes_per_second: u64,
        wipes: &oneshot::Sender<()>,
    ) -> Result<(), StorageError> {
        let device = open(&self.name, volume, true);
        let wiped = device.and_then(|device| zeros(&device, volume.bytes, bytes_per_second, wipes));
        wiped.map_err(io_error(format!("logical volume {}", volume.name)))
    }
}

/// Stops when nobody waits for it any more.
fn zeros(
    device: &File,
    bytes: u64,
    bytes_per_second: u64,
    wipes: &oneshot::Sender<()>,
) -> io::Result<()> {
    let mut zeros = Room::new(STEP);
    let (begun, mut at) = (Instant::now(), 0);
    while at < bytes {
        if wipes.is_closed() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let step = (bytes - at).min(STEP as u64);
        device.write_all_at(&zeros.bytes()[..step as usize], at)?;
        at += step;
        let due = Duration::from_secs_f64(at as f64 / bytes_per_second as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    device.sync_all()
}

/// Where each piece of a discard begins, and its length.
fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let piece = move |number| {
        let at = number * DISCARD;
        (at, DISCARD.min(bytes - at))
    };
    (0..bytes.div_ceil(DISCARD)).map(piece)
}

/// # Errors
/// `Invalid` when a device that the volume lies on cannot discard. Of one that lies on them in another way than
/// piece after piece only its own device knows that, which is there while it is active.
pub(super) fn check_discard(volume: &Logical) -> Result<(), StorageError> {
    let refused = |what: String| StorageError::Invalid(format!("{what} cannot discard"));
    for piece in volume.pieces.iter().flatten() {
        if !discards(&piece.device).map_err(io_error(piece.device.display()))? {
            return Err(refused(piece.device.display().to_string()));
        }
    }
    if !discards_whole(Path::new(DEVICES), volume)? {
        return Err(refused(format!("logical volume {}", volume.name)));
    }
    Ok(())
}

/// Whether the device of a volume can discard, as far as can be told. What cannot has nothing to be told: once
/// the volume is condemned that ends its removal, and does not hold it up for ever.
fn discards_whole(devices: &Path, volume: &Logical) -> Result<bool, StorageError> {
    let Some((major, minor)) = volume.device else {
        return Ok(true);
    };
    let limit = limit(&devices.join(format!("{major}:{minor}")));
    let limit = limit.map_err(io_error(format!("logical volume {}", volume.name)))?;
    Ok(limit.is_none_or(|limit| limit > 0))
}

fn discards(device: &Path) -> io::Result<bool> {
    let number = fs::metadata(device)?.rdev();
    let own = Path::new(DEVICES).join(format!("{}:{}", major(number), minor(number)));
    // A partition has the queue of its disk.
    let most = match limit(&own)? {
        Some(most) => Some(most),
        None => limit(&own.join(".."))?,
    };
    let most = most.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(most > 0)
}

/// The most that a device discards at once; `None` when it has no queue of its own.
fn limit(device: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(device.join("queue/discard_max_bytes")) {
        Ok(limit) => Ok(limit.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failure(status: ExitStatus, text: &str) -> StorageError {
    let source = io::Error::other(format!("{status}: {text}"));
    StorageError::Unreachable {
        what: "blkdiscard".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wipe_for_which_nobody_waits_any_more_stops() {
        let file = tempfile::tempfile().unwrap();
        let bytes = 2 * STEP as u64 + 1;
        let (wipes, waits) = oneshot::channel();
        zeros(&file, bytes, u64::MAX, &wipes).unwrap();
        assert_eq!(file.metadata().unwrap().len(), bytes);
        file.set_len(0).unwrap();
        drop(waits);
        zeros(&file, bytes, u64::MAX, &wipes).unwrap_err();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    /// Whatever it lies on: once there is no way back, it would be tried again for ever.
    #[test]
    fn a_volume_is_discarded_by_what_its_own_device_can() {
        let devices = tempfile::tempdir().unwrap();
        let queue = devices.path().join("253:7/queue");
        fs::create_dir_all(&queue).unwrap();
        let striped = |device| Logical {
            name: "a".to_owned(),
            identity: "id".parse().unwrap(),
            tags: vec![],
            bytes: 4 << 20,
            origin: None,
            device,
            open: false,
            autoactivates: true,
            pieces: None,
        };
        for (limit, device, discards) in [
            ("0\n", Some((253, 7)), false),
            ("4096\n", Some((253, 7)), true),
            // Not active, or not there any more.
            ("0\n", None, true),
            ("0\n", Some((253, 8)), true),
        ] {
            fs::write(queue.join("discard_max_bytes"), limit).unwrap();
            let found = discards_whole(devices.path(), &striped(device)).unwrap();
            assert_eq!(found, discards, "{limit:?} {device:?}");
        }
    }

    #[test]
    fn a_discard_is_in_pieces_without_gaps() {
        let of = |bytes| pieces(bytes).collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!(of(4096), [(0, 4096)]);
        let long = of(2 * DISCARD + 512);
        assert_eq!(long, [(0, DISCARD), (DISCARD, DISCARD), (2 * DISCARD, 512)]);
    }
}
