//! Orders for merges: what is looked at before one is accepted, and what is written down of it.
//!
//! ```text
//!   generation ─▶ known? ─▶ late? ─▶ fits? ─▶ room is promised ─▶ journal ─▶ driven
//! ```
//! All of a machine's disks are accepted, or none.

use super::Merges;
use super::board::MergeView;
use super::check::{Fit, check};
use super::driver::blocking;
use super::elsewhere::Elsewhere;
use super::types::{MergeOrder, MergeRecord};
use crate::latest::Given;
use futures::future::try_join_all;
use livemerge_proto::ids::MergeId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::StorageId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

impl Merges {
    #[cfg(test)]
    pub(crate) async fn start(
        self: &Arc<Self>,
        orders: Vec<MergeOrder>,
    ) -> Result<Vec<MergeView>, Problem> {
        static ORDERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let sequence = ORDERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.start_beside(orders, sequence, vec![]).await
    }

    /// Accepts the merges that go together, one a disk of one machine: all or none, beside what merges
    /// of other hosts were promised. Repeating them returns them as they stand. `sequence`: the server's
    /// how manyth order it is.
    ///
    /// # Errors
    /// Says why not; nothing was touched then.
    pub async fn start_beside(
        self: &Arc<Self>,
        orders: Vec<MergeOrder>,
        sequence: u64,
        elsewhere: Vec<Elsewhere>,
    ) -> Result<Vec<MergeView>, Problem> {
        let Some(first) = orders.first() else {
            return Ok(vec![]);
        };
        let (vm, generation) = (first.vm, first.generation);
        self.fence.pass(generation).await?;
        let (ids, machines) = &self.accepting;
        let _one_of_a_machine = machines.of(vm).lock_owned().await;
        let mut sorted: Vec<MergeId> = orders.iter().map(|order| order.id).collect();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < orders.len() {
            return Err(another_payload(&orders));
        }
        let mut _one_with_the_id = Vec::new();
        for id in sorted {
            _one_with_the_id.push(ids.of(id).lock_owned().await);
        }
        let known: Option<Vec<MergeView>> = orders.iter().map(|order| self.get(order.id)).collect();
        match known {
            Some(known) if same_payloads(&known, &orders) => return Ok(known),
            None if orders.iter().all(|order| self.get(order.id).is_none()) => {}
            _ => return Err(another_payload(&orders)),
        }
        let given = Given {
            generation,
            sequence,
        };
        self.latest.pass(vm, given).await?;
        let fits = try_join_all(orders.iter().map(|order| self.fit(order))).await?;
        let promising = self.promising(&orders).await;
        let mut room = self.room(elsewhere.clone());
        let mut records = Vec::with_capacity(orders.len());
        for (fit, order) in fits.into_iter().zip(orders) {
            let promise = room.promise(&order, &fit.work, &self.volumes).await?;
            let record = MergeRecord::new(order, fit, self.around.clock.now());
            let storage = &record.order.kept.volume.storage;
            let in_domain = |other: &&Elsewhere| other.kept.volume.storage == *storage;
            let elsewhere = elsewhere.iter().filter(in_domain).cloned().collect();
            records.push(MergeRecord {
                promise,
                elsewhere,
                ..record
            });
        }
        self.accept(&records).await?;
        let views: Vec<_> = records.iter().cloned().map(MergeView::new).collect();
        for view in &views {
            self.around.board.show(view.clone());
        }
        drop(promising);
        self.spawn(records);
        Ok(views)
    }

    /// Alone with the domains from which these take their room, in an order that is everybody's. Storage
    /// that hangs holds up who takes room in it, and nobody else.
    async fn promising(&self, orders: &[MergeOrder]) -> Vec<OwnedMutexGuard<()>> {
        let storages = orders.iter().map(|order| &order.kept.volume.storage);
        let storages: BTreeSet<&StorageId> = storages.collect();
        let mut alone = Vec::new();
        for storage in storages {
            alone.push(self.promising.of(storage.clone()).lock_owned().await);
        }
        alone
    }

    /// How an order can be carried out as things are, but for the room.
    async fn fit(&self, order: &MergeOrder) -> Result<Fit, Problem> {
        self.refuse_lost_merge(order.id).await?;
        self.refuse_second_merge(order)?;
        check(order, self.around.hypervisor.as_ref(), &self.volumes).await
    }

    /// Writes all of them down, or none.
    async fn accept(&self, records: &[MergeRecord]) -> Result<(), Problem> {
        let journal = Arc::clone(&self.around.journal);
        let records = records.to_vec();
        let written = blocking(move || {
            let written = records.iter().try_for_each(|record| journal.write(record));
            if written.is_err() {
                // What stays all the same is no group, and is forgotten at the next start.
                let forgotten = records
                    .iter()
                    .try_for_each(|record| journal.forget(record.order.id));
                forgotten.unwrap_or_else(
                    |error| tracing::error!(%error, "the journal cannot be written"),
                );
            }
            written
        });
        written.await.map_err(|error| {
            tracing::error!(%error, "the journal cannot be written");
            let text = "the agent's journal cannot be written";
            Problem::new(Reason::StoreUnavailable, text)
        })
    }

    /// A merge whose journal is damaged may have been done. To say what the checks find would be to
    /// say that it was never begun.
    async fn refuse_lost_merge(&self, id: MergeId) -> Result<(), Problem> {
        let journal = Arc::clone(&self.around.journal);
        match blocking(move || journal.has_lost(id)).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = format!("the journal of merge {id} is damaged and was set aside");
                Err(Problem::new(Reason::MergeIdConflict, text).with("merge", id))
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read");
                let text = "the agent's journal cannot be read";
                Err(Problem::new(Reason::StoreUnavailable, text))
            }
        }
    }

    /// At most one block job a disk.
    fn refuse_second_merge(&self, order: &MergeOrder) -> Result<(), Problem> {
        let views = self.watch().borrow().clone();
        let open = views.values().find(|view| {
            let other = &view.record.order;
            !view.record.phase.ended() && other.vm == order.vm && other.disk == order.disk
        });
        open.map_or(Ok(()), |open| {
            let text = format!(
                "merge {} works on disk {}",
                open.record.order.id, order.disk
            );
            let problem = Problem::new(Reason::ConcurrentChange, text);
            Err(problem
                .with("merge", open.record.order.id)
                .with("disk", &order.disk))
        })
    }
}

fn same_payloads(known: &[MergeView], orders: &[MergeOrder]) -> bool {
    let mut pairs = known.iter().zip(orders);
    pairs.all(|(known, order)| known.record.order.same_payload(order))
}

fn another_payload(orders: &[MergeOrder]) -> Problem {
    let ids: Vec<_> = orders.iter().map(|order| order.id.to_string()).collect();
    let ids = ids.join(" ");
    let text = format!("merge {ids} was ordered with another payload");
    Problem::new(Reason::MergeIdConflict, text).with("merge", ids)
}
