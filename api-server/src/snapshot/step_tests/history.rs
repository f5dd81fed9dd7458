//! Many deletes of one disk's snapshots, one after the other, each with any end: whatever is READY
//! reads what it froze.
//!
//! A volume is the set of the moments in which it was written; a snapshot reads those of its volume
//! and of all below. A merge joins sets, so what a snapshot reads must stay the moments before it.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// How the merges of a round go on the host, as drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Merged,
    Failed,
    Cancelled,
    Refused,
    /// The data are merged, and their volumes cannot be removed, until somebody cancels.
    Stuck,
    /// The data are merged, but the host has lost its journal and cannot say so.
    Forgotten,
}

#[derive(Debug, Clone)]
enum Event {
    Take,
    /// Which of the snapshots by bits, which way, and how each round ends.
    Delete(u8, bool, Vec<End>),
}

fn event() -> impl Strategy<Value = Event> {
    use End::{Cancelled, Failed, Forgotten, Merged, Refused, Stuck};
    let ends = [Merged, Merged, Failed, Cancelled, Refused, Stuck, Forgotten];
    let end = proptest::sample::select(ends.to_vec());
    let ends = prop::collection::vec(end, 4);
    prop_oneof![
        1 => Just(Event::Take),
        2 => (1..=255_u8, any::<bool>(), ends).prop_map(|(which, pull, ends)| Event::Delete(which, pull, ends)),
    ]
}

/// One disk of one machine.
struct Disk {
    /// From the base to the active one: its name, and the moments in which it was written.
    chain: Vec<(String, BTreeSet<usize>)>,
    snapshots: Vec<Snapshot>,
    /// What each snapshot must read.
    frozen: BTreeMap<SnapshotId, usize>,
    /// Volumes in storage.
    stored: BTreeSet<String>,
    moment: usize,
}

impl Disk {
    fn new() -> Self {
        let mut disk = Self {
            chain: vec![],
            snapshots: vec![],
            frozen: BTreeMap::new(),
            stored: BTreeSet::new(),
            moment: 0,
        };
        disk.overlay();
        disk
    }

    /// A new active layer, which the guest writes.
    fn overlay(&mut self) {
        self.moment += 1;
        let name = format!("v{}", self.moment);
        self.stored.insert(name.clone());
        self.chain.push((name, BTreeSet::from([self.moment])));
    }

    fn take(&mut self) {
        let active = self.chain[self.chain.len() - 1].0.clone();
        let taken = Snapshot {
            state: SnapshotState::Ready,
            ..snapshot(&format!("s{}", self.moment), &[("vda", &active)])
        };
        self.frozen.insert(taken.id, self.moment);
        self.snapshots.push(taken);
        self.overlay();
    }

    fn seen(&self) -> Chain {
        let names: Vec<_> = self.chain.iter().map(|(name, _)| name.as_str()).collect();
        chain("vda", &names)
    }

    fn named(mark: &Mark) -> String {
        mark.volume.name.as_str().replace(".qcow2", "")
    }

    /// What a host does that merges: no volume of the order may be missing.
    fn merge(&mut self, task: &DiskTask) {
        let gone: BTreeSet<String> = task
            .removed
            .iter()
            .map(|it| Self::named(&it.volume))
            .collect();
        let (left, kept) = self
            .chain
            .drain(..)
            .partition(|(name, _)| gone.contains(name));
        let left: Vec<(String, BTreeSet<usize>)> = left;
        assert_eq!(left.len(), gone.len(), "what is merged is in the chain");
        self.chain = kept;
        let moments = left.into_iter().flat_map(|(_, moments)| moments);
        let into = Self::named(&task.kept);
        let into = self
            .chain
            .iter_mut()
            .find(|(name, _)| *name == into)
            .unwrap();
        into.1.extend(moments);
    }

    fn delete(&mut self, chosen: impl Fn(usize) -> bool, pull: bool, ends: &[End]) {
        let (deletes, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.snapshots)
            .into_iter()
            .enumerate()
            .partition(|(place, _)| chosen(*place));
        let plain = |all: Vec<(usize, Snapshot)>| all.into_iter().map(|(_, it)| it).collect();
        let (deletes, others): (Vec<Snapshot>, Vec<Snapshot>) = (plain(deletes), plain(others));
        if deletes.is_empty() {
            self.snapshots = others;
            return;
        }
        let deletes: Vec<_> = deletes.into_iter().map(Snapshot::deleting).collect();
        let mut record = Record::of(&deletes, planning());
        record.others = others;
        self.run(&mut record, pull, ends);
        self.snapshots = record.snapshots;
        self.snapshots.extend(record.others);
        self.snapshots.sort_by_key(|snapshot| snapshot.id);
    }

