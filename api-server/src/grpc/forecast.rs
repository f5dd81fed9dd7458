//! A dry run on the wire.

use super::convert::{duration, number};
use super::operation::kind;
use crate::hosts::volume_ref;
use crate::snapshot::{DiskTask, Forecast, Warning, time_of_all, warnings};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;

pub(super) fn answer(forecast: &Forecast) -> v1::PlanDeleteSnapshotResponse {
    let estimated_time = time_of_all(&forecast.merges).and_then(duration);
    let merges: Vec<_> = forecast.merges.iter().map(merge).collect();
    v1::PlanDeleteSnapshotResponse {
        copy_bytes: merges.iter().map(|merge| merge.copy_bytes).sum(),
        freed_bytes: merges.iter().map(|merge| merge.freed_bytes).sum(),
        merges,
        blockers: forecast.blockers.iter().map(blocker).collect(),
        estimated_time,
    }
}

fn merge(task: &DiskTask) -> v1::MergePlan {
    let foreseen = &task.foreseen;
    let removed = task.removed.iter();
    v1::MergePlan {
        disk: task.disk.to_string(),
        round: i32::try_from(task.round).unwrap_or(i32::MAX),
        kind: kind(task.kind).into(),
        kept: Some(volume_ref(&task.kept.volume)),
        removed: removed
            .map(|leaving| volume_ref(&leaving.volume.volume))
            .collect(),
        copy_bytes: number(task.planned_bytes),
        space_needed_bytes: number(foreseen.needed_bytes),
        space_free_bytes: number(foreseen.free_bytes),
        freed_bytes: number(foreseen.freed_bytes),
        other_way_bytes: number(foreseen.other_way_bytes),
        copy_bytes_guessed: foreseen.guessed,
        estimated_time: foreseen.time.and_then(duration),
        warnings: warnings(task).iter().map(warning).collect(),
    }
}

fn warning(warning: &Warning) -> v1::MergeWarning {
    use v1::MergeWarningReason as Reason;
    let (reason, message) = match warning {
        Warning::GuestDiscards => (
            Reason::GuestDiscards,
            "the guest's discards reach the images (discard='unmap'), and versions of QEMU are known in \
             which a discard during the copy damages a qcow2 volume: let the guest not discard meanwhile, \
             or merge while the machine is off"
                .to_owned(),
        ),
        Warning::TakesRoom {
            needed_bytes,
            freed_bytes,
        } => (
            Reason::TakesRoom,
            format!(
                "the kept volume may take {needed_bytes} bytes more, and the removed ones give back \
                 {freed_bytes}: their data are compressed, or its clusters are larger"
            ),
        ),
        Warning::BytesGuessed => (
            Reason::BytesGuessed,
            "the volumes' maps could not be read in time: bytes and space are guesses, and too little \
             room does not refuse the delete"
                .to_owned(),
        ),
        Warning::TimeUnknown => (
            Reason::TimeUnknown,
            "no merge was ever measured: how long it takes is not known".to_owned(),
        ),
    };
    v1::MergeWarning {
        reason: reason.into(),
        message,
    }
}

fn blocker(problem: &Problem) -> v1::Blocker {
    let value = |key: &str| problem.metadata.get(key).cloned().unwrap_or_default();
    v1::Blocker {
        disk: value("disk"),
        snapshot_id: value("snapshot"),
        reason: problem.reason.to_string(),
        message: problem.message.clone(),
        metadata: problem.metadata.clone().into_iter().collect(),
    }
}
