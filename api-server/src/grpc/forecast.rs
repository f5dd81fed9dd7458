//! A dry run on the wire.

use super::convert::{duration, number};
use super::operation::kind;
use crate::hosts::volume_ref;
use crate::snapshot::{DiskTask, Forecast, time_of_all};
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
