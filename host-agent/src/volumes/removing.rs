//! Removals of volumes, one or several that leave together.
//!
//! ```text
//!   orders ─▶ does a definition name one? ─▶ the others of each domain at once ─▶ its gate, its removal
//! ```

use super::{Volumes, problem, unanswered};
use crate::domains::RemovalPolicy;
use crate::hypervisor::Reference;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_runtime::trace::{LiveSpan, SpanKind};
use livemerge_storage::{
    Removal, RemovalId, RemovalOrder, RemovalState, StorageError, StorageId, VolumeInfo,
};
use std::collections::BTreeMap;

/// Volumes that are looked at side by side.
const LOOKED_AT: usize = 8;

impl Volumes {
    /// Removes a volume, unless anything may still need it, as its domain is configured.
    pub async fn remove(
        &self,
        storage: &StorageId,
        order: &RemovalOrder,
    ) -> Result<Removal, Problem> {
        let one = [(storage.clone(), order.clone())];
        let mut answers = self.remove_all(&one).await;
        answers.pop().expect("one order has one answer")
    }

    /// Removes volumes that leave together, each as [`Volumes::remove`] does, and answers them in the
    /// order of their orders. One that may not go keeps those alone that it is built on.
    pub async fn remove_all(
        &self,
        orders: &[(StorageId, RemovalOrder)],
    ) -> Vec<Result<Removal, Problem>> {
        let begun = |(storage, order): &(StorageId, RemovalOrder)| {
            let mut span = LiveSpan::begin("volume removal", SpanKind::Internal);
            span.set("livemerge.volume", format!("{storage}/{}", order.volume));
            span
        };
        let spans: Vec<_> = orders.iter().map(begun).collect();
        let mut domains: BTreeMap<&StorageId, Vec<usize>> = BTreeMap::new();
        for (place, (storage, _)) in orders.iter().enumerate() {
            domains.entry(storage).or_default().push(place);
        }
        let in_domains = domains.into_iter().map(async |(storage, places)| {
            let named: Vec<_> = places.iter().map(|place| &orders[*place].1).collect();
            let answers = self.remove_in(storage, &named, RemovalPolicy::order).await;
            places.into_iter().zip(answers)
        });
        let answers: BTreeMap<_, _> = join_all(in_domains).await.into_iter().flatten().collect();
        let ended = answers.into_values().zip(orders).zip(spans);
        let ended = ended.map(|((answer, (storage, order)), mut span)| {
            let answer = self.counted(answer);
            match &answer {
                Ok(removal) if removal.state != RemovalState::Gone => {
                    self.notes.add(storage, order.id);
                }
                Ok(_) => {}
                Err(problem) => span.fail(problem.reason.as_str()),
            }
            answer
        });
        ended.collect()
    }

    /// The same of a volume that was made for nothing: nobody will want it back.
    pub async fn take_back(
        &self,
        storage: &StorageId,
        order: &RemovalOrder,
    ) -> Result<Removal, Problem> {
        let as_it_is = |_, order: &RemovalOrder| order.clone();
        let mut answers = self.remove_in(storage, &[order], as_it_is).await;
        answers.pop().expect("one order has one answer")
    }

    /// Removes volumes of one domain in one call, but for those that a definition names.
    async fn remove_in(
        &self,
        storage: &StorageId,
        orders: &[&RemovalOrder],
        ordered: impl Fn(RemovalPolicy, &RemovalOrder) -> RemovalOrder,
    ) -> Vec<Result<Removal, Problem>> {
        let domain = match self.domain(storage) {
            Ok(domain) => domain,
            Err(problem) => return vec![Err(problem); orders.len()],
        };
        let looks = self.unneeded(storage, orders).await;
        let free = looks.iter().zip(orders).filter(|(look, _)| look.is_ok());
        let free: Vec<_> = free
            .map(|(_, order)| ordered(domain.removal, order))
            .collect();
        let mut removed = vec![];
        if !free.is_empty() {
            fail::fail_point!("agent::before-removal");
            removed = domain.store.remove_all(&free).await;
            fail::fail_point!("agent::after-removal");
        }
        let mut removed = removed.into_iter();
        let answered = looks.into_iter().zip(orders).map(|(look, order)| {
            look?;
            let removed = removed.next().expect("each order has an answer");
            removed.map_err(|error| problem(&error).with("volume", &order.volume))
        });
        answered.collect()
    }

