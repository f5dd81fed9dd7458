//! What a dry run of a delete answers.

use super::{GIB, MIB, WEEKLY, volume};
use livemerge_proto::v1;
use prost_types::Duration;

/// Two disks, each its own way, and the first once more.
pub(crate) fn plan() -> v1::PlanDeleteSnapshotResponse {
    let merge = |disk: &str, kind: v1::MergeKind, kept: i64, removed: &[i64]| v1::MergePlan {
        disk: disk.into(),
        kind: kind.into(),
        kept: Some(volume(&format!("web-{disk}-{kept}"))),
        removed: removed
            .iter()
            .map(|n| volume(&format!("web-{disk}-{n}")))
            .collect(),
        copy_bytes: 64 * MIB,
        space_needed_bytes: 48 * MIB,
        space_free_bytes: 90 * GIB,
        freed_bytes: 70 * MIB,
        other_way_bytes: 3 * GIB / 2,
        ..Default::default()
    };
    v1::PlanDeleteSnapshotResponse {
        merges: vec![
            v1::MergePlan {
                warnings: vec![v1::MergeWarning {
                    reason: v1::MergeWarningReason::GuestDiscards.into(),
                    message: "the guest may discard meanwhile".into(),
                }],
                ..merge("vda", v1::MergeKind::ActiveCommit, 0, &[1, 2])
            },
            v1::MergePlan {
                space_free_bytes: 0,
                ..merge("vdb", v1::MergeKind::Pull, 2, &[0, 1])
            },
            v1::MergePlan {
                round: 1,
                copy_bytes: 0,
                other_way_bytes: 0,
                ..merge("vda", v1::MergeKind::IntermediateCommit, 4, &[5])
            },
        ],
        blockers: vec![],
        copy_bytes: 128 * MIB,
        freed_bytes: 210 * MIB,
        estimated_time: Some(Duration {
            seconds: 90,
            nanos: 0,
        }),
    }
}

/// A layer cannot be merged, and a snapshot is busy.
pub(crate) fn blocked() -> v1::PlanDeleteSnapshotResponse {
    let blocker = |reason: &str, message: &str| v1::Blocker {
        reason: reason.into(),
        message: message.into(),
        ..Default::default()
    };
    let unsupported = v1::Blocker {
        disk: "vdb".into(),
        metadata: [("disk".to_owned(), "vdb".to_owned())].into(),
        ..blocker(
            "STRATEGY_UNSUPPORTED",
            "a layer lies outside the storage domains",
        )
    };
    let busy = v1::Blocker {
        snapshot_id: WEEKLY.into(),
        ..blocker("SNAPSHOT_NOT_READY", "it is being deleted")
    };
    v1::PlanDeleteSnapshotResponse {
        blockers: vec![unsupported, busy],
        ..Default::default()
    }
}
