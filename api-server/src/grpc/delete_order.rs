//! Orders to delete snapshots, checked field by field.

use super::snapshot_service::fingerprint;
use crate::snapshot::{DeleteOrder, Direction, MergeOptions};
use crate::store::RequestRecord;
use livemerge_proto::fields::Fields;
use livemerge_proto::ids::{RequestId, SnapshotId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use std::collections::BTreeSet;

/// So many snapshots are deleted in one operation at most.
const MOST: usize = 1000;

pub(super) fn batch(
    request: v1::BatchDeleteSnapshotsRequest,
    caller: String,
) -> Result<DeleteOrder, Problem> {
    let mut fields = Fields::new();
    let id = fields.parse::<RequestId>("request_id", &request.request_id);
    let vm = fields.parse("vm_id", &request.vm_id);
    let snapshots = snapshots(&mut fields, &request.snapshot_ids);
    let options = options(&mut fields, request.options);
    let ((id, vm), (snapshots, options)) = fields.finish(id.zip(vm).zip(snapshots.zip(options)))?;
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

/// The ids of 1 to [`MOST`] snapshots, none twice, in order.
pub(super) fn snapshots(fields: &mut Fields, ids: &[String]) -> Option<Vec<SnapshotId>> {
    let field = "snapshot_ids";
    if ids.is_empty() || ids.len() > MOST {
        fields.reject(field, format_args!("must name 1 to {MOST} snapshots"));
        return None;
    }
    let parsed: Vec<Option<SnapshotId>> = (0..)
        .zip(ids)
        .map(|(place, id): (usize, _)| fields.parse(&format!("{field}[{place}]"), id))
        .collect();
    let parsed: Option<Vec<_>> = parsed.into_iter().collect();
    let all = parsed?;
    let once: BTreeSet<_> = all.iter().copied().collect();
    if once.len() < all.len() {
        fields.reject(field, "must not name a snapshot twice");
        return None;
    }
    Some(once.into_iter().collect())
}

pub(super) fn options(
    fields: &mut Fields,
    options: Option<v1::MergeOptions>,
) -> Option<MergeOptions> {
    let options = options.unwrap_or_default();
    let direction = match v1::MergeDirection::try_from(options.direction) {
        Ok(v1::MergeDirection::Unspecified) => Some(None),
        Ok(v1::MergeDirection::Commit) => Some(Some(Direction::Commit)),
        Ok(v1::MergeDirection::Pull) => Some(Some(Direction::Pull)),
        Err(_) => {
            fields.reject("options.direction", "must be COMMIT, PULL or unset");
            None
        }
    };
    let bytes_per_second = fields.bytes("options.bytes_per_second", options.bytes_per_second);
    Some(MergeOptions {
        direction: direction?,
        bytes_per_second: bytes_per_second?,
    })
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
