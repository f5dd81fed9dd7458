//! The gate of a removal: whether anything may still need the volume.
//!
//! It asks whoever could tell, and each answer that cannot be had is a refusal:
//!
//! ```text
//!   the image's lock                       a process of QEMU's has it open
//!   every regular file of the directory    an image is built on it, foreign ones too
//!   every condemned volume that is kept    it could be restored, and would need it
//! ```
//!
//! Images outside the domain are not seen here; who orders the removal knows of those.

use super::domain::Domain;
use super::image::Image;
use super::io_error;
use super::lock::{self, Held};
use super::order::VOLUME;
use crate::{RemovalOrder, StorageError};
use jiff::Timestamp;
use std::ffi::OsStr;
use std::fs::File;

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
        self.no_file_needs(order, image)?;
        self.nothing_kept_needs(order, image, now)?;
        Ok(held)
    }

    fn no_file_needs(&self, order: &RemovalOrder, image: &Image) -> Result<(), StorageError> {
        let path = self.path(&order.volume);
        for name in self.files()? {
            if name == order.volume.as_str() {
                continue;
            }
            let shown = format!("file {}", self.root.join(&name).display());
            // One that vanishes while it is looked at needs nothing; one that cannot be read might.
            match Image::open(&self.dir, &name, &shown) {
                Ok(other) if other.needs(&self.root, &image.target(&path))? => {
                    return Err(
                        self.in_use_by(&order.volume, &format!("{shown}, which is built on it"))
                    );
                }
                Ok(_) | Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn nothing_kept_needs(
        &self,
        order: &RemovalOrder,
        image: &Image,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let path = self.path(&order.volume);
        for (id, other) in self.removals.all()? {
            if !other.is_kept(now) {
                continue;
            }
            let what = format!("removal {id}");
            let dir = File::open(self.removals.of(id)).map_err(io_error(&what))?;
            let kept = Image::open(dir, OsStr::new(VOLUME), &what)?;
            if kept.needs(&self.root, &image.target(&path))? {
                let by = format!(
                    "volume {}, which is built on it and kept by {what}",
                    other.volume
                );
                return Err(self.in_use_by(&order.volume, &by));
            }
        }
        Ok(())
    }
}
