//! An order for merges, checked field by field.

use super::convert;
use crate::merge::{Direction, Elsewhere, MergeOrder, Promise, VolumeMark};
use livemerge_proto::fields::Fields;
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
    let mut fields = Fields::new();
    let generation = fields.generation("generation", request.generation);
    let sequence = fields.bytes("sequence", request.sequence);
    let vm = fields.parse("vm_id", &request.vm_id);
    let ids = request
        .disks
        .iter()
        .filter_map(|disk| disk.merge_id.parse().ok());
    let together: Vec<MergeId> = ids.collect();
    if request.disks.is_empty() {
        fields.reject("disks", "must name at least one disk");
    }
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
        let order = one(&mut fields, &field, disk, vm.zip(generation), &together);
        orders = orders.zip(order).map(|(mut orders, order)| {
            orders.push(order);
            orders
        });
    }
    let elsewhere = elsewhere(&mut fields, request.promised_elsewhere);
    let all = orders.zip(sequence).zip(elsewhere);
    fields.finish(all.map(|((orders, sequence), elsewhere)| (orders, sequence, elsewhere)))
}

/// What merges of other hosts will still take.
pub(super) fn elsewhere(
    fields: &mut Fields,
    promised: Vec<v1::PromisedRoom>,
) -> Option<Vec<Elsewhere>> {
    let promised = promised.into_iter().enumerate().map(|(place, promised)| {
        let field = |name: &str| format!("promised_elsewhere[{place}].{name}");
        let kept = mark(fields, &field("kept"), promised.kept);
        let bytes = fields.bytes(&field("bytes"), promised.bytes);
        let kept_bytes = match promised.kept_bytes {
            Some(bytes) => fields.bytes(&field("kept_bytes"), bytes),
            None => Some(u64::MAX),
        };
        let room = promised.kept_room_bytes;
        let room = room.map(|bytes| fields.bytes(&field("kept_room_bytes"), bytes));
        let ((kept, bytes), kept_bytes) = kept.zip(bytes).zip(kept_bytes)?;
        let kept_room_bytes = room.map_or(Some(None), |room| room.map(Some))?;
        let promise = Promise {
            bytes,
            kept_bytes,
            kept_data_bytes: None,
        };
        Some(Elsewhere {
            kept,
            promise,
            kept_room_bytes,
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
        v1::MergeDirection::Unspecified => {
            fields.reject(&field("direction"), "must be COMMIT or PULL");
            None
        }
    };
    let id = fields.parse(&field("merge_id"), &disk.merge_id);
    let target = fields.parse(&field("disk"), &disk.disk);
    let kept = mark(fields, &field("kept"), disk.kept);
    let mut removed = Some(Vec::new());
    if disk.removed.is_empty() {
        fields.reject(&field("removed"), "must name at least one volume");
    }
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
    let bytes_per_second = fields.bytes(&field("bytes_per_second"), disk.bytes_per_second);
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
        bytes_per_second: bytes_per_second?,
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
