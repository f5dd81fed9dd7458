//! The removal of a volume: gate, condemn, keep, purge; each resumable by the same order.
//!
//! ```text
//!   gate ─▶ order written, fsync ─▶ rename into ID/, fsync both ─▶ another file? ─▶ back again
//!                                              │ condemned
//!                                              ▼
//!         keep_for over? ─▶ purging written ─▶ wipe ─▶ truncate in steps, unlink ─▶ ID/ removed ─▶ gone
//! ```
//!
//! At every moment the volume is whole under its own name, or whole or shrinking under its
//! removal's id, where no name reaches it. Where a rename takes two steps it may have both names;
//! then it counts as not condemned. From the gate to the rename its image lock is held, so
//! that no process of QEMU's opens it in between.

use super::domain::Domain;
use super::image;
use super::purge::{purge, take};
use super::removals::sync_dir;
use crate::condemned::{Condemned, now};
use crate::error::io_error;
use crate::{Identity, Removal, RemovalId, RemovalOrder, StorageError, VolumeName};
use rustix::fs::CWD;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

/// How far a removal has come.
enum Begun {
    /// As far as it goes by now.
    Ended(Removal),
    /// The volume is freed by this call, which has it alone; `None`: it was before.
    Freeing(Condemned, Option<File>),
}

impl Domain {
    pub(super) async fn remove(
        self: Arc<Self>,
        order: RemovalOrder,
        wiped_per_second: u64,
    ) -> Result<Removal, StorageError> {
        let ordered = order.clone();
        let begun = self.with(move |domain| domain.begin(&ordered)).await?;
        let (written, volume) = match begun {
            Begun::Ended(removal) => return Ok(removal),
            Begun::Freeing(written, volume) => (written, volume),
        };
        let (volume, wiped) = match volume {
            Some(volume) if written.wipe => {
                let what = self.what(&order.volume);
                let (volume, wiped) = self.wipe_in_turn(volume, what, wiped_per_second).await?;
                (Some(volume), wiped)
            }
            volume => (volume, 0),
        };
        self.with(move |domain| {
            let freed = wiped + domain.free(order.id, volume.as_ref())?;
            Ok(order.gone(domain.id(), freed, Some(written.condemned_at)))
        })
        .await
    }

    /// As far as it goes before anything is freed.
    fn begin(&self, order: &RemovalOrder) -> Result<Begun, StorageError> {
        if order.discard {
            let text = "files are not discarded: whoever mounts their file system decides that";
            return Err(StorageError::Invalid(text.to_owned()));
        }
        let _turn = self.turns.name()?;
        let written = match self.condemned(order.id)? {
            Some(written) => written,
            None if order.resumes => return Ok(Begun::Ended(order.gone(self.id(), 0, None))),
            None => match self.condemn(order)? {
                Some(written) => written,
                None => {
                    self.removals.forget(order.id)?;
                    return Ok(Begun::Ended(order.gone(self.id(), 0, None)));
                }
            },
        };
        written.check(order)?;
        if !written.purging {
            self.check_again(order)?;
        }
        if written.is_kept(now()) {
            return Ok(Begun::Ended(written.removal(order.id, self.id())));
        }
        if !written.purging {
            let purging = Condemned {
                purging: true,
                ..written.clone()
            };
            self.removals.write(order.id, &purging)?;
        }
        let volume = take(&self.removals.of(order.id))?;
        Ok(Begun::Freeing(written, volume))
    }

    /// Takes its time, and concerns no name.
    fn free(&self, id: RemovalId, volume: Option<&File>) -> Result<u64, StorageError> {
        let freed = match volume {
            Some(volume) => purge(&self.removals.of(id), volume)?,
            None => 0,
        };
        self.removals.forget(id)?;
        Ok(freed)
    }

