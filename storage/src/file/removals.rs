//! Removals as they are written down, before anything is done to their volumes.
//!
//! ```text
//!   removals/ID/order    what is removed, and how far: replaced whole, never changed in place
//!   removals/ID/volume   the condemned volume
//! ```

use crate::condemned::Condemned;
use crate::error::io_error;
use crate::{RemovalId, StorageError};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const ORDER: &str = "order";
pub(super) const VOLUME: &str = "volume";

/// The directory of a domain's removals.
#[derive(Debug)]
pub(super) struct Removals {
    dir: PathBuf,
}

impl Removals {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn of(&self, id: RemovalId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// The condemned volume's path, whether it is there or not.
    pub(super) fn condemned(&self, id: RemovalId) -> PathBuf {
        self.of(id).join(VOLUME)
    }

    /// The removal of a volume that is condemned; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` for a condemned volume without an order: it is never passed over.
    pub(super) fn read(&self, id: RemovalId) -> Result<Option<Condemned>, StorageError> {
        if !exists(&self.condemned(id))? {
            return Ok(None);
        }
        let corrupt = |why: String| StorageError::Corrupt {
            what: format!("removal {id}"),
            why,
        };
        match fs::read(self.of(id).join(ORDER)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| corrupt(e.to_string())),
            // Between the two looks it may have ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = exists(&self.condemned(id))?;
                if there {
                    Err(corrupt("it has a volume and no order".to_owned()))
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(io_error(format!("removal {id}"))(error)),
        }
    }

    /// Writes the order down, durably and whole.
    pub(super) fn write(&self, id: RemovalId, order: &Condemned) -> Result<(), StorageError> {
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
    pub(super) fn forget(&self, id: RemovalId) -> Result<(), StorageError> {
        match fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("removal {id}"))(error))
            }
            _ => sync_dir(&self.dir).map_err(io_error(format!("removal {id}"))),
        }
    }

    /// The removals that are written down with their volumes.
    pub(super) fn all(&self) -> Result<Vec<(RemovalId, Condemned)>, StorageError> {
        let mut all = Vec::new();
        for id in self.ids()? {
            all.extend(self.read(id)?.map(|order| (id, order)));
        }
        Ok(all)
    }

    /// Forgets the removals that condemned nothing, or have freed everything.
    pub(super) fn sweep(&self) -> Result<(), StorageError> {
        for id in self.ids()? {
            if !exists(&self.condemned(id))? {
                self.forget(id)?;
            }
        }
        Ok(())
    }

    fn ids(&self) -> Result<Vec<RemovalId>, StorageError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error(self.dir.display()))? {
            let entry = entry.map_err(io_error(self.dir.display()))?;
            ids.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<RemovalId>().ok()),
            );
        }
        Ok(ids)
    }
}

fn exists(path: &Path) -> Result<bool, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(path.display())(error)),
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
