//! Condemning volumes, and going on with those that are condemned.
//!
//! ```text
//!   deactivate ─▶ order into tags ─▶ lvrename ─▶ needed by now? ─▶ back under its name
//!                                       │
//!                                       ▼
//!                       kept, or as far as it is to be emptied or to go
//! ```

use super::domain::{Domain, locked};
use super::family::Family;
use super::gate::Needer;
use super::name::removed;
use super::removal::{Answer, Asked, Next};
use super::report::{Group, Logical};
use super::tag;
use super::turn::Turn;
use crate::condemned::{Condemned, now};
use crate::{RemovalOrder, StorageError, VolumeName};
use std::sync::Arc;
use std::time::Duration;

impl Domain {
    /// Condemns those that go the long way, and looks again whether anything needs them by now.
    pub(super) async fn condemn_all(
        self: &Arc<Self>,
        batch: &[Asked],
        next: &mut [Next],
        family: &Family,
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let mut condemned = Vec::new();
        for index in family.order() {
            let Next::Condemn(volume) = &next[index] else {
                continue;
            };
            let order = &batch[index].order;
            let mut children = family.children(index).iter();
            let done = match children.find(|child| next[**child].stays()) {
                Some(child) => {
                    let by = format!("volume {}, which stays", batch[*child].order.volume);
                    Err(self.in_use_by(&order.volume, &by))
                }
                None => self.condemn(order, volume, turn).await,
            };
            match done {
                Ok(()) => condemned.push(index),
                Err(error) => next[index] = Next::Answer(Err(error)),
            }
        }
        if condemned.is_empty() {
            return Ok(());
        }
        let orders: Vec<_> = batch.iter().map(|asked| asked.order.clone()).collect();
        let (group, family) = self.family(self.report().await?, orders, turn).await?;
        for index in family.order() {
            if !condemned.contains(&index) {
                continue;
            }
            let needer = self.in_the_way(batch, next, &family, &group, index);
            let looked = self.resume(&batch[index], &group, needer.as_ref(), true, turn);
            let looked = looked.await;
            next[index] = looked.unwrap_or_else(|error| Next::Answer(Err(error)));
        }
        Ok(())
    }

    async fn condemn(
        &self,
        order: &RemovalOrder,
        volume: &Logical,
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let lvm = self.lvm.during(turn);
        if volume.device.is_some() {
            lvm.deactivate(&[&volume.name]).await?;
        }
        locked(&self.wanted).remove(&order.volume);
        // A removal that stopped here before has left its tags.
        let mut tags = tag::of_removal(&Condemned::new(order, now()));
        let stays_inactive = volume.autoactivates && !order.keep_for.is_zero();
        if stays_inactive {
            tags.push(tag::AUTOACTIVATES.to_owned());
        }
        let without = |tags: &[String], others: &[String]| -> Vec<String> {
            let other = |tag: &&String| !others.contains(tag);
            tag::of_removals(tags).filter(other).cloned().collect()
        };
        let (more, less) = (without(&tags, &volume.tags), without(&volume.tags, &tags));
        lvm.retag(&volume.name, &more, &less).await?;
        lvm.rename(&volume.name, &removed(order.id)).await?;
        if stays_inactive {
            // It is condemned whether or not this fails, and deactivated when its time is over.
            let _ = lvm.autoactivate(&removed(order.id), false).await;
        }
        Ok(())
    }

    /// One that is condemned, just now or before: whoever has condemned it may not have come to look
    /// again. `second`: this is the second look.
    pub(super) async fn resume(
        &self,
        asked: &Asked,
        group: &Group,
        needer: Option<&Needer>,
        second: bool,
        turn: &Turn,
    ) -> Result<Next, StorageError> {
        let Some(volume) = group.removed(asked.order.id) else {
            return self.ended_elsewhere(&asked.order, group);
        };
        let written = self.written(volume)?;
        written.check(&asked.order)?;
        // From here on there is no way back.
        let stays = written.purging || group.named(written.volume.as_str()).is_some();
        let snapshot = group.snapshot_of(&volume.name);
        let snapshot = snapshot.map(|snapshot| self.shown(snapshot));
        let by = match (needer, snapshot) {
            (_, Some(snapshot)) if stays => {
                let what = format!("{}, of which {snapshot} is made", self.shown(volume));
                return Err(StorageError::Busy { what });
            }
            _ if volume.identity != written.identity => {
                Some("whoever has put another one in its place".to_owned())
            }
            _ if stays => None,
            (_, Some(snapshot)) => Some(format!("{snapshot}, which is a snapshot of it")),
            (Some(needer), None) => Some(format!("{}, which is built on it", needer.shown)),
            (None, None) => {
                let active = self.is_activated(volume, second, turn).await?;
                active.then(|| "whoever has activated it meanwhile".to_owned())
            }
        };
        if let Some(by) = by {
            self.bring_back(volume, &written.volume, turn).await?;
            return Err(self.in_use_by(&written.volume, &by));
        }
        if written.is_kept(now()) {
            let removal = written.removal(asked.order.id, self.id());
            return Ok(Next::Answer(Ok(Answer::Ended(removal))));
        }
        Ok(Next::Purge(volume.clone(), written.condemned_at))
    }

    /// Whether somebody has activated it for a use: right after it was condemned, or to have it open.
    /// Later a host may just have started, and have activated all that it has found.
    async fn is_activated(
        &self,
        volume: &Logical,
        second: bool,
        turn: &Turn,
    ) -> Result<bool, StorageError> {
        if volume.device.is_none() || second || volume.open {
            return Ok(volume.device.is_some());
        }
        match self.lvm.during(turn).deactivate(&[&volume.name]).await {
            Err(StorageError::InUse { .. }) => Ok(true),
            deactivated => deactivated.map(|()| false),
        }
    }

    /// Another host has gone on with the removal meanwhile.
    fn ended_elsewhere(&self, order: &RemovalOrder, group: &Group) -> Result<Next, StorageError> {
        let is = |volume: &Logical| volume.identity == order.identity;
        if group.volumes.iter().any(is) {
            return Err(StorageError::Busy {
                what: self.what(&order.volume),
            });
        }
        let gone = order.gone(self.id(), 0, None);
        Ok(Next::Answer(Ok(Answer::Ended(gone))))
    }

    /// The group, and who needs which of the orders' volumes.
    pub(super) async fn family(
        self: &Arc<Self>,
        group: Group,
        orders: Vec<RemovalOrder>,
        turn: &Turn,
    ) -> Result<(Group, Family), StorageError> {
        let domain = Arc::clone(self);
        let names: Vec<VolumeName> = orders.iter().map(|order| order.volume.clone()).collect();
        let targets = move |group: &Group| {
            let target = |name: &VolumeName| domain.target_named(group, name);
            Ok(names.iter().map(target).collect())
        };
        let (group, needed) = self.needers(group, targets, turn).await?;
        let family = Family::of(&orders, &group, needed);
        Ok((group, family))
    }
}

/// The order with the time for which its volume is kept in truth, where that is condemned already.
pub(super) fn as_written(order: RemovalOrder, group: &Group) -> RemovalOrder {
    let volume = group.removed(order.id);
    let written = volume.and_then(|volume| tag::removal(&volume.tags).ok());
    let Some(until) = written.and_then(|written| written.keep_until) else {
        return order;
    };
    let left = until.duration_since(now());
    RemovalOrder {
        keep_for: Duration::try_from(left).unwrap_or_default(),
        ..order
    }
}
