//! What must hold after every event, and what must hold at the end.

use std::collections::BTreeSet;

use livemerge_api_server::snapshot::{
    CreatePhase, DeletePhase, EventKind, Operation, OperationState, Snapshot, SnapshotState, Work,
};
use livemerge_host_agent::hypervisor::VmState;
use livemerge_host_agent::hypervisor::fake::RunningJob;
use livemerge_host_agent::merge::{MergeKind, MergeRecord, Phase, Window, job_order};
use livemerge_proto::ids::{DiskTarget, OperationId, SnapshotId};
use livemerge_storage::Locator;

use super::guest::BLOCKS;
use super::world::World;

/// What was found broken, in words.
pub(super) type Broken = String;

/// Looks at the world.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    ended: BTreeSet<OperationId>,
}

impl Invariants {
    /// What must hold after every event.
    pub(super) fn hold(&mut self, world: &mut World) -> Result<(), Broken> {
        no_write_is_lost(world)?;
        chains_are_whole(world)?;
        snapshots_read_as_promised(world)?;
        jobs_are_known(world)?;
        a_suspended_guest_is_known(world)?;
        a_guest_that_is_held_back_is_known(world)?;
        nobody_writes_while_the_intent_stands(world)?;
        operations_take_turns(world)?;
        self.ends_are_true(world)?;
        requests_keep_their_operation(world)
    }

    fn ends_are_true(&mut self, world: &World) -> Result<(), Broken> {
        let record = &world.server.record;
        for operation in record.operations.values() {
            if operation.state.ended() && self.ended.insert(operation.id) {
                end_is_true(world, operation)?;
            }
        }
        Ok(())
    }
}

/// I1, whatever dies now: both what the guest reads, and what it would read if it was started from
/// what its definition names.
fn no_write_is_lost(world: &World) -> Result<(), Broken> {
    let machine = &world.machine;
    if world.hypervisor.lacks_data(world.vm) {
        return what_was_pulled_is_restored(world);
    }
    for disk in &machine.disks {
        let promised = world.guest.acknowledged(&disk.target);
        let next = disk.next_start.as_ref();
        let kept = next.and_then(|next| world.hypervisor.images().content(next));
        if kept.as_ref() != Some(&promised) {
            let at = next.map_or_else(String::new, ToString::to_string);
            return Err(format!(
                "I1: {}: started from {at} the guest would read {kept:?}, acknowledged was {promised:?}",
                disk.target
            ));
        }
        if machine.state == VmState::ShutOff {
            continue;
        }
        for block in 0..BLOCKS {
            let read = world.hypervisor.guest_read(world.vm, &disk.target, block);
            let promised = promised.get(&block).copied().unwrap_or_default();
            if read != Some(promised) {
                return Err(format!(
                    "I1: {}: the guest reads {read:?} in block {block}, acknowledged was {promised}",
                    disk.target
                ));
            }
        }
    }
    Ok(())
}

/// QEMU has died with what it had pulled in its memory. The machine is off, and the journal has the
/// merge that makes the image name the pulled layers again, which are all there.
fn what_was_pulled_is_restored(world: &World) -> Result<(), Broken> {
    let restores = |record: &&MergeRecord| {
        let there = |layer: &Locator| world.hypervisor.images().exists(layer);
        record.kind == MergeKind::Pull && !record.phase.ended() && record.removed.iter().all(there)
    };
    let open = world.agent.journal.values().any(|record| restores(&record));
    if world.machine.state == VmState::ShutOff && open {
        return Ok(());
    }
    Err("I1: what was pulled is lost, and nobody will name the layers that have it".to_owned())
}

/// I2: whatever is named is there.
fn chains_are_whole(world: &World) -> Result<(), Broken> {
    let images = world.hypervisor.images();
    let gone =
        |what: &str, image: &Locator| Err(format!("I2: {what} names {image}, which is gone"));
    for disk in &world.machine.disks {
        for layer in &disk.chain {
            if !images.exists(&layer.locator) {
                return gone("the live chain", &layer.locator);
            }
        }
    }
    for (image, backing) in images.backings() {
        if !images.exists(&backing) {
            return gone(&format!("the header of {image}"), &backing);
        }
    }
    for snapshot in world.server.record.snapshots.values() {
        for disk in &snapshot.disks {
            if world.locate(&disk.volume).is_none() {
                return Err(format!(
                    "I2: snapshot {} names {}, which is gone",
                    snapshot.name, disk.volume
                ));
            }
        }
    }
    Ok(())
}

