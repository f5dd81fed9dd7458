//! The removal of a volume: gate, condemn, keep, purge; each resumable by the same order.
//!
//! ```text
//!   gate ─▶ order written, fsync ─▶ rename into ID/, fsync both ─▶ another file? ─▶ back again
//!                                              │ condemned
//!                                              ▼
//!         keep_for over? ─▶ purging written ─▶ truncate in steps, unlink ─▶ ID/ removed ─▶ gone
//! ```
//!
//! At every moment the volume is whole under its own name, or whole or shrinking under its
//! removal's id, where no name reaches it. From the gate to the rename its image lock is held, so
//! that no process of QEMU's opens it in between.

use super::domain::Domain;
use super::image::Image;
use super::io_error;
use super::order::{Order, VOLUME, sync_dir};
use crate::{Removal, RemovalId, RemovalOrder, RemovalState, StorageError, VolumeName};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) use super::order::Removals;

/// The first step of a truncation; later ones are as large as [`STEP_TIME`] allows.
const FIRST_STEP: u64 = 64 << 20;
const LARGEST_STEP: u64 = 4 << 30;
/// No single call should hold the file system longer.
const STEP_TIME: Duration = Duration::from_millis(20);

impl Domain {
    pub(super) fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let turn = self.turns.name()?;
        let written = match self.removals.read(order.id)? {
            Some(written) => written,
            None => match self.condemn(order)? {
                Some(written) => written,
                None => {
                    self.removals.forget(order.id)?;
                    return Ok(self.gone(order, 0, None));
                }
            },
        };
        written.check(order)?;
        if written.is_kept(now()) {
            return Ok(self.removal(order.id, &written));
        }
        let at = written.condemned_at;
        if !written.purging {
            self.removals.write(
                order.id,
                &Order {
                    purging: true,
                    ..written
                },
            )?;
        }
        // Freeing takes its time, and concerns no name.
        drop(turn);
        let freed = purge(&self.removals.of(order.id))?;
        self.removals.forget(order.id)?;
        Ok(self.gone(order, freed, Some(at)))
    }

    pub(super) fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        let all = self.removals.all()?;
        Ok(all
            .iter()
            .map(|(id, order)| self.removal(*id, order))
            .collect())
    }

    pub(super) fn restore(&self, id: RemovalId) -> Result<VolumeName, StorageError> {
        let _turn = self.turns.name()?;
        let what = format!("removal {id}");
        let Some(order) = self.removals.read(id)? else {
            return Err(StorageError::NotFound { what });
        };
        if !order.is_kept(now()) {
            return Err(StorageError::Busy { what });
        }
        self.bring_back(id, &order.volume)?;
        Ok(order.volume)
    }

    /// `None` when the volume is gone, or the name is another volume's.
    fn condemn(&self, order: &RemovalOrder) -> Result<Option<Order>, StorageError> {
        let image = match self.image_to_lock(&order.volume) {
            Ok(image) => image,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if image.identity != order.identity {
            return Ok(None);
        }
        let now = now();
        let _held = self.gate(order, &image, now)?;
        let written = Order::new(order, now);
        self.removals.write(order.id, &written)?;
        let what = self.what(&order.volume);
        let condemned = self.removals.condemned(order.id);
        renameat_with(
            &self.dir,
            order.volume.as_str(),
            CWD,
            &condemned,
            RenameFlags::NOREPLACE,
        )
        .map_err(|errno| io_error(&what)(errno.into()))?;
        self.sync_both(order.id).map_err(io_error(&what))?;
        self.check_again(order, &image)?;
        Ok(Some(written))
    }

    /// Between the gate and the rename somebody may have put another volume in its place.
    fn check_again(&self, order: &RemovalOrder, image: &Image) -> Result<(), StorageError> {
        let what = format!("removal {}", order.id);
        let dir = File::open(self.removals.of(order.id)).map_err(io_error(&what))?;
        if Image::open(dir, OsStr::new(VOLUME), &what)?.identity == image.identity {
            return Ok(());
        }
        self.bring_back(order.id, &order.volume)?;
        Err(self.in_use_by(&order.volume, "whoever has put another one in its place"))
    }

    fn bring_back(&self, id: RemovalId, name: &VolumeName) -> Result<(), StorageError> {
        let what = self.what(name);
        let condemned = self.removals.condemned(id);
        match renameat_with(
            CWD,
            &condemned,
            &self.dir,
            name.as_str(),
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => self.sync_both(id).map_err(io_error(&what))?,
            Err(Errno::EXIST) => return Err(StorageError::Invalid(format!("{what} exists again"))),
            Err(errno) => return Err(io_error(&what)(errno.into())),
        }
        self.removals.forget(id)
    }

    fn sync_both(&self, id: RemovalId) -> io::Result<()> {
        sync_dir(&self.removals.of(id))?;
        self.dir.sync_all()
    }

    fn removal(&self, id: RemovalId, order: &Order) -> Removal {
        Removal {
            id,
            volume: self.volume(&order.volume),
            state: RemovalState::Condemned {
                keep_until: order.keep_until.filter(|_| !order.purging),
            },
            freed_bytes: 0,
            condemned_at: Some(order.condemned_at),
        }
    }

    fn gone(
        &self,
        order: &RemovalOrder,
        freed_bytes: u64,
        condemned_at: Option<Timestamp>,
    ) -> Removal {
        let volume = self.volume(&order.volume);
        Removal {
            id: order.id,
            volume,
            state: RemovalState::Gone,
            freed_bytes,
            condemned_at,
        }
    }
}

/// Frees a condemned volume from its end, in steps, so that neighbours on the file system do not
/// stall, and unlinks what is left: durably, before its order goes. Gives the bytes freed.
///
/// # Errors
/// `Busy` while another call frees it.
fn purge(dir: &Path) -> Result<u64, StorageError> {
    use std::os::unix::fs::MetadataExt as _;
    let file = &dir.join(VOLUME);
    let failed = || io_error(file.display());
    let open = match OpenOptions::new().write(true).open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed()(error)),
    };
    match open.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StorageError::Busy {
                what: file.display().to_string(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed()(error)),
    }
    let stat = open.metadata().map_err(failed())?;
    let freed = stat.blocks() * 512;
    let (mut left, mut step) = (stat.len(), FIRST_STEP);
    while left > 0 && freed > 0 {
        left = left.saturating_sub(step);
        let begun = Instant::now();
        open.set_len(left).map_err(failed())?;
        let slow = begun.elapsed() > STEP_TIME;
        step = if slow {
            (step / 2).max(1 << 20)
        } else {
            (step * 2).min(LARGEST_STEP)
        };
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(freed),
        removed => removed
            .and_then(|()| sync_dir(dir))
            .map_err(failed())
            .map(|()| freed),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "storage dates what it condemns by the host's clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