    pub(super) fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        let all = self.removals.all()?;
        Ok(all
            .iter()
            .map(|(id, order)| order.removal(*id, self.id()))
            .collect())
    }

    pub(super) fn restore(&self, id: RemovalId) -> Result<VolumeName, StorageError> {
        let _turn = self.turns.name()?;
        let what = format!("removal {id}");
        let Some(order) = self.condemned(id)? else {
            return Err(StorageError::NotFound { what });
        };
        if !order.is_kept(now()) {
            return Err(StorageError::NotKept { what });
        }
        self.bring_back(id, &order.volume)?;
        Ok(order.volume)
    }

    /// `None` when the volume is gone, or the name is another volume's.
    fn condemn(&self, order: &RemovalOrder) -> Result<Option<Condemned>, StorageError> {
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
        let written = Condemned::new(order, now);
        self.removals.write(order.id, &written)?;
        let what = self.what(&order.volume);
        let condemned = self.removals.condemned(order.id);
        let own_name = Path::new(order.volume.as_str());
        self.renames
            .give((self.dir.as_fd(), own_name), (CWD, &condemned))
            .map_err(|errno| io_error(&what)(errno.into()))?;
        self.sync_both(order.id).map_err(io_error(&what))?;
        Ok(Some(written))
    }

    /// The removal of a volume that is condemned; `None` when there is none.
    fn condemned(&self, id: RemovalId) -> Result<Option<Condemned>, StorageError> {
        match self.removals.read(id)? {
            Some(order) if self.settle(id, &order)? => Ok(None),
            order => Ok(order),
        }
    }

    /// A volume with both names stopped between the two steps of a rename: on its way to be
    /// condemned, or back. It can be opened by its own name, so that one counts. Tells whether it
    /// was so.
    fn settle(&self, id: RemovalId, order: &Condemned) -> Result<bool, StorageError> {
        if order.purging {
            return Ok(false);
        }
        let named = match self.image_identity(&order.volume) {
            Ok(identity) => identity,
            Err(StorageError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let both = named == self.condemned_identity(id)?;
        if both {
            self.removals.forget(id)?;
        }
        Ok(both)
    }

    fn condemned_identity(&self, id: RemovalId) -> Result<Identity, StorageError> {
        let what = format!("removal {id}");
        image::identity_under(CWD, self.removals.condemned(id).as_os_str(), &what)
    }

    fn image_identity(&self, name: &VolumeName) -> Result<Identity, StorageError> {
        image::identity_under(&self.dir, OsStr::new(name.as_str()), &self.what(name))
    }

    /// Between the gate and the rename somebody may have put another volume in its place. Looked at
    /// before anything is freed, whichever call condemned it.
    fn check_again(&self, order: &RemovalOrder) -> Result<(), StorageError> {
        if self.condemned_identity(order.id)? == order.identity {
            return Ok(());
        }
        self.bring_back(order.id, &order.volume)?;
        Err(self.in_use_by(&order.volume, "whoever has put another one in its place"))
    }

    fn bring_back(&self, id: RemovalId, name: &VolumeName) -> Result<(), StorageError> {
        let what = self.what(name);
        let condemned = self.removals.condemned(id);
        let own_name = Path::new(name.as_str());
        let given = self
            .renames
            .give((CWD, &condemned), (self.dir.as_fd(), own_name));
        match given {
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
}

#[cfg(test)]
mod tests {
    use super::super::rename::Renames;
    use super::*;
    use crate::RemovalState;
    use std::fs;
    use std::time::Duration;

    /// A domain on which nothing is renamed in one step, with a volume, and an order for it.
    fn on_nfs(dir: &Path) -> (Domain, RemovalOrder) {
        let mut domain = Domain::open("domain".parse().unwrap(), dir).unwrap();
        domain.renames = Renames::of_nfs();
        fs::write(dir.join("v.raw"), vec![7; 1 << 16]).unwrap();
        let name: VolumeName = "v.raw".parse().unwrap();
        let identity = domain.stat(&name).unwrap().identity;
        let order = RemovalOrder {
            keep_for: Duration::from_secs(3600),
            ..RemovalOrder::new(RemovalId::from(uuid::Uuid::new_v4()), name, identity)
        };
        (domain, order)
    }

    fn remove(domain: &Domain, order: &RemovalOrder) -> Result<Removal, StorageError> {
        match domain.begin(order)? {
            Begun::Ended(removal) => Ok(removal),
            Begun::Freeing(written, volume) => {
                let freed = domain.free(order.id, volume.as_ref())?;
                Ok(order.gone(domain.id(), freed, Some(written.condemned_at)))
            }
        }
    }

    fn bytes(file: &Path) -> usize {
        fs::read(file).map_or(0, |bytes| bytes.len())
    }

    #[test]
    fn a_file_system_that_renames_in_two_steps_removes_and_restores() {
        let dir = tempfile::tempdir().unwrap();
        let (domain, order) = on_nfs(dir.path());
        let own = dir.path().join("v.raw");
        remove(&domain, &order).unwrap();
        assert!(!own.exists());
        domain.restore(order.id).unwrap();
        assert_eq!(bytes(&own), 1 << 16);
        let now = RemovalOrder {
            keep_for: Duration::ZERO,
            ..order
        };
        let removal = remove(&domain, &now).unwrap();
        assert_eq!(removal.state, RemovalState::Gone);
        assert!(removal.freed_bytes > 0);
        assert!(!own.exists());
    }

    /// Between the two steps, on the way out and on the way back.
    #[test]
    fn a_volume_with_both_names_is_not_freed_under_the_one_that_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let (domain, order) = on_nfs(dir.path());
        let own = dir.path().join("v.raw");
        remove(&domain, &order).unwrap();
        fs::hard_link(domain.removals.condemned(order.id), &own).unwrap();
        let now = RemovalOrder {
            keep_for: Duration::ZERO,
            ..order.clone()
        };
        let reader = File::options().read(true).write(true).open(&own).unwrap();
        let opened = crate::image::lock::take(&reader).unwrap();
        let refused = remove(&domain, &now);
        assert!(
            matches!(refused, Err(StorageError::InUse { .. })),
            "{refused:?}"
        );
        assert_eq!(bytes(&own), 1 << 16);
        let restored = domain.restore(order.id);
        assert!(
            matches!(restored, Err(StorageError::NotFound { .. })),
            "{restored:?}"
        );
        drop(opened);
        assert_eq!(remove(&domain, &now).unwrap().state, RemovalState::Gone);
        assert!(!own.exists());
    }
}