/// I4: a snapshot that is told to be good reads as it was.
fn snapshots_read_as_promised(world: &mut World) -> Result<(), Broken> {
    let images = world.hypervisor.images().clone();
    let ready = |snapshot: &&Snapshot| snapshot.state == SnapshotState::Ready;
    for snapshot in world.server.record.snapshots.values().filter(ready) {
        let disks: Vec<(&DiskTarget, Locator)> = snapshot
            .disks
            .iter()
            .filter_map(|disk| Some((&disk.disk, world.locate(&disk.volume)?)))
            .collect();
        world.guest.promise(snapshot.id, disks.iter().cloned());
        for (disk, volume) in &disks {
            let read = images.content(volume);
            let promised = world.guest.promised(snapshot.id, disk);
            if read.as_ref() != promised {
                return Err(format!(
                    "I4: snapshot {} is READY and reads {read:?} on {disk}, it was {promised:?}",
                    snapshot.name
                ));
            }
        }
    }
    Ok(())
}

/// Whether the job is the merge's.
fn does(record: &MergeRecord, job: &RunningJob) -> bool {
    let order = job_order(record);
    (order.kind, order.base, order.top) == (job.kind, job.base.clone(), job.top.clone())
}

/// I3, I4: a job that runs is one of an open merge, and the record says what it does to whom.
fn jobs_are_known(world: &World) -> Result<(), Broken> {
    if let Some(wrong) = &world.agent.wrong {
        return Err(wrong.clone());
    }
    for (disk, job) in &world.jobs {
        let of_the_job = |record: &&MergeRecord| {
            !record.phase.ended()
                && record.phase != Phase::Pending
                && record.order.disk == *disk
                && does(record, job)
        };
        let Some(merge) = world.agent.journal.values().find(of_the_job) else {
            return Err(format!(
                "I3: a job on {disk} belongs to no open merge: {job:?}"
            ));
        };
        let order = &merge.order;
        let marked = |snapshot: &Snapshot| {
            let state = snapshot.state;
            matches!(state, SnapshotState::Deleting | SnapshotState::Incomplete)
                && snapshot.disks.iter().any(|named| {
                    named.disk == *disk
                        && named.merging.as_ref().is_some_and(|merging| {
                            let removed = order.removed.iter().map(|mark| &mark.volume);
                            merging.kept.volume == order.kept.volume
                                && merging.removed.iter().map(|mark| &mark.volume).eq(removed)
                        })
                })
        };
        if !world.server.record.snapshots.values().any(marked) {
            return Err(format!(
                "I4: merge {} works on {}, and no snapshot says so",
                order.id, order.kept.volume
            ));
        }
    }
    Ok(())
}

/// I8c: a guest that stands still is one that the journal knows, unless somebody else stopped it.
fn a_suspended_guest_is_known(world: &World) -> Result<(), Broken> {
    let known = |record: &MergeRecord| {
        matches!(
            record.phase,
            Phase::Pivoting {
                suspended_at: Some(_),
                ..
            } | Phase::Verifying {
                suspended_at: Some(_)
            }
        )
    };
    let stands = world.machine.state == VmState::Paused && !world.paused_by_operator;
    if stands && !world.agent.journal.values().any(known) {
        return Err("I8c: the guest stands still, and the journal does not know".to_owned());
    }
    Ok(())
}

/// I8c: a guest that is held back is one that the journal knows.
fn a_guest_that_is_held_back_is_known(world: &World) -> Result<(), Broken> {
    for disk in world.disks.iter().filter(|_| world.held_back) {
        let mut records = world.agent.journal.values();
        let known = records.any(|record| {
            let open = !record.phase.ended() && record.order.disk == *disk;
            open && record.help.throttle.is_some()
        });
        if world.hypervisor.limited_to(world.vm, disk) > 0 && !known {
            return Err(format!(
                "I8c: the writes to {disk} are limited, and the journal does not know"
            ));
        }
    }
    Ok(())
}

/// While the journal says that a pivot may be on its way, and one could be, the guest stands still.
fn nobody_writes_while_the_intent_stands(world: &World) -> Result<(), Broken> {
    for record in world.agent.journal.values() {
        let intent = matches!(
            record.phase,
            Phase::Pivoting {
                window: Window::Intent,
                ..
            }
        );
        let job = world.job(&record.order.disk).is_some();
        if intent && job && world.runs() {
            return Err(format!(
                "I1: merge {} may be pivoting, and the guest runs",
                record.order.id
            ));
        }
    }
    Ok(())
}

/// Nothing is begun before what was accepted earlier has ended.
fn operations_take_turns(world: &World) -> Result<(), Broken> {
    let begun = |operation: &&Operation| {
        !matches!(
            operation.work,
            Work::Create(CreatePhase::Planning) | Work::Delete(DeletePhase::Planning)
        )
    };
    let open = world.server.record.open_operations();
    open.skip(1).find(begun).map_or(Ok(()), |early| {
        let name = &early.snapshot_name;
        Err(format!(
            "order: the operation on {name} is begun before its turn"
        ))
    })
}

