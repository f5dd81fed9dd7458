//! A dry run on the wire.

use super::convert::number;
use super::operation::kind;
use crate::hosts::volume_ref;
use crate::snapshot::{Forecast, Outlook};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;

pub(super) fn answer(forecast: Forecast) -> v1::PlanDeleteSnapshotResponse {
    let merges: Vec<_> = forecast.merges.into_iter().map(merge).collect();
    v1::PlanDeleteSnapshotResponse {
        copy_bytes: merges.iter().map(|merge| merge.copy_bytes).sum(),
        freed_bytes: merges.iter().map(|merge| merge.freed_bytes).sum(),
        merges,
        blockers: forecast.blockers.iter().map(blocker).collect(),
        estimated_time: None,
    }
}

fn merge(outlook: Outlook) -> v1::MergePlan {
    let Outlook { task, space } = outlook;
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
        space_needed_bytes: number(space.needed_bytes),
        space_free_bytes: number(space.free_bytes),
        freed_bytes: number(space.freed_bytes),
        other_way_bytes: number(space.other_way_bytes),
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
