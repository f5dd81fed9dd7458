//! Decides what the deletion of snapshots does to each disk: pure, from the record and the chains as
//! they were just read.
//!
//! ```text
//!   base ◀─ V1 ◀─ V2 ◀─ V3 ◀─ V4 ◀─ active        S1 … S4 froze V1 … V4
//!           └─ S1, S2 ─┘      └ S4 ┘              deleted: two runs of neighbours
//!
//!   commit of the first:  V1 is kept, V2 and V3 leave (V3 held what S2's overlay held)
//!   pull of the second:   active is kept, V4 leaves
//! ```
//!
//! A run is merged in one job, so that nothing is copied twice. The runs of a disk follow one
//! another in rounds; one round of all disks goes together.

mod run;

pub(super) use self::run::encrypted;
use self::run::{Run, Site, runs};
use super::foreseen::Foreseen;
use super::types::{
    Deleted, DiskState, DiskTask, Leaving, Mark, MergeKind, MergeOptions, Merging, Snapshot,
    SnapshotDisk, SnapshotState, Told,
};
use crate::hosts::{Chain, Layer, Measured, VmChains};
use livemerge_proto::ids::{DiskTarget, MergeId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{RemovalId, VolumeRef};
use std::time::Duration;
use uuid::Uuid;

/// Where new ids come from.
pub type Mint<'a> = &'a mut dyn FnMut() -> Uuid;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The snapshots to delete.
    pub deletes: &'a [Snapshot],
    /// The machine's other snapshots.
    pub others: &'a [Snapshot],
    /// How.
    pub options: &'a MergeOptions,
}

/// What the deletion does, and everything that would refuse it.
#[derive(Debug, Default)]
pub struct Plan {
    /// The merges, the rounds in order.
    pub tasks: Vec<DiskTask>,
    /// What refuses it.
    pub blockers: Vec<Problem>,
}

/// What the deletion of snapshots does, disk by disk. A disk of a snapshot that has nothing to merge
/// is left out: it goes with the snapshot's row.
///
/// # Errors
/// Says what refuses it. Nothing has been touched then.
pub fn plan_delete(
    wanted: &Wanted<'_>,
    vm: &VmChains,
    costs: &[Measured],
    mint: Mint<'_>,
) -> Result<Vec<DiskTask>, Problem> {
    let plan = plan_all(wanted, vm, costs, mint);
    match plan.blockers.into_iter().next() {
        Some(blocker) => Err(blocker),
        None => Ok(plan.tasks),
    }
}

/// As [`plan_delete`], with all that refuses it.
pub fn plan_all(wanted: &Wanted<'_>, vm: &VmChains, costs: &[Measured], mint: Mint<'_>) -> Plan {
    let mut plan = Plan::default();
    for disk in disks(wanted) {
        match look(wanted, &disk, vm) {
            Ok(found) => {
                for (merging, deletes) in found.merged {
                    let task = only_to_remove(disk.clone(), merging, deletes, mint);
                    plan.tasks.push(task);
                }
                for (round, run) in (0..).zip(found.runs) {
                    match run.task(wanted.options, costs, mint) {
                        Ok(task) => plan.tasks.push(DiskTask { round, ..task }),
                        Err(blocker) => plan.blockers.push(blocker),
                    }
                }
            }
            Err(blocker) => plan.blockers.push(blocker),
        }
    }
    plan.tasks.sort_by_key(|task| task.round);
    plan
}

/// A run for its host: the disk, the oldest and the youngest volume.
pub type Range = (DiskTarget, Mark, Mark);

/// All runs, to be measured before they are planned.
pub fn measurable(wanted: &Wanted<'_>, vm: &VmChains) -> Vec<Range> {
    let mut ranges = Vec::new();
    for disk in disks(wanted) {
        let runs = look(wanted, &disk, vm).map(|found| found.runs);
        for run in runs.unwrap_or_default() {
            if let (Ok(oldest), Ok(youngest)) = (mark(&run.frozen[0]), mark(run.above)) {
                ranges.push((disk.clone(), oldest, youngest));
            }
        }
    }
    ranges
}

fn disks(wanted: &Wanted<'_>) -> Vec<DiskTarget> {
    let mut disks = Vec::new();
    for disk in wanted.deletes.iter().flat_map(|snapshot| &snapshot.disks) {
        if !disks.contains(&disk.disk) {
            disks.push(disk.disk.clone());
        }
    }
    disks
}

/// What there is to do on one disk.
#[derive(Default)]
struct Found<'a> {
    /// Merged by an earlier delete, and only to be removed.
    merged: Vec<(&'a Merging, Vec<Deleted>)>,
    runs: Vec<Run<'a>>,
}