/// What an ended operation promises.
fn end_is_true(world: &World, operation: &Operation) -> Result<(), Broken> {
    let Work::Delete(phase) = &operation.work else {
        return Ok(());
    };
    let record = &world.server.record;
    let name = &operation.snapshot_name;
    let told = |kind| {
        record
            .events
            .iter()
            .any(|event| event.kind == kind && event.operation == Some(operation.id))
    };
    let deleted = |snapshot: SnapshotId| {
        record.events.iter().any(|event| {
            let own = event.operation == Some(operation.id) && event.snapshot == Some(snapshot);
            own && event.kind == EventKind::SnapshotDeleted
        })
    };
    // Listed and not locked, or gone and told.
    let settled = |snapshot: SnapshotId| match record.snapshots.get(&snapshot) {
        Some(row) => matches!(row.state, SnapshotState::Ready | SnapshotState::Incomplete),
        None => deleted(snapshot),
    };
    match &operation.state {
        OperationState::Succeeded => {
            let DeletePhase::Disks(tasks) = phase else {
                return Err(format!("{name}: SUCCEEDED without a plan"));
            };
            for task in tasks {
                for leaving in &task.removed {
                    let volume = &leaving.volume.volume;
                    if world.locate(volume).is_some() {
                        return Err(format!("{name}: SUCCEEDED, {volume} is left"));
                    }
                }
            }
            let gone = |id: SnapshotId| !record.snapshots.contains_key(&id) && deleted(id);
            if !operation.snapshots().all(gone) {
                return Err(format!("{name}: SUCCEEDED, and the record does not say so"));
            }
        }
        OperationState::Cancelled => {
            if !operation.snapshots().all(settled) || !told(EventKind::OperationCancelled) {
                return Err(format!("{name}: CANCELLED: still locked, or not told"));
            }
        }
        OperationState::Failed(failure) => {
            if !operation.snapshots().all(settled) || !told(EventKind::SnapshotDeleteFailed) {
                return Err(format!(
                    "{name}: FAILED {failure:?}: not listed, or not told"
                ));
            }
        }
        OperationState::Queued | OperationState::Running => {}
    }
    one_pivots_or_none(world, operation)
}

/// Of active commits that go together none is merged when one of them was given up.
fn one_pivots_or_none(world: &World, operation: &Operation) -> Result<(), Broken> {
    let journal = &world.agent.journal;
    let records = || {
        let all = journal.values().filter(|record| record.pivots());
        all.filter(|record| record.order.vm == operation.vm)
    };
    for record in records().filter(|record| matches!(record.phase, Phase::Cancelled { .. })) {
        let merged = records().find(|other| {
            let together = other.order.together.contains(&record.order.id);
            together && matches!(other.phase, Phase::Merged { .. })
        });
        if let Some(merged) = merged {
            let (disk, other) = (&record.order.disk, &merged.order.disk);
            return Err(format!("barrier: {other} is merged, {disk} was given up"));
        }
    }
    Ok(())
}

/// I6.
fn requests_keep_their_operation(world: &World) -> Result<(), Broken> {
    for (request, operation) in &world.requests {
        if world.server.record.repeated(*request) != Some(*operation) {
            return Err(format!("I6: request {request} lost its operation"));
        }
    }
    Ok(())
}

/// Once faults have stopped and all has come to rest: nothing is open, locked, suspended or
/// forgotten.
pub(super) fn at_rest(world: &World) -> Result<(), Broken> {
    if let Some(open) = world.server.record.open_operations().next() {
        return Err(format!(
            "I5: the operation on {} never ends",
            open.snapshot_name
        ));
    }
    for snapshot in world.server.record.snapshots.values() {
        if !matches!(
            snapshot.state,
            SnapshotState::Ready | SnapshotState::Incomplete
        ) {
            return Err(format!("I5: {} stays {:?}", snapshot.name, snapshot.state));
        }
    }
    if let Some(open) = world
        .agent
        .journal
        .values()
        .find(|record| !record.phase.ended())
    {
        return Err(format!("I5: merge {} never ends", open.order.id));
    }
    if world.machine.state != VmState::Running && !world.stays_off {
        return Err("I8c: the guest stands still for ever".to_owned());
    }
    if world.held_back {
        return Err("I8c: the guest's writes stay limited".to_owned());
    }
    Ok(())
}

/// When all snapshots are deleted, each disk is one volume, and storage has no other.
pub(super) fn nothing_is_left(world: &World) -> Result<(), Broken> {
    let machine = &world.machine;
    for disk in &machine.disks {
        if disk.chain.len() != 1 {
            return Err(format!(
                "left: the chain of {}: {:?}",
                disk.target, disk.chain
            ));
        }
    }
    let names = world.storage.names();
    if names.len() != machine.disks.len() {
        return Err(format!("left: the volumes {names:?}"));
    }
    Ok(())
}