    fn run(&mut self, record: &mut Record, pull: bool, ends: &[End]) {
        let direction = |way, copy_bytes| MeasuredWay {
            direction: way,
            blocker: None,
            copy_bytes,
            needed_bytes: 0,
            free_bytes: 0,
            freed_bytes: 0,
            estimated: false,
        };
        let mut shown: BTreeMap<MergeId, MergeSight> = BTreeMap::new();
        let (mut answer, mut attempts) = (None, 0);
        for _ in 0..400 {
            let seen = Seen {
                sights: shown.clone(),
                begun: !shown.is_empty(),
                answer: answer.take(),
                attempts,
                ..record.seen()
            };
            let end = |task: &DiskTask| ends[task.round as usize % ends.len()];
            match seen.decide(&record.operation) {
                Step::Ask(Ask::Survey(_)) => {
                    let costs = self.chain.iter().map(|(name, _)| Measured {
                        disk: "vda".parse().unwrap(),
                        oldest: volume(name),
                        ways: vec![
                            direction(Direction::Commit, 2),
                            direction(Direction::Pull, if pull { 1 } else { 3 }),
                        ],
                    });
                    answer = Some(Answer::Survey(running(vec![self.seen()]), costs.collect()));
                }
                Step::Ask(Ask::Merges(ordered)) => {
                    for order in ordered {
                        let task = record.tasks().iter().find(|task| task.merge == order.id);
                        let task = task.unwrap().clone();
                        let phase = match end(&task) {
                            End::Merged | End::Stuck => {
                                self.merge(&task);
                                MergePhase::Merged
                            }
                            End::Forgotten => {
                                self.merge(&task);
                                MergePhase::Failed(died())
                            }
                            End::Failed => MergePhase::Failed(died()),
                            End::Cancelled => MergePhase::Cancelled,
                            End::Refused => {
                                answer = Some(refused(Reason::ConcurrentChange));
                                attempts = 1;
                                continue;
                            }
                        };
                        shown.insert(order.id, merge(phase));
                    }
                }
                Step::Ask(Ask::Removals(orders)) => {
                    let mut came = Removals::new();
                    for order in orders {
                        let name = Self::named(&order.volume);
                        let in_chain = self.chain.iter().any(|(layer, _)| *layer == name);
                        assert!(!in_chain, "{name} is needed");
                        let of = |task: &&DiskTask| task.removes(&order.volume.volume);
                        if end(record.tasks().iter().find(of).unwrap()) == End::Stuck {
                            let in_use = Problem::new(Reason::VolumeInUse, "no");
                            came.insert(order.id, Err(HostError::Refused(in_use)));
                        } else {
                            self.stored.remove(&name);
                            came.insert(order.id, Ok(is_gone()));
                        }
                    }
                    let came = Answer::Removals(came);
                    attempts += u32::from(came.error().is_some());
                    answer = Some(came);
                }
                Step::Ask(other) => panic!("{other:?}"),
                Step::Wait(wait) => {
                    // The removal that waits is given up.
                    assert!(
                        wait.cause
                            .is_some_and(|cause| cause.reason == Reason::VolumeInUse)
                    );
                    record.operation.cancel_requested = true;
                }
                Step::Note(change) => record.apply(&change),
                Step::Enter(change) => {
                    record.apply(&change);
                    (shown, attempts) = (BTreeMap::new(), 0);
                    if record.operation.state.ended() {
                        return;
                    }
                }
            }
        }
        panic!("still {:?}", record.operation.work);
    }

    /// What a snapshot reads; `None` when its volume is not in the chain.
    fn reads(&self, snapshot: &Snapshot) -> Option<BTreeSet<usize>> {
        let volume = &snapshot.disks[0].volume;
        let place = self
            .chain
            .iter()
            .position(|(name, _)| super::volume(name) == *volume)?;
        let layers = self.chain[..=place].iter();
        Some(layers.flat_map(|(_, moments)| moments.clone()).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_is_ready_reads_what_it_froze(events in prop::collection::vec(event(), 1..24)) {
        let mut disk = Disk::new();
        disk.take();
        disk.take();
        let mut forgotten = false;
        for event in events {
            match &event {
                Event::Take => disk.take(),
                Event::Delete(which, pull, ends) => {
                    forgotten |= ends.contains(&End::Forgotten);
                    disk.delete(|place| which >> (place % 8) & 1 == 1, *pull, ends);
                }
            }
            for snapshot in &disk.snapshots {
                prop_assert_ne!(snapshot.state, SnapshotState::Deleting);
            }
            for snapshot in disk.snapshots.iter().filter(|it| it.state == SnapshotState::Ready) {
                let wanted: BTreeSet<usize> = (1..=disk.frozen[&snapshot.id]).collect();
                match disk.reads(snapshot) {
                    // Nobody has told the server where the data went: it is not found, never wrong.
                    None => prop_assert!(forgotten, "{} is lost after {:?}", snapshot.name, event),
                    Some(found) => prop_assert_eq!(found, wanted, "{} after {:?}", snapshot.name, event),
                }
            }
        }
        // Once faults stop, what is left can be deleted: all at once, but for what has to be found
        // again first.
        if !forgotten {
            disk.delete(|_| true, false, &[End::Merged]);
            prop_assert_eq!(&disk.snapshots, &vec![]);
        }
        for number in 0..8 * disk.snapshots.len() {
            let count = disk.snapshots.len().max(1);
            disk.delete(|place| place == number % count, false, &[End::Merged]);
        }
        // Whether a merge that nobody tells of was done cannot be told from the chain: the snapshot stays
        // in the list, and the volumes in storage, for an operator to look at.
        for snapshot in &disk.snapshots {
            prop_assert!(forgotten);
            let own = &snapshot.disks[0];
            let unsure = own.merging.as_ref().is_some_and(|it| !it.chain_tells);
            prop_assert!(unsure || disk.reads(snapshot).is_none());
            let unsure = own.merging.iter().filter(|it| !it.chain_tells);
            let left = unsure.flat_map(|it| &it.removed);
            for needed in left.map(|mark| &mark.volume).chain([&own.volume]) {
                prop_assert!(disk.stored.iter().any(|name| volume(name) == *needed));
            }
        }
        // A merge that nobody tells of may be taken for another one that was begun, whose layers
        // then stay: that is found by the comparison of record and chains.
        if !forgotten {
            prop_assert_eq!(disk.chain.len(), 1);
            prop_assert_eq!(disk.stored.len(), 1, "{:?}", disk.stored);
        }
    }
}