fn look<'a>(
    wanted: &Wanted<'a>,
    disk: &DiskTarget,
    vm: &'a VmChains,
) -> Result<Found<'a>, Problem> {
    let mut found = Found::default();
    let mut sites: Vec<Site<'a>> = Vec::new();
    let of_disk = wanted.deletes.iter().flat_map(|snapshot| {
        let disks = snapshot.disks.iter().filter(|it| it.disk == *disk);
        disks.map(move |it| (snapshot, it))
    });
    let mut chain = None;
    for (snapshot, disk) in of_disk {
        let refuse = |reason, text| Err(about(snapshot, disk, reason, text));
        let here = vm.chains.iter().find(|chain| chain.disk == disk.disk);
        let Some(here) = here else {
            let mut unsupported = vm.unsupported.iter();
            if let Some(other) = unsupported.find(|other| other.disk == disk.disk) {
                let text = format!("disk {} {}", other.disk, other.why);
                return refuse(Reason::StrategyUnsupported, text);
            }
            let text = format!("the virtual machine has no disk {}", disk.disk);
            return refuse(Reason::DiskNotFound, text);
        };
        chain = Some(here);
        let deleted = Deleted {
            snapshot: snapshot.id,
            earlier: disk.merging.clone(),
        };
        if let Some(merging) = disk.merging.as_ref().filter(|it| has_left(it, here)) {
            if !merging.chain_tells {
                return Err(lacks_data(snapshot, disk, merging));
            }
            match found
                .merged
                .iter_mut()
                .find(|(known, _)| known.is_same(merging))
            {
                Some((_, deletes)) => deletes.push(deleted),
                None => found.merged.push((merging, vec![deleted])),
            }
            continue;
        }
        let Some(place) = position(here, &disk.volume) else {
            let text = format!("{} is not in the chain of disk {}", disk.volume, disk.disk);
            return refuse(Reason::ChainDiverged, text);
        };
        let above = here.layers.get(place + 1);
        if may_be_unfrozen(snapshot, disk) && (above.is_none() || is_anothers(disk, wanted.others))
        {
            continue;
        }
        if above.is_none() {
            let text = format!(
                "{} is the layer that the guest writes to disk {}",
                disk.volume, disk.disk
            );
            return refuse(Reason::SnapshotIsActiveLayer, text);
        }
        if here.job_running {
            let text = format!("a block job runs on disk {}", disk.disk);
            return refuse(Reason::ConcurrentChange, text);
        }
        if !here.libvirt_snapshots.is_empty() {
            let names = here.libvirt_snapshots.join(", ");
            let text = format!(
                "libvirt's own snapshots {names} name layers of disk {}: remove libvirt's metadata \
                 first, with `virsh snapshot-delete --metadata`",
                disk.disk
            );
            let refused = about(snapshot, disk, Reason::StrategyUnsupported, text);
            return Err(refused.with("libvirt_snapshots", names));
        }
        sites.push(Site {
            snapshot,
            disk,
            place,
        });
    }
    if let Some(chain) = chain {
        found.runs = runs(sites, chain, vm.state)?;
    }
    Ok(found)
}

/// Whether the overlay that was to freeze the disk's volume may never have come on: the snapshot is
/// INCOMPLETE though no merge of the disk has begun. A READY one has lost its overlay to somebody
/// else, who should know of it.
fn may_be_unfrozen(snapshot: &Snapshot, disk: &SnapshotDisk) -> bool {
    let incomplete = snapshot.was_incomplete || snapshot.state == SnapshotState::Incomplete;
    incomplete && disk.merging.is_none()
}

/// Whether another snapshot has frozen the very volume: what lies above it is that one's overlay.
fn is_anothers(disk: &SnapshotDisk, others: &[Snapshot]) -> bool {
    let same = |other: &SnapshotDisk| other.disk == disk.disk && other.volume == disk.volume;
    others.iter().any(|other| other.disks.iter().any(same))
}

/// Whether the volumes that a merge of an earlier delete takes have left the chain. One of which no
/// volume is left to tell by was not done (`follow`).
///
/// A chain without the volumes need not be proof of it: [`Merging::chain_tells`].
fn has_left(merging: &Merging, chain: &Chain) -> bool {
    let there = |mark: &Mark| position(chain, &mark.volume).is_some();
    there(&merging.kept) && !merging.removed.is_empty() && !merging.removed.iter().any(there)
}

fn only_to_remove(
    disk: DiskTarget,
    merging: &Merging,
    deletes: Vec<Deleted>,
    mint: Mint<'_>,
) -> DiskTask {
    let leaving = merging.removed.iter().map(|volume| Leaving {
        volume: volume.clone(),
        removal: RemovalId::from(mint()),
    });
    DiskTask {
        disk,
        round: 0,
        kind: MergeKind::Commit,
        kept: merging.kept.clone(),
        removed: leaving.collect(),
        deletes,
        merge: MergeId::from(mint()),
        planned_bytes: 0,
        foreseen: Foreseen::default(),
        state: DiskState::Removing {
            copied_bytes: 0,
            longest_pause: Duration::ZERO,
            gone: 0,
            freed_bytes: 0,
            copy_time: Duration::ZERO,
        },
        told: Told::default(),
    }
}

fn lacks_data(snapshot: &Snapshot, disk: &SnapshotDisk, merging: &Merging) -> Problem {
    let left = merging.removed.iter().map(|mark| mark.volume.to_string());
    let left = left.collect::<Vec<_>>().join(", ");
    let text = format!(
        "{left} left the chain of disk {} before its host saw all of it written to {}: make the chain \
         whole first, as the failed operation says",
        disk.disk, merging.kept.volume
    );
    about(snapshot, disk, Reason::ChainLacksData, text)
}

fn about(snapshot: &Snapshot, disk: &SnapshotDisk, reason: Reason, text: String) -> Problem {
    let problem = Problem::new(reason, text).with("snapshot", snapshot.id);
    problem
        .with("disk", &disk.disk)
        .with("volume", &disk.volume)
}

fn position(chain: &Chain, volume: &VolumeRef) -> Option<usize> {
    chain
        .layers
        .iter()
        .position(|layer| layer.mark.as_ref().is_some_and(|m| m.volume == *volume))
}

/// The volume of a layer.
pub(super) fn mark(layer: &Layer) -> Result<Mark, Problem> {
    layer.mark.clone().ok_or_else(|| {
        let text = format!("{} lies in no storage domain of the host", layer.locator);
        Problem::new(Reason::StrategyUnsupported, text).with("locator", &layer.locator)
    })
}
