//! Condemned volumes: which there are, and bringing one back.
//!
//! ```text
//!   taken from another? ─▶ name given ─▶ taken from another? ─▶ tombstone Restored ─▶ tombstone deleted
//!                                           └─▶ name taken back: condemned still, refused
//! ```
//!
//! Who is asked again goes on with a restoration that died on its way, however long ago: a volume that has its
//! name is back.

use super::domain::Domain;
use super::records::Read;
use super::removal::{Stage, Tombstone};
use crate::condemned::now;
use crate::{Removal, RemovalId, StorageError, VolumeName};
use std::collections::HashSet;
use uuid::Uuid;

impl Domain {
    pub(super) async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        let (stones, named) = tokio::try_join!(self.tombstones(), self.names.all())?;
        let named: HashSet<String> = named.iter().map(|(_, uuid)| uuid.to_string()).collect();
        let condemned = stones.into_iter().filter(|(_, stone)| {
            let purging = stone.stage == Stage::Purging;
            purging || !named.contains(stone.order.identity.as_str())
        });
        let removals = condemned.map(|(id, stone)| stone.order.removal(id, &self.id));
        Ok(removals.collect())
    }

    pub(super) async fn restore(&self, id: RemovalId) -> Result<VolumeName, StorageError> {
        let _turn = self.turn.lock().await;
        let stone = self.tombstone(id).await?.ok_or_else(|| not_found(id))?;
        let name = stone.record.order.volume.clone();
        let uuid = Uuid::try_parse(stone.record.order.identity.as_str());
        let uuid = uuid.map_err(|error| StorageError::Corrupt {
            what: what(id),
            why: error.to_string(),
        })?;
        let named = self.names.holder(&name).await? == Some(uuid);
        match stone.record.stage {
            Stage::Restored => {}
            // Brought back by a call that has died since.
            Stage::Kept if named => {}
            // It was never condemned.
            Stage::Taking if named => return Err(not_found(id)),
            _ if stone.record.order.is_kept(now()) => {}
            _ => return Err(StorageError::NotKept { what: what(id) }),
        }
        match self.manifest(&name, uuid).await {
            Ok(_) => {}
            // Objects of no volume.
            Err(StorageError::NotFound { .. }) => {
                return Err(StorageError::NotKept { what: what(id) });
            }
            Err(error) => return Err(error),
        }
        self.give_back(id, &name, uuid).await?;
        if stone.record.stage != Stage::Restored {
            self.write_restored(id, &name, uuid, stone).await?;
        }
        self.records.delete(&self.keys.removal(id)).await?;
        Ok(name)
    }

    /// Gives a condemned volume its name, unless that is being taken from another one.
    async fn give_back(
        &self,
        id: RemovalId,
        name: &VolumeName,
        uuid: Uuid,
    ) -> Result<(), StorageError> {
        let refused = || self.in_use_by(name, "one of that name that is being removed");
        // What cannot be told is left for the next call, before and after.
        if self.is_being_taken(name, Some(id)).await? {
            self.names.take(name, uuid).await?;
            return Err(refused());
        }
        if self.names.give(name, uuid).await? != uuid {
            let text = format!("{} exists again", self.what(name));
            return Err(StorageError::Invalid(text));
        }
        if self.is_being_taken(name, Some(id)).await? {
            self.names.take(name, uuid).await?;
            return Err(refused());
        }
        Ok(())
    }

    /// Writes down that a volume has its name back, unless it is being freed by now: then it loses that
    /// again.
    async fn write_restored(
        &self,
        id: RemovalId,
        name: &VolumeName,
        uuid: Uuid,
        stone: Read<Tombstone>,
    ) -> Result<(), StorageError> {
        let back = stone.record.at(Stage::Restored);
        let at = self.keys.removal(id);
        let put = self.records.replace(&at, &back, stone.version).await?;
        if put.is_some() {
            return Ok(());
        }
        // Somebody else has begun to free it, or to restore it.
        let now = self.tombstone(id).await?.map(|stone| stone.record.stage);
        if now == Some(Stage::Purging) {
            self.names.take(name, uuid).await?;
            return Err(StorageError::NotKept { what: what(id) });
        }
        // And has ended: then it is whole, or there is nothing of it.
        match self.manifest(name, uuid).await {
            Err(StorageError::NotFound { .. }) if now.is_none() => {
                self.names.take(name, uuid).await?;
                Err(not_found(id))
            }
            there => there.map(drop),
        }
    }
}

fn what(id: RemovalId) -> String {
    format!("removal {id}")
}

fn not_found(id: RemovalId) -> StorageError {
    StorageError::NotFound { what: what(id) }
}
