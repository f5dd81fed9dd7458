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
//! - Of several that go together, each step is done for children before what they are built on. What is
//!   emptied waits for none of them: from the mark on nobody can want back what was built on it.

use super::batch::Batch;
use super::condemn::as_written;
use super::domain::{Domain, locked};
use super::empty::check_discard;
use super::family::Family;
use super::gate::Needer;
use super::name::removed;
use super::report::{Group, Logical};
use super::tag;
use super::turn::Turn;
use crate::condemned::{Condemned, now};
use crate::{Identity, Removal, RemovalId, RemovalOrder, StorageError};
use futures::future::join_all;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

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
pub(super) enum Next {
    Answer(Result<Answer, StorageError>),
    Condemn(Logical),
    /// Condemned, or to be removed at once.
    Purge(Logical, Timestamp),
}

impl Next {
    /// The volume, if it is removed.
    pub(super) fn goes(&self) -> Option<(&str, &Identity)> {
        match self {
            Self::Purge(volume, _) => Some((&volume.name, &volume.identity)),
            Self::Answer(_) | Self::Condemn(_) => None,
        }
    }

    /// Whether the volume keeps its name.
    pub(super) fn stays(&self) -> bool {
        matches!(self, Self::Answer(Err(_)))
    }
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
    /// Removes volumes together, and answers each.
    pub(super) async fn remove(
        self: Arc<Self>,
        orders: Vec<RemovalOrder>,
    ) -> Vec<Result<Removal, StorageError>> {
        let ready: Vec<_> = orders.iter().map(|order| self.ready(order)).collect();
        let free = orders.iter().zip(&ready).filter(|(_, ready)| ready.is_ok());
        let asked = free.map(|(order, _)| Asked {
            order: order.clone(),
            emptied: false,
        });
        let mut answers = Batch::ask(&self, asked.collect()).await.into_iter();
        let ended = orders.iter().zip(ready).map(|(order, ready)| {
            let answer = ready.map(|working| {
                let answer = answers.next().expect("what is asked is answered");
                (working, answer)
            });
            self.end(order, answer)
        });
        let ended: Vec<_> = ended.collect();
        join_all(ended).await
    }

    /// Empties the volume where that is to be done, and then has it go, whatever the others still wait for.
    async fn end(
        self: &Arc<Self>,
        order: &RemovalOrder,
        answer: Result<(Working<'_>, Result<Answer, StorageError>), StorageError>,
    ) -> Result<Removal, StorageError> {
        let (_working, answer) = answer?;
        let ordered = match answer? {
            Answer::Ended(removal) => return Ok(removal),
            Answer::Empty(ordered) => ordered,
        };
        self.empty(removed(ordered.id), &ordered).await?;
        let again = Asked {
            order: order.clone(),
            emptied: true,
        };
        match Batch::ask(self, vec![again]).await.pop() {
            Some(Ok(Answer::Ended(removal))) => Ok(removal),
            Some(Err(error)) => Err(error),
            Some(Ok(Answer::Empty(_))) | None => Err(StorageError::Busy {
                what: self.what(&order.volume),
            }),
        }
    }

    /// Takes the removal for this call.
    fn ready(&self, order: &RemovalOrder) -> Result<Working<'_>, StorageError> {
        self.name.check(&order.volume)?;
        Working::on(self, order.id)
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
        if let Some(ended) = self.remove_as_seen(batch, &turn).await? {
            return Ok(ended);
        }
        let (mut next, family) = self.decide(batch, &turn).await?;
        self.condemn_all(batch, &mut next, &family, &turn).await?;
        self.mark_all(batch, &mut next, &family, &turn).await;
        self.close_all(batch, &mut next, &family, &turn).await;
        self.purge_all(&mut next, &family, &turn).await?;
        Ok(ended(self, batch, next))
    }

    async fn decide(
        self: &Arc<Self>,
        batch: &[Asked],
        turn: &Turn,
    ) -> Result<(Vec<Next>, Family), StorageError> {
        let names: Vec<_> = batch
            .iter()
            .map(|asked| asked.order.volume.clone())
            .collect();
        self.decide_of(batch, self.settle(&names).await?, turn)
            .await
    }

    /// The same, of a group that was looked at.
    pub(super) async fn decide_of(
        self: &Arc<Self>,
        batch: &[Asked],
        group: Group,
        turn: &Turn,
    ) -> Result<(Vec<Next>, Family), StorageError> {
        let orders = batch.iter().map(|asked| asked.order.clone());
        let orders = orders.map(|order| as_written(order, &group)).collect();
        let (group, family) = self.family(group, orders, turn).await?;
        let busy = |asked: &Asked| StorageError::Busy {
            what: self.what(&asked.order.volume),
        };
        let undecided = |asked| Next::Answer(Err(busy(asked)));
        let mut next: Vec<_> = batch.iter().map(undecided).collect();
        let (mut seen, mut is_back) = (HashSet::new(), false);
        for index in family.order() {
            let asked = &batch[index];
            let needer = self.in_the_way(batch, &next, &family, &group, index);
            // What came back may need any of the others: that is for the next look.
            if !seen.insert(&asked.order.identity) || is_back {
                continue;
            }
            let one = self.decide_one(asked, &group, needer.as_ref(), turn).await;
            let condemned = group.removed(asked.order.id).is_some();
            is_back = condemned && matches!(one, Err(StorageError::InUse { .. }));
            next[index] = one.unwrap_or_else(|error| Next::Answer(Err(error)));
        }
        Ok((next, family))
    }

