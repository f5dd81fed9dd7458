//! How the record follows the data when a disk is merged. Pure.
//!
//! ```text
//!   before   base ◀─ V1 ◀─ V2 ◀─ active     S1 names V1, S2 names V2
//!   after    base ◀─ V1 ◀──────── active     S2 names V1: that has the data of V2 now
//! ```
//!
//! A snapshot may also say that a merge of it was begun. Whether that one was done is told by what is
//! gone from the chain, so it must never be another merge that took it from there.

use super::delete::Delete;
use super::step::put;
use super::types::{DiskTask, Merging, Snapshot, SnapshotDisk, SnapshotState};
use crate::store::SnapshotChange;
use livemerge_proto::ids::SnapshotId;
use std::collections::BTreeMap;

impl Delete<'_> {
    /// The merge of this task was just done.
    pub(super) fn follow(&self, tasks: &mut [DiskTask], current: usize) -> Changed {
        let merged = tasks[current].clone();
        let mut changed = Changed::default();
        self.repoint(&merged, &mut changed);
        self.set_chain_tells(&merged, &mut changed);
        self.outdate(&merged, &mut changed);
        follow_earlier(tasks, &merged);
        changed
    }

    /// An earlier delete's merge was found to be done. Snapshots that say the same of themselves were
    /// merged with it; any other merge that would have taken its volumes was not done.
    pub(super) fn follow_found(&self, found: &DiskTask, changed: &mut Changed) {
        self.repoint(found, changed);
        let done = found.merging();
        self.each(found, changed, |_, disk| {
            let others = disk.merging.iter_mut().filter(|it| !it.is_same(&done));
            others.for_each(|it| forget(it, found));
        });
    }

    /// Whoever named a volume that has left names the kept one from now on.
    fn repoint(&self, merged: &DiskTask, changed: &mut Changed) {
        self.each(merged, changed, |_, disk| {
            if merged.removes(&disk.volume) {
                disk.volume = merged.kept.volume.clone();
            }
            disk.merging.iter_mut().for_each(|it| move_kept(it, merged));
        });
    }

    /// What the chain shows is known to be so, or no longer, for the snapshots that go with the task.
    pub(super) fn set_chain_tells(&self, task: &DiskTask, changed: &mut Changed) {
        let chain_tells = task.merging().chain_tells;
        self.each(task, changed, |snapshot, disk| {
            if goes_with(task, snapshot, disk) {
                let merging = disk.merging.iter_mut();
                merging.for_each(|it| it.chain_tells = chain_tells);
            }
        });
    }

    /// A merge that was begun for another snapshot, and would have taken a volume that this one has
    /// just taken, was not done.
    fn outdate(&self, merged: &DiskTask, changed: &mut Changed) {
        self.each(merged, changed, |snapshot, disk| {
            if !goes_with(merged, snapshot, disk) {
                disk.merging.iter_mut().for_each(|it| forget(it, merged));
            }
        });
    }

    /// Changes what all the machine's snapshots say of the merge's disk.
    fn each(
        &self,
        merged: &DiskTask,
        changed: &mut Changed,
        change: impl Fn(SnapshotId, &mut SnapshotDisk),
    ) {
        let seen = self.draft.seen;
        for snapshot in seen.snapshots.iter().chain(seen.others) {
            let (state, before) = changed.of(snapshot);
            let mut disks = before.clone();
            let of_disk = disks.iter_mut().filter(|disk| disk.disk == merged.disk);
            of_disk.for_each(|disk| change(snapshot.id, disk));
            if disks != before {
                changed.put(snapshot, state, disks);
            }
        }
    }
}

/// The same for what snapshots shall say again if their own merge touches nothing.
fn follow_earlier(tasks: &mut [DiskTask], merged: &DiskTask) {
    let others = tasks
        .iter_mut()
        .filter(|task| task.disk == merged.disk && task.merge != merged.merge);
    let deleted = others.flat_map(|task| &mut task.deletes);
    for earlier in deleted.filter_map(|deleted| deleted.earlier.as_mut()) {
        move_kept(earlier, merged);
        forget(earlier, merged);
    }
}

fn move_kept(merging: &mut Merging, merged: &DiskTask) {
    if merged.removes(&merging.kept.volume) {
        merging.kept = merged.kept.clone();
    }
}

fn forget(merging: &mut Merging, merged: &DiskTask) {
    merging.removed.retain(|mark| !merged.removes(&mark.volume));
}

/// Whether the snapshot goes with the task on this disk.
pub(super) fn goes_with(task: &DiskTask, snapshot: SnapshotId, disk: &SnapshotDisk) -> bool {
    let mut deletes = task.deletes.iter();
    task.disk == disk.disk && deletes.any(|deleted| deleted.snapshot == snapshot)
}

/// Snapshots as they shall be, each once.
#[derive(Default)]
pub(super) struct Changed(BTreeMap<SnapshotId, (Snapshot, SnapshotState, Vec<SnapshotDisk>)>);

impl Changed {
    pub(super) fn put(&mut self, from: &Snapshot, state: SnapshotState, disks: Vec<SnapshotDisk>) {
        self.0.insert(from.id, (from.clone(), state, disks));
    }

    /// As it shall be, or as it is.
    fn of(&self, snapshot: &Snapshot) -> (SnapshotState, Vec<SnapshotDisk>) {
        match self.0.get(&snapshot.id) {
            Some((_, state, disks)) => (*state, disks.clone()),
            None => (snapshot.state, snapshot.disks.clone()),
        }
    }

    pub(super) fn into_changes(self) -> Vec<SnapshotChange> {
        let changed = self.0.into_values();
        changed
            .map(|(from, state, disks)| put(&from, state, disks))
            .collect()
    }
}
