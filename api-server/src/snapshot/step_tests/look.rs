//! What a decision is made from, and a record that takes what was decided.

use super::*;

/// What is seen, with nothing special.
pub(super) struct Seen<'a> {
    pub(super) snapshots: &'a [Snapshot],
    pub(super) others: &'a [Snapshot],
    /// Every merge, but for those of `sights`.
    pub(super) merge: MergeSight,
    pub(super) sights: BTreeMap<MergeId, MergeSight>,
    pub(super) answer: Option<Answer>,
    /// What in the record needs all that is to be removed.
    pub(super) needed: Option<Problem>,
    /// What needs some of it alone.
    pub(super) needed_of: BTreeMap<RemovalId, Problem>,
    pub(super) attempts: u32,
    pub(super) begun: bool,
    pub(super) unseen: Duration,
    /// The host's share of its total rate.
    pub(super) share: u64,
}

impl<'a> Seen<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        Self::all(std::slice::from_ref(snapshot))
    }

    pub(super) fn all(snapshots: &'a [Snapshot]) -> Self {
        Self {
            snapshots,
            others: &[],
            merge: MergeSight::Absent,
            sights: BTreeMap::new(),
            answer: None,
            needed: None,
            needed_of: BTreeMap::new(),
            attempts: 0,
            begun: false,
            unseen: Duration::ZERO,
            share: 0,
        }
    }

    /// One merge stands otherwise than the rest.
    pub(super) fn but(mut self, task: &DiskTask, sight: MergeSight) -> Self {
        self.sights.insert(task.merge, sight);
        self
    }

    pub(super) fn decide(&self, operation: &Operation) -> Step {
        let awaited = awaited_merges(operation).into_iter();
        let mut needed = self.needed_of.clone();
        let next = next_removals(operation).into_iter();
        let all = next.zip(self.needed.iter().cycle());
        needed.extend(all.map(|(leaving, by)| (leaving.removal, by.clone())));
        let sight = |merge| self.sights.get(&merge).unwrap_or(&self.merge).clone();
        let seen = Observation {
            snapshots: self.snapshots,
            others: self.others,
            host: None,
            merges: awaited.map(|merge| (merge, sight(merge))).collect(),
            unseen: self.unseen,
            answer: self.answer.as_ref(),
            needed: &needed,
            attempts: self.attempts,
            begun: self.begun,
            rate: Some(2),
            bytes_per_second: self.share,
        };
        step(operation, &seen, now(), &mut Uuid::now_v7)
    }
}

/// An operation and its machine's snapshots, as the store would have them.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) operation: Operation,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) others: Vec<Snapshot>,
}

impl Record {
    pub(super) fn of(snapshots: &[Snapshot], work: Work) -> Self {
        Self {
            operation: batch(snapshots, work),
            snapshots: snapshots.to_vec(),
            others: vec![],
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            others: &self.others,
            ..Seen::all(&self.snapshots)
        }
    }

    pub(super) fn decide(&self, merge: MergeSight, answer: Option<Answer>) -> Step {
        let seen = Seen {
            begun: matches!(merge, MergeSight::Seen(_)),
            merge,
            answer,
            ..self.seen()
        };
        seen.decide(&self.operation)
    }

    /// Writes it down.
    pub(super) fn apply(&mut self, change: &Change) {
        self.operation = change.operation.clone();
        for changed in &change.snapshots {
            match changed {
                SnapshotChange::Put(snapshot) => {
                    let all = self.snapshots.iter_mut().chain(&mut self.others);
                    let mut same = all.filter(|known| known.id == snapshot.id);
                    *same.next().expect("no snapshot comes from nowhere") = snapshot.clone();
                }
                SnapshotChange::Delete(id) => self.snapshots.retain(|known| known.id != *id),
            }
        }
    }

    /// What is written down then.
    pub(super) fn enter(&mut self, merge: MergeSight, answer: Option<Answer>) -> Change {
        let change = change(self.decide(merge, answer));
        self.apply(&change);
        change
    }

    pub(super) fn tasks(&self) -> &[DiskTask] {
        work(&self.operation)
    }

    pub(super) fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        let mut all = self.snapshots.iter().chain(&self.others);
        all.find(|snapshot| snapshot.name.as_str() == name)
    }
}
