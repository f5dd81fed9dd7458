//! The removal of a volume: gate, condemn, keep, empty, purge; each resumable by the same order.
//!
//! ```text
//!   gate ─┬─▶ lvremove ─▶ gone                                     nothing to keep or overwrite
//!         └─▶ deactivate ─▶ order into tags ─▶ lvrename ─▶ needed by now? ─▶ back again
//!                                                 │ condemned
//!                                                 ▼
//!             keep_for over? ─▶ tag `purging` ─▶ zeros, discard ─▶ lvremove ─▶ gone
//! ```
//!
//! - At every moment the volume is whole under its own name, or condemned under its removal's.
//! - The short way is one change of the group, which is done or not: nothing is left to resume. It is
//!   for groups of one host, where nobody builds on the volume between the gate and the change.
//! - On the long way whoever builds on the volume meanwhile either no longer finds it, or is seen by
//!   the second look, so that hosts need no lock in common.

use super::batch::Batch;
use super::domain::{Domain, locked};
use super::empty::check_discard;
use super::gate::Needer;
use super::name::removed;
use super::report::{Group, Logical};
use super::tag;
use super::turn::Turn;
use crate::condemned::{Condemned, now};
use crate::{Removal, RemovalId, RemovalOrder, StorageError, VolumeName};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A removal that somebody waits for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) order: RemovalOrder,
    /// The volume was condemned and emptied.
    pub(super) emptied: bool,
}

/// How far a removal has come.
#[derive(Debug)]
pub(super) enum Answer {
    /// As far as it goes by now.
    Ended(Removal),
    /// The volume is to be emptied, as it was ordered first.
    Empty(RemovalOrder),
}

/// What is to be done for an order, now that everything has been looked at.
enum Next {
    Answer(Result<Answer, StorageError>),
    Condemn(Logical),
    /// Condemned, or to be removed at once.
    Purge(Logical, Timestamp),
}

/// Takes the removal for a call, until it is dropped.
pub(super) struct Working<'a>(&'a Domain, RemovalId);

impl<'a> Working<'a> {
    pub(super) fn on(domain: &'a Domain, id: RemovalId) -> Result<Self, StorageError> {
        if locked(&domain.removing).insert(id) {
            return Ok(Self(domain, id));
        }
        Err(StorageError::Busy {
            what: format!("removal {id}"),
        })
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        locked(&self.0.removing).remove(&self.1);
    }
}

impl Domain {
    pub(super) async fn remove(
        self: Arc<Self>,
        order: RemovalOrder,
    ) -> Result<Removal, StorageError> {
        let _working = Working::on(&self, order.id)?;
        self.name.check(&order.volume)?;
        let asked = Asked {
            order: order.clone(),
            emptied: false,
        };
        match Batch::ask(&self, asked).await? {
            Answer::Ended(removal) => Ok(removal),
            Answer::Empty(ordered) => {
                self.empty(removed(order.id), &ordered).await?;
                match Batch::ask(
                    &self,
                    Asked {
                        order,
                        emptied: true,
                    },
                )
                .await?
                {
                    Answer::Ended(removal) => Ok(removal),
                    Answer::Empty(again) => Err(StorageError::Busy {
                        what: self.what(&again.volume),
                    }),
                }
            }
        }
    }

    /// Does as much as can be done for each without waiting for one of them.
    pub(super) async fn remove_all(
        self: &Arc<Self>,
        batch: &[Asked],
    ) -> Vec<Result<Answer, StorageError>> {
        match self.decide_and_purge(batch).await {
            Ok(answers) => answers,
            Err(error) => batch.iter().map(|_| Err(error.again())).collect(),
        }
    }

    async fn decide_and_purge(
        self: &Arc<Self>,
        batch: &[Asked],
    ) -> Result<Vec<Result<Answer, StorageError>>, StorageError> {
        let turn = self.name_turn().await?;
        let mut next = self.decide(batch, &turn).await?;
        self.condemn_all(batch, &mut next, &turn).await?;
        self.mark_all(batch, &mut next, &turn).await;
        self.purge_all(&mut next, &turn).await?;
        let ended = batch.iter().zip(next).map(|(asked, next)| match next {
            Next::Answer(answer) => answer,
            Next::Condemn(volume) => Err(StorageError::Busy { what: volume.name }),
            Next::Purge(volume, at) => Ok(Answer::Ended(asked.order.gone(
                self.id(),
                volume.bytes,
                Some(at),
            ))),
        });
        Ok(ended.collect())
    }

    async fn decide(
        self: &Arc<Self>,
        batch: &[Asked],
        turn: &Turn,
    ) -> Result<Vec<Next>, StorageError> {
        let orders: Vec<_> = batch.iter().map(|asked| asked.order.clone()).collect();
        let names: Vec<_> = orders.iter().map(|order| order.volume.clone()).collect();
        let group = self.settle(&names).await?;
        let orders = orders.into_iter().map(|order| as_written(order, &group));
        let orders = orders.collect();
        let (group, needed) = self.needers_of_volumes(group, orders, turn).await?;
        let mut seen = HashSet::new();
        let mut next = Vec::new();
        for (index, asked) in batch.iter().enumerate() {
            let first = seen.insert(&asked.order.identity);
            let needer = needed.get(&index);
            let one = match first {
                true => self.decide_one(asked, &group, needer, turn).await,
                false => Err(StorageError::Busy {
                    what: self.what(&asked.order.volume),
                }),
            };
            next.push(one.unwrap_or_else(|error| Next::Answer(Err(error))));
        }
        Ok(next)
    }

