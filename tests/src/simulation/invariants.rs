//! What must hold after every event, and what must hold at the end.

use std::collections::BTreeSet;

use livemerge_api_server::snapshot::{
    DeletePhase, EventKind, Operation, OperationState, Snapshot, SnapshotState, Work,
};
use livemerge_host_agent::hypervisor::VmState;
use livemerge_host_agent::hypervisor::fake::RunningJob;
use livemerge_host_agent::merge::{MergeRecord, Phase, Window, job_order};
use livemerge_proto::ids::{DiskTarget, OperationId};
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
        nobody_writes_while_the_intent_stands(world)?;
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
    if world.agent.doubled {
        return Err("I3: a job was asked for where one runs".to_owned());
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

/// What an ended operation promises.
fn end_is_true(world: &World, operation: &Operation) -> Result<(), Broken> {
    let Work::Delete(phase) = &operation.work else {
        return Ok(());
    };
    let record = &world.server.record;
    let name = &operation.snapshot_name;
    let snapshot = record.snapshots.get(&operation.snapshot);
    let told = |kind| {
        record
            .events
            .iter()
            .any(|event| event.kind == kind && event.operation == Some(operation.id))
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
            if snapshot.is_some() || !told(EventKind::SnapshotDeleted) {
                return Err(format!("{name}: SUCCEEDED, and the record does not say so"));
            }
        }
        OperationState::Cancelled => {
            let listed = snapshot.is_none_or(|snapshot| {
                matches!(
                    snapshot.state,
                    SnapshotState::Ready | SnapshotState::Incomplete
                )
            });
            if !listed || !told(EventKind::OperationCancelled) {
                return Err(format!("{name}: CANCELLED: still locked, or not told"));
            }
        }
        OperationState::Failed(failure) => {
            let listed = snapshot.is_some_and(|snapshot| {
                matches!(
                    snapshot.state,
                    SnapshotState::Ready | SnapshotState::Incomplete
                )
            });
            if !listed || !told(EventKind::SnapshotDeleteFailed) {
                return Err(format!(
                    "{name}: FAILED {failure:?}: not listed, or not told"
                ));
            }
        }
        OperationState::Queued | OperationState::Running => {}
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
    if world.machine.state != VmState::Running {
        return Err("I8c: the guest stands still for ever".to_owned());
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
