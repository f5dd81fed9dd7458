//! Operations on the wire.

use super::convert::{duration, number, time};
use crate::hosts::{MergePhase, volume_ref};
use crate::snapshot::{
    CreatePhase, DeletePhase, DiskState, DiskTask, MergeKind, MergeProgress, OperationState,
    OperationView, Waiting, Work, time_of_all,
};
use livemerge_proto::v1;
use std::time::Duration;

pub(super) fn operation(view: OperationView) -> v1::Operation {
    let OperationView {
        operation,
        waiting,
        merges,
    } = view;
    let (state, failure) = match operation.state {
        OperationState::Queued => (v1::OperationState::Queued, None),
        OperationState::Running => (v1::OperationState::Running, None),
        OperationState::Succeeded => (v1::OperationState::Succeeded, None),
        OperationState::Cancelled => (v1::OperationState::Cancelled, None),
        OperationState::Failed(ref failure) => (v1::OperationState::Failed, Some(failure.clone())),
    };
    let kind = match operation.work {
        Work::Create(_) => v1::OperationKind::CreateSnapshot,
        Work::Delete(_) => v1::OperationKind::DeleteSnapshot,
    };
    let phase = if state == v1::OperationState::Running {
        phase(&operation.work)
    } else {
        v1::OperationPhase::Unspecified
    };
    let mut estimated_time = None;
    let disks = match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => {
            estimated_time = time_of_all(tasks).and_then(duration);
            let disk = |task: &DiskTask| disk(task, merges.get(&task.merge));
            tasks.iter().map(disk).collect()
        }
        Work::Delete(DeletePhase::Planning) | Work::Create(_) => vec![],
    };
    v1::Operation {
        id: operation.id.to_string(),
        kind: kind.into(),
        state: state.into(),
        phase: phase.into(),
        vm_id: operation.vm.to_string(),
        snapshot_id: operation.snapshot.to_string(),
        snapshot_ids: operation.snapshots().map(|id| id.to_string()).collect(),
        bytes_per_second: number(operation.options.bytes_per_second),
        cancel_requested: operation.cancel_requested,
        snapshot_name: operation.snapshot_name.to_string(),
        request_id: operation.request.to_string(),
        requested_by: operation.requested_by,
        disks,
        estimated_time,
        waiting: waiting.map(wait),
        failure: failure.map(Into::into),
        created_at: Some(time(operation.created_at)),
        started_at: operation.started_at.map(time),
        ended_at: operation.ended_at.map(time),
        revision: number(operation.revision),
    }
}

fn phase(work: &Work) -> v1::OperationPhase {
    match work {
        Work::Create(CreatePhase::Planning) | Work::Delete(DeletePhase::Planning) => {
            v1::OperationPhase::Planning
        }
        Work::Create(CreatePhase::Overlaying(_) | CreatePhase::Refused(..)) => {
            v1::OperationPhase::CreatingOverlays
        }
        // Of the disks that go together, the first removal waits for the last merge.
        Work::Delete(DeletePhase::Disks(tasks)) => {
            let mut states = tasks.iter().map(|task| &task.state);
            if states.any(|state| *state == DiskState::Merging) {
                v1::OperationPhase::Merging
            } else {
                v1::OperationPhase::Removing
            }
        }
    }
}

