//! Condemned volumes: which there are, and bringing one back.

use super::domain::Domain;
use super::name::Role;
use super::removal::Working;
use super::report::Logical;
use super::tag;
use super::turn::Turn;
use crate::condemned::{Condemned, now};
use crate::{Removal, RemovalId, StorageError, VolumeInfo, VolumeName};
use std::sync::Arc;

impl Domain {
    /// Whoever goes on with removals asks again and again: so a volume that was half made, and could not
    /// be taken away then, does not hold what it was to be built on for ever.
    pub(super) async fn list_removals(self: &Arc<Self>) -> Result<Vec<Removal>, StorageError> {
        let group = self.report().await?;
        if group.ours().any(|volume| volume.role() == Role::New) {
            // If this fails, too, the next one does it.
            let _ = self.sweep().await;
        }
        let mut removals = Vec::new();
        for volume in group.ours() {
            if let Role::Removed(id) = volume.role() {
                removals.push(self.written(volume)?.removal(id, self.id()));
            }
        }
        Ok(removals)
    }

    pub(super) async fn restore(
        self: Arc<Self>,
        id: RemovalId,
    ) -> Result<VolumeInfo, StorageError> {
        let _working = Working::on(&self, id)?;
        let turn = self.name_turn().await?;
        let group = self.report().await?;
        let what = format!("removal {id}");
        let Some(volume) = group.removed(id) else {
            return Err(StorageError::NotFound { what });
        };
        let written = self.written(volume)?;
        if !written.is_kept(now()) {
            return Err(StorageError::NotKept { what });
        }
        self.bring_back(volume, &written.volume, &turn).await?;
        let mut back = group.clone();
        back.rename(&volume.name, &written.volume);
        self.info(back, &written.volume, &turn).await
    }

    /// Under its own name again, unless somebody has that. What its tags say of a removal means nothing
    /// there.
    pub(super) async fn bring_back(
        &self,
        volume: &Logical,
        name: &VolumeName,
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let lvm = self.lvm.during(turn);
        // Before it can be opened: nothing is left to do for a volume that has its name.
        if volume.tags.iter().any(|tag| tag == tag::AUTOACTIVATES) {
            lvm.autoactivate(&volume.name, true).await?;
        }
        lvm.rename(&volume.name, name.as_str()).await?;
        let old: Vec<_> = tag::of_removals(&volume.tags).cloned().collect();
        lvm.retag(name.as_str(), &[], &old).await
    }

    /// # Errors
    /// `Corrupt` for a condemned volume without an order: it is never passed over.
    pub(super) fn written(&self, volume: &Logical) -> Result<Condemned, StorageError> {
        tag::removal(&volume.tags).map_err(|why| StorageError::Corrupt {
            what: format!("logical volume {}", volume.name),
            why,
        })
    }
}