    /// What needs a volume: something else, or one of the batch that stays after all.
    pub(super) fn in_the_way(
        &self,
        batch: &[Asked],
        next: &[Next],
        family: &Family,
        group: &Group,
        index: usize,
    ) -> Option<Needer> {
        let mut children = family.children(index).iter();
        let stays = children.find(|child| next[**child].stays());
        let stays = stays.map(|child| Needer::of(&batch[*child].order, group));
        family.other(index).cloned().or(stays)
    }

    /// Those that would go although one that is built on them stays after all do not.
    fn hold(&self, batch: &[Asked], next: &mut [Next], family: &Family) {
        for index in family.order() {
            let mut children = family.children(index).iter();
            let Some(child) = children.find(|child| next[**child].stays()) else {
                continue;
            };
            if matches!(next[index], Next::Purge(..)) {
                let by = format!("volume {}, which stays", batch[*child].order.volume);
                let held = self.in_use_by(&batch[index].order.volume, &by);
                next[index] = Next::Answer(Err(held));
            }
        }
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

    /// Writes down that there is no way back, for those that are emptied before they go.
    async fn mark_all(&self, batch: &[Asked], next: &mut [Next], family: &Family, turn: &Turn) {
        for index in family.order() {
            self.hold(batch, next, family);
            let asked = &batch[index];
            let Next::Purge(volume, _) = &next[index] else {
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
                next[index] = Next::Answer(Ok(Answer::Empty(ordered)));
                continue;
            }
            let more = tag::of_removal(&Condemned {
                purging: true,
                ..written
            });
            let marked = self.lvm.during(turn).retag(&volume.name, &more, &[]).await;
            next[index] = Next::Answer(marked.map(|()| Answer::Empty(ordered)));
        }
        self.hold(batch, next, family);
    }

    /// LVM leaves one that somebody has opened meanwhile, and takes the others: so those whose parents go
    /// with them are closed first, whether or not they were active a moment ago.
    async fn close_all(&self, batch: &[Asked], next: &mut [Next], family: &Family, turn: &Turn) {
        let all = 0..batch.len();
        let children: BTreeSet<_> = all.flat_map(|index| family.children(index)).collect();
        let goes = |index: &&usize| next[**index].goes().is_some();
        let children: Vec<_> = children.into_iter().filter(goes).copied().collect();
        let name = |index: &usize| next[*index].goes().map(|(name, _)| name);
        let names: Vec<_> = children.iter().filter_map(name).collect();
        if names.is_empty() {
            return;
        }
        let closed = self.lvm.during(turn).deactivate(&names).await;
        if let Err(why) = closed {
            for index in children {
                next[index] = Next::Answer(Err(why.again()));
            }
        }
        self.hold(batch, next, family);
    }

    /// Removes all that are to go, in one change of the group. Those that are still there have a
    /// reason of their own.
    async fn purge_all(
        &self,
        next: &mut [Next],
        family: &Family,
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let order = family.order().into_iter();
        let volumes: Vec<_> = order.filter_map(|index| next[index].goes()).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        match self.lvm.during(turn).remove(&volumes).await {
            Ok(()) => Ok(()),
            Err(why) => self.find_left(next, &why).await,
        }
    }

    /// Those that are still there were not removed.
    pub(super) async fn find_left(
        &self,
        next: &mut [Next],
        why: &StorageError,
    ) -> Result<(), StorageError> {
        let left = self.report().await?;
        let left: HashSet<_> = left.volumes.iter().map(|volume| &volume.identity).collect();
        for one in next.iter_mut() {
            if matches!(one, Next::Purge(volume, _) if left.contains(&volume.identity)) {
                *one = Next::Answer(Err(why.again()));
            }
        }
        Ok(())
    }
}

/// The answers, when all has been done that could be.
pub(super) fn ended(
    domain: &Domain,
    batch: &[Asked],
    next: Vec<Next>,
) -> Vec<Result<Answer, StorageError>> {
    let ended = batch.iter().zip(next).map(|(asked, next)| match next {
        Next::Answer(answer) => answer,
        Next::Condemn(volume) => Err(StorageError::Busy { what: volume.name }),
        Next::Purge(volume, at) => Ok(Answer::Ended(asked.order.gone(
            domain.id(),
            volume.bytes,
            Some(at),
        ))),
    });
    ended.collect()
}

impl RemovalOrder {
    /// Whether nothing is to be kept or overwritten.
    pub(super) fn ends_at_once(&self) -> bool {
        self.keep_for.is_zero() && !self.wipe && !self.discard
    }
}
