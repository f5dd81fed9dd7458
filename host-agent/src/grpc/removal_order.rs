//! An order for removals, checked field by field, and what came of each.

use super::convert;
use livemerge_proto::failure::Failure;
use livemerge_proto::fields::Fields;
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use livemerge_storage::{Identity, Removal, RemovalId, RemovalOrder, StorageId, VolumeRef};
use std::collections::BTreeSet;

/// The removals that a request asks for, its own volume's first.
///
/// # Errors
/// Names every field that is missing or malformed.
pub(super) fn parse(
    request: v1::RemoveVolumeRequest,
) -> Result<Vec<(StorageId, RemovalOrder)>, Problem> {
    let mut fields = Fields::of(&request);
    let first = v1::VolumeRemoval {
        request_id: request.request_id,
        volume: request.volume,
        identity: request.identity,
    };
    let also = request.also.into_iter().enumerate();
    let also = also.map(|(place, removal)| (format!("also[{place}]."), removal));
    let (mut ids, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    let mut orders = Some(Vec::new());
    for (of, removal) in std::iter::once((String::new(), first)).chain(also) {
        let order = one(&mut fields, &of, removal);
        if let Some((id, volume, _)) = &order {
            if !ids.insert(*id) {
                fields.reject(&format!("{of}request_id"), "must not be named twice");
            }
            if !volumes.insert(volume.clone()) {
                fields.reject(&format!("{of}volume"), "must not be named twice");
            }
        }
        orders = orders.zip(order).map(|(mut orders, order)| {
            let (id, volume, identity) = order;
            let order = RemovalOrder::new(id, volume.name, identity);
            orders.push((volume.storage, order));
            orders
        });
    }
    fields.finish(orders)
}

fn one(
    fields: &mut Fields,
    of: &str,
    removal: v1::VolumeRemoval,
) -> Option<(RemovalId, VolumeRef, Identity)> {
    let id = fields.parse(&format!("{of}request_id"), &removal.request_id);
    let volume = convert::parse_volume(fields, &format!("{of}volume"), removal.volume);
    let identity = fields.parse(&format!("{of}identity"), &removal.identity);
    Some((id?, volume?, identity?))
}

/// What came of them. Of a single one an error is the call's.
pub(super) fn answer(
    mut removed: Vec<Result<Removal, Problem>>,
) -> Result<v1::RemoveVolumeResponse, Problem> {
    if removed.len() == 1
        && let Some(only) = removed.pop()
    {
        return Ok(v1::RemoveVolumeResponse {
            removal: Some(convert::removal(&only?)),
            outcomes: vec![],
        });
    }
    let outcomes: Vec<_> = removed.into_iter().map(outcome).collect();
    Ok(v1::RemoveVolumeResponse {
        removal: outcomes.first().and_then(|first| first.removal.clone()),
        outcomes,
    })
}

fn outcome(removed: Result<Removal, Problem>) -> v1::RemovalOutcome {
    match removed {
        Ok(removal) => v1::RemovalOutcome {
            removal: Some(convert::removal(&removal)),
            failure: None,
        },
        Err(problem) => v1::RemovalOutcome {
            removal: None,
            failure: Some(Failure::from(problem).into()),
        },
    }
}