/// One merge's progress; `live` as its host shows it now.
fn disk(task: &DiskTask, live: Option<&MergeProgress>) -> v1::DiskProgress {
    let failure = match &task.state {
        DiskState::Failed(failure) | DiskState::Refused(failure) => Some(failure.clone().into()),
        _ => None,
    };
    let removed = task.removed.iter();
    let mut disk = v1::DiskProgress {
        disk: task.disk.to_string(),
        round: i32::try_from(task.round).unwrap_or(i32::MAX),
        kind: kind(task.kind).into(),
        kept: Some(volume_ref(&task.kept.volume)),
        removed: removed
            .map(|leaving| volume_ref(&leaving.volume.volume))
            .collect(),
        planned_bytes: number(task.planned_bytes),
        planned_bytes_guessed: task.foreseen.guessed,
        planned_time: task.foreseen.time.and_then(duration),
        space_needed_bytes: number(task.foreseen.needed_bytes),
        space_free_bytes: number(task.foreseen.free_bytes),
        planned_freed_bytes: number(task.foreseen.freed_bytes),
        other_way_bytes: number(task.foreseen.other_way_bytes),
        failure,
        ..v1::DiskProgress::default()
    };
    let mut copied = |copied_bytes: u64, copy_time: Duration, longest_pause: Duration| {
        disk.copy_time = duration(copy_time);
        disk.done_bytes = number(copied_bytes);
        disk.total_bytes = number(copied_bytes);
        disk.longest_pause = duration(longest_pause);
    };
    let phase = match &task.state {
        DiskState::Pending => v1::MergePhase::Pending,
        DiskState::Failed(_) | DiskState::Refused(_) => v1::MergePhase::Failed,
        DiskState::Cancelled => v1::MergePhase::Cancelled,
        DiskState::Merging => match live {
            Some(live) => return merging(disk, live),
            None => v1::MergePhase::Pending,
        },
        DiskState::Removing {
            copied_bytes,
            longest_pause,
            freed_bytes,
            copy_time,
            ..
        } => {
            copied(*copied_bytes, *copy_time, *longest_pause);
            disk.freed_bytes = number(*freed_bytes);
            v1::MergePhase::Removing
        }
        DiskState::Removed {
            copied_bytes,
            longest_pause,
            freed_bytes,
            copy_time,
        } => {
            copied(*copied_bytes, *copy_time, *longest_pause);
            disk.freed_bytes = number(*freed_bytes);
            v1::MergePhase::Removed
        }
    };
    disk.phase = phase.into();
    disk
}

fn merging(mut disk: v1::DiskProgress, live: &MergeProgress) -> v1::DiskProgress {
    let seen = &live.seen;
    let phase = match seen.phase {
        MergePhase::Pending => v1::MergePhase::Pending,
        MergePhase::Copying => v1::MergePhase::Copying,
        MergePhase::Ready => v1::MergePhase::Ready,
        MergePhase::Pivoting => v1::MergePhase::Pivoting,
        MergePhase::Verifying => v1::MergePhase::Verifying,
        MergePhase::Overlaying => v1::MergePhase::Overlaying,
        MergePhase::Cancelling => v1::MergePhase::Cancelling,
        MergePhase::Cancelled => v1::MergePhase::Cancelled,
        MergePhase::Merged => v1::MergePhase::Merged,
        MergePhase::Failed(_) => v1::MergePhase::Failed,
    };
    disk.phase = phase.into();
    disk.done_bytes = number(seen.done_bytes);
    disk.total_bytes = number(seen.total_bytes);
    disk.bytes_per_second = number(live.bytes_per_second);
    disk.longest_pause = duration(seen.longest_pause);
    let left = seen.total_bytes.saturating_sub(seen.done_bytes);
    disk.time_left = left
        .checked_div(live.bytes_per_second)
        .map(Duration::from_secs)
        .and_then(duration);
    disk
}

fn wait(waiting: Waiting) -> v1::Waiting {
    v1::Waiting {
        reason: waiting.cause.reason.to_string(),
        message: waiting.cause.message,
        next_try_at: waiting.next_try_at.map(time),
        attempts: i32::try_from(waiting.attempts).unwrap_or(i32::MAX),
        queue_position: i32::try_from(waiting.queue_position).unwrap_or(i32::MAX),
    }
}

pub(super) fn kind(kind: MergeKind) -> v1::MergeKind {
    match kind {
        MergeKind::ActiveCommit => v1::MergeKind::ActiveCommit,
        MergeKind::Commit => v1::MergeKind::IntermediateCommit,
        MergeKind::Pull => v1::MergeKind::Pull,
        MergeKind::OfflineCommit => v1::MergeKind::OfflineCommit,
    }
}
