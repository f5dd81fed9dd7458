//! The removal of a volume: gate, condemn, keep, purge; each resumable by the same order.
//!
//! ```text
//!   gate ─▶ order written, fsync ─▶ rename into ID/, fsync both ─▶ open after all? ─▶ back again
//!                                              │ condemned
//!                                              ▼
//!                     keep_for over? ─▶ truncate in steps, unlink ─▶ order unlinked ─▶ gone
//! ```
//!
//! At every moment the volume is whole under its own name, or whole or shrinking under its
//! removal's id, where no name reaches it.

use super::image::{Image, path_of};
use super::volumes::Domain;
use super::{io_error, lock};
use crate::{
    Identity, Locator, Removal, RemovalId, RemovalOrder, RemovalState, StorageError, VolumeName,
};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ORDER: &str = "order";
const VOLUME: &str = "volume";
/// The first step of a truncation; later ones are as large as [`STEP_TIME`] allows.
const FIRST_STEP: u64 = 64 << 20;
const LARGEST_STEP: u64 = 4 << 30;
/// No single call should hold the file system longer.
const STEP_TIME: Duration = Duration::from_millis(20);

/// The directory of a domain's removals.
#[derive(Debug)]
pub(super) struct Removals {
    dir: PathBuf,
}

/// A removal as it is written down, before anything is done.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    volume: VolumeName,
    identity: Identity,
    condemned_at: Timestamp,
    keep_until: Option<Timestamp>,
    /// Set before the first byte is freed: from then on there is no way back.
    purging: bool,
}

impl Removals {
    pub(super) fn open(dir: PathBuf) -> Result<Self, StorageError> {
        fs::create_dir_all(&dir).map_err(io_error(dir.display()))?;
        Ok(Self { dir })
    }

    fn of(&self, id: RemovalId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn read(&self, id: RemovalId) -> Result<Option<Order>, StorageError> {
        let what = format!("removal {id}");
        match fs::read(self.of(id).join(ORDER)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| StorageError::Corrupt { what, why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(what)(error)),
        }
    }

    /// Writes the order down, durably and whole.
    fn write(&self, id: RemovalId, order: &Order) -> Result<(), StorageError> {
        let dir = self.of(id);
        let write = || -> io::Result<()> {
            fs::create_dir_all(&dir)?;
            let temporary = dir.join("order.new");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(order)?)?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(ORDER))?;
            sync_dir(&dir)?;
            sync_dir(&self.dir)
        };
        write().map_err(io_error(format!("removal {id}")))
    }

    /// Forgets a removal whose volume is not here.
    fn forget(&self, id: RemovalId) -> Result<(), StorageError> {
        match fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("removal {id}"))(error))
            }
            _ => sync_dir(&self.dir).map_err(io_error(format!("removal {id}"))),
        }
    }

    fn ids(&self) -> Result<Vec<RemovalId>, StorageError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error(self.dir.display()))? {
            let entry = entry.map_err(io_error(self.dir.display()))?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<RemovalId>().ok()));
        }
        Ok(ids)
    }
}

