//! Orders to delete snapshots, checked field by field.

use super::snapshot_service::fingerprint;
use crate::snapshot::{DeleteOrder, Direction, MergeOptions};
use crate::store::RequestRecord;
use livemerge_proto::fields::{Fields, unsigned};
use livemerge_proto::ids::{RequestId, SnapshotId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use std::collections::BTreeSet;

pub(super) fn batch(
    request: v1::BatchDeleteSnapshotsRequest,
    caller: String,
) -> Result<DeleteOrder, Problem> {
    let mut fields = Fields::of(&request);
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let vm = fields.parse("vm_id", &request.vm_id);
    let snapshots = snapshots(&mut fields, &request.snapshot_ids);
    let ((id, vm), snapshots) = fields.finish(id.zip(vm).zip(snapshots))?;
    let options = options(request.options);
    let allow_missing = request.allow_missing;
    let mut payload = vec![
        request.vm_id,
        if allow_missing { "allow" } else { "" }.to_owned(),
        text(&options),
    ];
    payload.extend(snapshots.iter().map(ToString::to_string));
    let payload: Vec<&str> = payload.iter().map(String::as_str).collect();
    Ok(DeleteOrder {
        request: RequestRecord {
            id,
            fingerprint: fingerprint("BatchDeleteSnapshots", &payload),
        },
        caller,
        vm: Some(vm),
        snapshots,
        revision: None,
        allow_missing,
        options,
    })
}

/// The ids of snapshots, none twice, in order.
pub(super) fn snapshots(fields: &mut Fields, ids: &[String]) -> Option<Vec<SnapshotId>> {
    let field = "snapshot_ids";
    let parsed: Vec<Option<SnapshotId>> = (0..)
        .zip(ids)
        .map(|(place, id): (usize, _)| fields.parse(&format!("{field}[{place}]"), id))
        .collect();
    let parsed: Option<Vec<_>> = parsed.into_iter().collect();
    let all = parsed?;
    let once: BTreeSet<_> = all.iter().copied().collect();
    // Spelled otherwise: the rule looks at the letters.
    if once.len() < all.len() {
        fields.reject(field, "must not name a snapshot twice");
    }
    Some(once.into_iter().collect())
}

pub(super) fn options(options: Option<v1::MergeOptions>) -> MergeOptions {
    let options = options.unwrap_or_default();
    MergeOptions {
        direction: match options.direction() {
            v1::MergeDirection::Unspecified => None,
            v1::MergeDirection::Commit => Some(Direction::Commit),
            v1::MergeDirection::Pull => Some(Direction::Pull),
        },
        bytes_per_second: unsigned(options.bytes_per_second),
    }
}

/// Tells options from others.
pub(super) fn text(options: &MergeOptions) -> String {
    let direction = match options.direction {
        None => "",
        Some(Direction::Commit) => "commit",
        Some(Direction::Pull) => "pull",
    };
    format!("{direction} {}", options.bytes_per_second)
}
