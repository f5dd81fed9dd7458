//! The gate of a removal: whether anything may still need the volume.
//!
//! It asks whoever could tell, and each answer that cannot be had is a refusal:
//!
//! ```text
//!   the image's lock                       a process of QEMU's has it open
//!   every regular file of the directory    an image is built on it, foreign ones too
//!   every condemned volume that is kept    it could be restored, and would need it: unless this one is
//!                                          kept for as long
//! ```
//!
//! The last two are what [`crate::VolumeStore::dependents`] tells of any file. Images outside the
//! domain are not seen here; who orders the removal knows of those.
//!
//! An image that cannot be read might need anything. It is not the fault of the volume that is
//! asked about, and may be whole in a moment (somebody copies it): that is no answer yet, not a no.

use super::domain::Domain;
use super::image::Image;
use super::removals::VOLUME;
use crate::condemned::Condemned;
use crate::error::io_error;
use crate::image::backing::{Target, leads_to};
use crate::image::lock::{self, Held};
use crate::{Dependent, Locator, RemovalOrder, StorageError};
use jiff::Timestamp;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

impl Domain {
    /// Passes when nothing needs the volume, and holds its lock.
    pub(super) fn gate<'a>(
        &self,
        order: &RemovalOrder,
        image: &'a Image,
        now: Timestamp,
    ) -> Result<Held<'a>, StorageError> {
        let held = lock::take(&image.file).map_err(io_error(self.what(&order.volume)))?;
        let held =
            held.ok_or_else(|| self.in_use_by(&order.volume, "a process that has it open"))?;
        let target = image.target(self.path(&order.volume));
        let needers = self.needers(&[target], now)?;
        let needs = |(_, needer): &&(usize, Needer)| match &needer.kept {
            Some(kept) => kept.outlasts(order, now),
            None => true,
        };
        match needers.iter().find(needs) {
            None => Ok(held),
            Some((_, needer)) => {
                let by = format!("{}, which is built on it", needer.shown);
                Err(self.in_use_by(&order.volume, &by))
            }
        }
    }

    pub(super) fn dependents(
        &self,
        on: &[Locator],
        now: Timestamp,
    ) -> Result<Vec<Dependent>, StorageError> {
        let mut asked = Vec::new();
        for locator in on {
            if let Locator::File(path) | Locator::Block(path) = locator {
                asked.push((locator, Target::of(path)?));
            }
        }
        let (locators, targets): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        // Nothing is condemned or restored between the look at the files and that at the kept ones.
        let _turn = self.turns.name()?;
        let found = self.needers(&targets, now)?.into_iter();
        let dependents = found.map(|(target, needer)| Dependent {
            on: locators[target].clone(),
            volume: self.volume_at(&needer.path),
            locator: Locator::File(needer.path),
            kept: needer.kept.is_some(),
        });
        Ok(dependents.collect())
    }

    /// Who needs which of the targets, by its index.
    fn needers(
        &self,
        targets: &[Target],
        now: Timestamp,
    ) -> Result<Vec<(usize, Needer)>, StorageError> {
        let mut found = Vec::new();
        for name in self.files()? {
            let path = self.root.join(&name);
            let shown = format!("file {}", path.display());
            let image = Image::open(&self.dir, &name, &shown);
            let needer = Needer {
                path,
                shown,
                kept: None,
            };
            found.extend(needer.needs(image, &self.root, targets)?);
        }
        let removals = self.removals.all();
        for (id, order) in removals.map_err(|error| unreadable("a removal", error))? {
            if order.is_kept(now) {
                let shown = format!("volume {}, kept by removal {id}", order.volume);
                let dir = File::open(self.removals.of(id)).map_err(io_error(&shown))?;
                let image = Image::open(dir, OsStr::new(VOLUME), &shown);
                let needer = Needer {
                    path: self.removals.condemned(id),
                    shown,
                    kept: Some(order),
                };
                found.extend(needer.needs(image, &self.root, targets)?);
            }
        }
        Ok(found)
    }
}

/// What may need a target.
#[derive(Debug, Clone)]
struct Needer {
    path: PathBuf,
    /// For messages.
    shown: String,
    /// The removal by which it is condemned and kept.
    kept: Option<Condemned>,
}

impl Needer {
    fn needs(
        &self,
        image: Result<Image, StorageError>,
        root: &Path,
        targets: &[Target],
    ) -> Result<Vec<(usize, Self)>, StorageError> {
        let unread = |error| unreadable(&self.shown, error);
        let image = match image {
            Ok(image) => image,
            // One that vanishes while it is looked at needs nothing; one that cannot be read might.
            Err(StorageError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(unread(error)),
        };
        let needed = image.needs(root, &self.shown).map_err(unread)?;
        let mut found = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let mut means = false;
            for path in &needed {
                means |= leads_to(path, target)?;
            }
            if means && !image.is(target) {
                found.push((index, self.clone()));
            }
        }
        Ok(found)
    }
}

/// What is wrong with another image is no answer about the volume that was asked for.
fn unreadable(shown: &str, error: StorageError) -> StorageError {
    match error {
        StorageError::Corrupt { .. } | StorageError::Invalid(_) => StorageError::Unreachable {
            what: format!("what {shown} is built on"),
            source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        },
        other => other,
    }
}