impl Domain {
    pub(super) fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        let condemned = self.removals.of(order.id).join(VOLUME);
        if !exists(&condemned)? && !self.condemn(order, &condemned)? {
            self.removals.forget(order.id)?;
            return Ok(self.gone(order, 0, None));
        }
        let written = self.removals.read(order.id)?.ok_or_else(|| StorageError::Corrupt {
            what: format!("removal {}", order.id),
            why: "it has a volume and no order".to_owned(),
        })?;
        if written.keep_until.is_some_and(|until| now() < until) {
            return Ok(self.removal(order.id, &written));
        }
        let at = written.condemned_at;
        self.removals.write(order.id, &Order { purging: true, ..written })?;
        let freed = purge(&condemned)?;
        self.removals.forget(order.id)?;
        Ok(self.gone(order, freed, Some(at)))
    }

    pub(super) fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        let mut removals = Vec::new();
        for id in self.removals.ids()? {
            let Some(order) = self.removals.read(id)? else { continue };
            if exists(&self.removals.of(id).join(VOLUME))? {
                removals.push(self.removal(id, &order));
            }
        }
        Ok(removals)
    }

    pub(super) fn restore(&self, id: RemovalId) -> Result<VolumeName, StorageError> {
        let none = || StorageError::NotFound { what: format!("removal {id}") };
        let order = self.removals.read(id)?.ok_or_else(none)?;
        let condemned = self.removals.of(id).join(VOLUME);
        if !exists(&condemned)? {
            return Err(none());
        }
        if order.purging {
            return Err(StorageError::Busy { what: format!("removal {id}") });
        }
        self.bring_back(id, &order.volume)?;
        Ok(order.volume)
    }

    /// True when the volume is condemned; false when it is gone, or the name is another volume's.
    fn condemn(&self, order: &RemovalOrder, condemned: &Path) -> Result<bool, StorageError> {
        let image = match self.image(&order.volume) {
            Ok(image) => image,
            Err(StorageError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if image.identity != order.identity {
            return Ok(false);
        }
        self.gate(order, &image)?;
        let at = now();
        let keep = SignedDuration::try_from(order.keep_for).unwrap_or(SignedDuration::MAX);
        let keep_until = (!order.keep_for.is_zero()).then(|| at.saturating_add(keep).unwrap_or(Timestamp::MAX));
        let written = Order {
            volume: order.volume.clone(),
            identity: order.identity.clone(),
            condemned_at: at,
            keep_until,
            purging: false,
        };
        self.removals.write(order.id, &written)?;
        let what = format!("volume {}", self.volume(&order.volume));
        let flags = RenameFlags::NOREPLACE;
        renameat_with(&self.dir, order.volume.as_str(), rustix::fs::CWD, condemned, flags)
            .map_err(|errno| io_error(&what)(errno.into()))?;
        self.sync_both(order.id).map_err(io_error(&what))?;
        self.check_again(order, condemned, &image)?;
        Ok(true)
    }

    /// Between the gate and the rename somebody may have opened the volume, or put another one in
    /// its place.
    fn check_again(&self, order: &RemovalOrder, condemned: &Path, image: &Image) -> Result<(), StorageError> {
        let dir = File::open(self.removals.of(order.id)).map_err(io_error(condemned.display()))?;
        let moved = Image::open(dir, VOLUME, &format!("removal {}", order.id))?;
        let same = moved.identity == image.identity;
        let held = lock::is_held(&moved.file).map_err(io_error(condemned.display()))?;
        if same && !held {
            return Ok(());
        }
        self.bring_back(order.id, &order.volume)?;
        Err(self.in_use_by(&order.volume, "a process that has opened it just now"))
    }

    fn gate(&self, order: &RemovalOrder, image: &Image) -> Result<(), StorageError> {
        let what = format!("volume {}", self.volume(&order.volume));
        if lock::is_held(&image.file).map_err(io_error(what))? {
            return Err(self.in_use_by(&order.volume, "a process that has it open"));
        }
        let own = Locator::File(path_of(&self.root, &order.volume));
        for name in self.names()? {
            if name == order.volume {
                continue;
            }
            // One that vanishes while it is looked at needs nothing; one that cannot be read might.
            let parent = match self.image(&name) {
                Ok(image) => image.parent(&self.root),
                Err(StorageError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            if parent.is_some_and(|parent| parent.locator == own) {
                return Err(self.in_use_by(&order.volume, &format!("volume {name}, which is built on it")));
            }
        }
        Ok(())
    }

    fn in_use_by(&self, name: &VolumeName, by: &str) -> StorageError {
        StorageError::InUse { what: format!("volume {}", self.volume(name)), by: by.to_owned() }
    }

    fn bring_back(&self, id: RemovalId, name: &VolumeName) -> Result<(), StorageError> {
        let condemned = self.removals.of(id).join(VOLUME);
        let what = format!("volume {}", self.volume(name));
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(rustix::fs::CWD, &condemned, &self.dir, name.as_str(), flags) {
            Ok(()) => self.sync_both(id).map_err(io_error(&what))?,
            Err(rustix::io::Errno::EXIST) => {
                return Err(StorageError::Invalid(format!("{what} exists again")));
            }
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
            state: RemovalState::Condemned { keep_until: order.keep_until.filter(|_| !order.purging) },
            freed_bytes: 0,
            condemned_at: Some(order.condemned_at),
        }
    }

    fn gone(&self, order: &RemovalOrder, freed_bytes: u64, condemned_at: Option<Timestamp>) -> Removal {
        let volume = self.volume(&order.volume);
        Removal { id: order.id, volume, state: RemovalState::Gone, freed_bytes, condemned_at }
    }
}

/// Frees a file from its end, in steps, so that neighbours on the file system do not stall, and
/// unlinks what is left. Gives the bytes freed.
fn purge(file: &Path) -> Result<u64, StorageError> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = || io_error(file.display());
    let open = OpenOptions::new().write(true).open(file).map_err(failed())?;
    let stat = open.metadata().map_err(failed())?;
    let freed = stat.blocks() * 512;
    let (mut left, mut step) = (stat.len(), FIRST_STEP);
    while left > 0 && freed > 0 {
        left = left.saturating_sub(step);
        let begun = Instant::now();
        open.set_len(left).map_err(failed())?;
        let slow = begun.elapsed() > STEP_TIME;
        step = if slow { (step / 2).max(1 << 20) } else { (step * 2).min(LARGEST_STEP) };
    }
    fs::remove_file(file).map_err(failed())?;
    Ok(freed)
}

fn exists(path: &Path) -> Result<bool, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(path.display())(error)),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[allow(clippy::disallowed_methods, reason = "storage dates what it condemns by the host's clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