    /// Whether the definitions and the jobs of this host's machines leave each volume alone: seen in one
    /// look, right before they go.
    async fn unneeded(
        &self,
        storage: &StorageId,
        orders: &[&RemovalOrder],
    ) -> Vec<Result<(), Problem>> {
        let there = orders.iter().map(|order| self.there(storage, order));
        let there: Vec<_> = there.collect();
        let there: Vec<_> = stream::iter(there).buffered(LOOKED_AT).collect().await;
        let present = there.iter().flatten().flatten();
        let locators: Vec<_> = present.map(|info| info.locator.clone()).collect();
        let machines = match &locators[..] {
            [] => Ok(vec![]),
            locators => self.hypervisor.references(locators).await,
        };
        let machines = machines.map_err(|error| unanswered(&error));
        let mut machines = machines.map(Vec::into_iter);
        let looks = there
            .into_iter()
            .map(|there| match (there?, &mut machines) {
                (None, _) => Ok(()),
                (Some(_), Err(problem)) => Err(problem.clone()),
                (Some(info), Ok(machines)) => {
                    let naming = machines.next().expect("each locator has an answer");
                    unreferenced(&info, naming.first())
                }
            });
        looks.collect()
    }

    /// The volume, while it has its name: of what it has not, the storage knows.
    async fn there(
        &self,
        storage: &StorageId,
        order: &RemovalOrder,
    ) -> Result<Option<VolumeInfo>, Problem> {
        match self.store(storage)?.stat(&order.volume).await {
            // A name that was used again: the storage says that the volume meant is gone.
            Ok(info) if info.identity != order.identity => Ok(None),
            Ok(info) => Ok(Some(info)),
            // Gone, or condemned by an earlier try.
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Removals of a domain that have not ended.
    pub async fn removals(&self, storage: &StorageId) -> Result<Vec<Removal>, Problem> {
        // Before the look: what is noted then is condemned already.
        let noted = self.notes.all(storage);
        let removals = self.store(storage)?.list_removals().await;
        let removals = removals.map_err(|error| problem(&error))?;
        let open = |id: &RemovalId| removals.iter().any(|removal| removal.id == *id);
        for ended in noted.into_iter().filter(|id| !open(id)) {
            self.notes.forget(storage, ended);
        }
        Ok(removals)
    }

    /// Goes on, together, with removals of a domain that have condemned their volumes: nothing can need
    /// those any more. Answers each.
    ///
    /// # Errors
    /// When this host has no such domain.
    pub async fn go_on(
        &self,
        storage: &StorageId,
        removals: &[Removal],
    ) -> Result<Vec<Result<Removal, Problem>>, Problem> {
        let order = |removal: &Removal| RemovalOrder {
            resumes: true,
            ..RemovalOrder::new(
                removal.id,
                removal.volume.name.clone(),
                removal.identity.clone(),
            )
        };
        let span = |removal: &Removal| {
            let noted = self.notes.of(storage, removal.id);
            let mut span = LiveSpan::under(noted, "volume removal", SpanKind::Internal);
            span.set("livemerge.volume", removal.volume.to_string());
            span
        };
        let spans: Vec<_> = removals.iter().map(span).collect();
        let orders: Vec<_> = removals.iter().map(order).collect();
        let gone_on = self.store(storage)?.remove_all(&orders).await;
        let answered = gone_on.into_iter().zip(removals).zip(spans);
        let counted = answered.map(|((gone, removal), mut span)| {
            let gone = gone.map_err(|error| problem(&error).with("volume", &removal.volume));
            if let Err(problem) = &gone {
                span.fail(problem.reason.as_str());
            }
            self.counted(gone)
        });
        Ok(counted.collect())
    }

    fn counted(&self, removed: Result<Removal, Problem>) -> Result<Removal, Problem> {
        if let Some(meter) = self.meter.get() {
            meter.removed(&removed);
        }
        removed
    }
}

fn unreferenced(volume: &VolumeInfo, naming: Option<&Reference>) -> Result<(), Problem> {
    let Some(first) = naming else {
        return Ok(());
    };
    let by = format!("disk {} of virtual machine {}", first.disk, first.name);
    let text = format!("{} is needed by {by}", volume.volume);
    let problem = Problem::new(Reason::VolumeInUse, text);
    Err(problem.with("volume", &volume.volume).with("used_by", by))
}

#[cfg(test)]
mod tests;
