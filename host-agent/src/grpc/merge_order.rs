//! An order for merges, checked field by field.

use super::convert;
use crate::merge::{Direction, Elsewhere, MergeOrder, Promise, VolumeMark};
use livemerge_proto::fields::{Fields, unsigned};
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use std::collections::BTreeSet;

/// The merges that a request asks for, its place among its server's orders, and what other hosts'
/// merges will take.
///
/// # Errors
/// Names every field that is missing or malformed.
pub(super) fn parse(
    request: v1::StartMergeRequest,
) -> Result<(Vec<MergeOrder>, u64, Vec<Elsewhere>), Problem> {
    let mut fields = Fields::of(&request);
    let generation = unsigned(request.generation);
    let sequence = unsigned(request.sequence);
    let vm = fields.parse("vm_id", &request.vm_id);
    let ids = request
        .disks
        .iter()
        .filter_map(|disk| disk.merge_id.parse().ok());
    let together: Vec<MergeId> = ids.collect();
    let (mut disks, mut merges) = (BTreeSet::new(), BTreeSet::new());
    let mut orders = Some(Vec::new());
    for (place, disk) in request.disks.into_iter().enumerate() {
        let field = |name: &str| format!("disks[{place}].{name}");
        if !disks.insert(disk.disk.clone()) {
            fields.reject(&field("disk"), "must not be named twice");
        }
        if !merges.insert(disk.merge_id.clone()) {
            fields.reject(&field("merge_id"), "must not be named twice");
        }
        let order = vm.map(|vm| (vm, generation));
        let order = one(&mut fields, &field, disk, order, &together);
        orders = orders.zip(order).map(|(mut orders, order)| {
            orders.push(order);
            orders
        });
    }
    let elsewhere = elsewhere(&mut fields, request.promised_elsewhere);
    let (orders, elsewhere) = fields.finish(orders.zip(elsewhere))?;
    Ok((orders, sequence, elsewhere))
}

/// What merges of other hosts will still take.
pub(super) fn elsewhere(
    fields: &mut Fields,
    promised: Vec<v1::PromisedRoom>,
) -> Option<Vec<Elsewhere>> {
    let promised = promised.into_iter().enumerate().map(|(place, promised)| {
        let field = |name: &str| format!("promised_elsewhere[{place}].{name}");
        let kept = mark(fields, &field("kept"), promised.kept);
        let promise = Promise {
            bytes: unsigned(promised.bytes),
            kept_bytes: promised.kept_bytes.map_or(u64::MAX, unsigned),
            kept_data_bytes: None,
        };
        kept.map(|kept| Elsewhere {
            kept,
            promise,
            kept_room_bytes: promised.kept_room_bytes.map(unsigned),
        })
    });
    // All of them, so that every bad field is named.
    let promised: Vec<Option<Elsewhere>> = promised.collect();
    promised.into_iter().collect()
}

fn one(
    fields: &mut Fields,
    field: &dyn Fn(&str) -> String,
    disk: v1::DiskMerge,
    order: Option<(VmId, u64)>,
    together: &[MergeId],
) -> Option<MergeOrder> {
    let direction = match disk.direction() {
        v1::MergeDirection::Commit => Some(Direction::Commit),
        v1::MergeDirection::Pull => Some(Direction::Pull),
        v1::MergeDirection::Unspecified => None,
    };
    let id = fields.parse(&field("merge_id"), &disk.merge_id);
    let target = fields.parse(&field("disk"), &disk.disk);
    let kept = mark(fields, &field("kept"), disk.kept);
    let mut removed = Some(Vec::new());
    for (place, volume) in disk.removed.into_iter().enumerate() {
        let volume = mark(fields, &field(&format!("removed[{place}]")), Some(volume));
        removed = removed.zip(volume).map(|(mut removed, volume)| {
            removed.push(volume);
            removed
        });
    }
    let spare = match disk.spare {
        Some(spare) => Some(convert::parse_volume(fields, &field("spare"), Some(spare))),
        None => Some(None),
    };
    let (vm, generation) = order?;
    Some(MergeOrder {
        id: id?,
        generation,
        vm,
        disk: target?,
        direction: direction?,
        kept: kept?,
        removed: removed?,
        together: together.to_vec(),
        bytes_per_second: unsigned(disk.bytes_per_second),
        spare: spare?,
    })
}

/// `field` is the volume's path in the request.
pub(super) fn mark(
    fields: &mut Fields,
    field: &str,
    mark: Option<v1::MarkedVolume>,
) -> Option<VolumeMark> {
    let mark = fields.required(field, mark)?;
    let volume = convert::parse_volume(fields, &format!("{field}.volume"), mark.volume);
    let identity = fields.parse(&format!("{field}.identity"), &mark.identity);
    Some(VolumeMark {
        volume: volume?,
        identity: identity?,
    })
}