    async fn decide_one(
        &self,
        asked: &Asked,
        group: &Group,
        needer: Option<&Needer>,
        turn: &Turn,
    ) -> Result<Next, StorageError> {
        let order = &asked.order;
        if group.removed(order.id).is_some() {
            return self.resume(asked, group, needer, false, turn).await;
        }
        let gone = Next::Answer(Ok(Answer::Ended(order.gone(self.id(), 0, None))));
        let volume = match group.named(order.volume.as_str()) {
            _ if order.resumes => return Ok(gone),
            Some(volume) if volume.identity == order.identity => volume,
            _ => return Ok(gone),
        };
        if !volume.is_ours() {
            let text = format!(
                "logical volume {} is not this domain's any more",
                volume.name
            );
            return Err(StorageError::Invalid(text));
        }
        if volume.open {
            return Err(self.in_use_by(&order.volume, "a process that has it open"));
        }
        if let Some(needer) = needer {
            let by = format!("{}, which is built on it", needer.shown);
            return Err(self.in_use_by(&order.volume, &by));
        }
        if order.discard {
            check_discard(volume)?;
        }
        if order.ends_at_once() && !self.config().shared {
            return Ok(Next::Purge(volume.clone(), now()));
        }
        Ok(Next::Condemn(volume.clone()))
    }

    /// One that is condemned, just now or before: whoever has condemned it may not have come to look
    /// again. `second`: this is the second look.
    async fn resume(
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

    /// Condemns those that go the long way, and looks again whether anything needs them by now.
    async fn condemn_all(
        self: &Arc<Self>,
        batch: &[Asked],
        next: &mut [Next],
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let mut condemned = Vec::new();
        for (index, asked) in batch.iter().enumerate() {
            if let Next::Condemn(volume) = &next[index] {
                match self.condemn(&asked.order, volume, turn).await {
                    Ok(()) => condemned.push(index),
                    Err(error) => next[index] = Next::Answer(Err(error)),
                }
            }
        }
        if condemned.is_empty() {
            return Ok(());
        }
        let orders = condemned.iter().map(|index| batch[*index].order.clone());
        let (group, needed) = self
            .needers_of_volumes(self.report().await?, orders.collect(), turn)
            .await?;
        for (number, index) in condemned.into_iter().enumerate() {
            let looked = self.resume(&batch[index], &group, needed.get(&number), true, turn);
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

    /// Writes down that there is no way back, for those that are emptied before they go.
    async fn mark_all(&self, batch: &[Asked], next: &mut [Next], turn: &Turn) {
        for (asked, next) in batch.iter().zip(next) {
            let Next::Purge(volume, _) = &*next else {
                continue;
            };
            let Ok(written) = tag::removal(&volume.tags) else {
                continue;
            };
            if asked.emptied
                || !(written.wipe || written.discard)
                || volume.name != removed(asked.order.id)
            {
                continue;
            }
            let ordered = RemovalOrder {
                wipe: written.wipe,
                discard: written.discard,
                ..asked.order.clone()
            };
            if written.purging {
                *next = Next::Answer(Ok(Answer::Empty(ordered)));
                continue;
            }
            let more = tag::of_removal(&Condemned {
                purging: true,
                ..written
            });
            let marked = self.lvm.during(turn).retag(&volume.name, &more, &[]).await;
            *next = Next::Answer(marked.map(|()| Answer::Empty(ordered)));
        }
    }

    /// Removes all that are to go, in one change of the group. Those that are still there have a
    /// reason of their own.
    async fn purge_all(&self, next: &mut [Next], turn: &Turn) -> Result<(), StorageError> {
        let purged = |next: &Next| match next {
            Next::Purge(volume, _) => Some((volume.name.clone(), volume.identity.clone())),
            _ => None,
        };
        let all: Vec<_> = next.iter().filter_map(purged).collect();
        if all.is_empty() {
            return Ok(());
        }
        let volumes: Vec<_> = all
            .iter()
            .map(|(name, identity)| (name.as_str(), identity))
            .collect();
        let Err(why) = self.lvm.during(turn).remove(&volumes).await else {
            return Ok(());
        };
        let left = self.report().await?;
        let left: HashSet<_> = left.volumes.iter().map(|volume| &volume.identity).collect();
        for one in next.iter_mut() {
            if matches!(one, Next::Purge(volume, _) if left.contains(&volume.identity)) {
                *one = Next::Answer(Err(why.again()));
            }
        }
        Ok(())
    }

    /// The group, and one that is in the way for each of these orders by its index.
    async fn needers_of_volumes(
        self: &Arc<Self>,
        group: Group,
        orders: Vec<RemovalOrder>,
        turn: &Turn,
    ) -> Result<(Group, HashMap<usize, Needer>), StorageError> {
        let domain = Arc::clone(self);
        let names: Vec<VolumeName> = orders.iter().map(|order| order.volume.clone()).collect();
        let targets = move |group: &Group| {
            let target = |name: &VolumeName| domain.target_named(group, name);
            Ok(names.iter().map(target).collect())
        };
        let (group, mut needers) = self.needers(group, targets, turn).await?;
        needers.retain(|(index, needer)| needer.refuses(&orders[*index]));
        Ok((group, needers.into_iter().collect()))
    }
}

impl RemovalOrder {
    /// Whether nothing is to be kept or overwritten.
    pub(super) fn ends_at_once(&self) -> bool {
        self.keep_for.is_zero() && !self.wipe && !self.discard
    }
}

/// The order with the time for which its volume is kept in truth, where that is condemned already.
fn as_written(order: RemovalOrder, group: &Group) -> RemovalOrder {
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
