//! What a delete would do, as a document.

use super::document::{VolumeDocument, given, set, sorted, volume, volumes};
use super::text::{seconds, word};
use livemerge_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// What the names of reasons to warn begin with.
pub(crate) const WARNING: &str = "MERGE_WARNING_REASON_";

#[derive(Debug, Serialize)]
pub(crate) struct PlanDocument<'a> {
    merges: Vec<MergeDocument<'a>>,
    blockers: Vec<BlockerDocument<'a>>,
    copy_bytes: i64,
    freed_bytes: i64,
    estimated_time_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct MergeDocument<'a> {
    disk: &'a str,
    round: i32,
    kind: Option<String>,
    kept: Option<VolumeDocument<'a>>,
    removed: Vec<VolumeDocument<'a>>,
    copy_bytes: i64,
    space_needed_bytes: i64,
    space_free_bytes: i64,
    freed_bytes: i64,
    other_way_bytes: i64,
    copy_bytes_guessed: bool,
    estimated_time_seconds: Option<f64>,
    warnings: Vec<WarningDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct WarningDocument<'a> {
    reason: Option<String>,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct BlockerDocument<'a> {
    disk: Option<&'a str>,
    snapshot_id: Option<&'a str>,
    reason: &'a str,
    message: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a v1::PlanDeleteSnapshotResponse> for PlanDocument<'a> {
    fn from(plan: &'a v1::PlanDeleteSnapshotResponse) -> Self {
        Self {
            merges: plan.merges.iter().map(MergeDocument::from).collect(),
            blockers: plan.blockers.iter().map(BlockerDocument::from).collect(),
            copy_bytes: plan.copy_bytes,
            freed_bytes: plan.freed_bytes,
            estimated_time_seconds: seconds(plan.estimated_time.as_ref()),
        }
    }
}

impl<'a> From<&'a v1::MergePlan> for MergeDocument<'a> {
    fn from(merge: &'a v1::MergePlan) -> Self {
        Self {
            disk: &merge.disk,
            round: merge.round,
            kind: set(word(merge.kind().as_str_name(), "MERGE_KIND_")),
            kept: volume(merge.kept.as_ref()),
            removed: volumes(&merge.removed),
            copy_bytes: merge.copy_bytes,
            space_needed_bytes: merge.space_needed_bytes,
            space_free_bytes: merge.space_free_bytes,
            freed_bytes: merge.freed_bytes,
            other_way_bytes: merge.other_way_bytes,
            copy_bytes_guessed: merge.copy_bytes_guessed,
            estimated_time_seconds: seconds(merge.estimated_time.as_ref()),
            warnings: merge.warnings.iter().map(WarningDocument::from).collect(),
        }
    }
}

impl<'a> From<&'a v1::MergeWarning> for WarningDocument<'a> {
    fn from(warning: &'a v1::MergeWarning) -> Self {
        Self {
            reason: set(word(warning.reason().as_str_name(), WARNING)),
            message: &warning.message,
        }
    }
}

impl<'a> From<&'a v1::Blocker> for BlockerDocument<'a> {
    fn from(blocker: &'a v1::Blocker) -> Self {
        Self {
            disk: given(&blocker.disk),
            snapshot_id: given(&blocker.snapshot_id),
            reason: &blocker.reason,
            message: &blocker.message,
            metadata: sorted(&blocker.metadata),
        }
    }
}
