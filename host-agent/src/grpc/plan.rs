//! A question for a plan, checked field by field, and the plan as it travels.

use super::convert::{bytes, volume_ref};
use super::merge_order::{elsewhere, mark};
use crate::merge::{Direction, DiskPlan, DiskRange, Elsewhere, MergeOption, VolumeMark};
use livemerge_proto::failure::Failure;
use livemerge_proto::fields::Fields;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use std::collections::BTreeSet;

/// The machine, the volumes of its disks that shall become one, and what other hosts' merges will take.
///
/// # Errors
/// Names every field that is missing or malformed.
pub(super) fn parse(
    request: v1::PlanMergeRequest,
) -> Result<(VmId, Vec<DiskRange>, Vec<Elsewhere>), Problem> {
    let mut fields = Fields::of(&request);
    let vm = fields.parse("vm_id", &request.vm_id);
    let mut runs = BTreeSet::new();
    let mut ranges = Some(Vec::new());
    for (place, disk) in request.disks.into_iter().enumerate() {
        let field = |name: &str| format!("disks[{place}].{name}");
        let lowest = disk.lowest.as_ref().and_then(|mark| mark.volume.clone());
        let run = (disk.disk.clone(), lowest.map(|it| (it.storage, it.name)));
        if !runs.insert(run) {
            let why = "must not be named twice with the same lowest volume";
            fields.reject(&field("disk"), why);
        }
        let range = range(&mut fields, &field, disk);
        ranges = ranges.zip(range).map(|(mut ranges, range)| {
            ranges.push(range);
            ranges
        });
    }
    let elsewhere = elsewhere(&mut fields, request.promised_elsewhere);
    let parsed = vm.zip(ranges).zip(elsewhere);
    fields.finish(parsed.map(|((vm, ranges), elsewhere)| (vm, ranges, elsewhere)))
}

fn range(
    fields: &mut Fields,
    field: &dyn Fn(&str) -> String,
    range: v1::DiskRange,
) -> Option<DiskRange> {
    let forced = match range.forced() {
        v1::MergeDirection::Commit => Some(Direction::Commit),
        v1::MergeDirection::Pull => Some(Direction::Pull),
        v1::MergeDirection::Unspecified => None,
    };
    let disk = fields.parse(&field("disk"), &range.disk);
    let lowest = mark(fields, &field("lowest"), range.lowest);
    let youngest = mark(fields, &field("youngest"), range.youngest);
    let (lowest, youngest) = lowest.zip(youngest)?;
    if lowest.volume == youngest.volume {
        fields.reject(&field("youngest"), "must be another volume than the lowest");
    }
    Some(DiskRange {
        disk: disk?,
        lowest,
        youngest,
        forced,
    })
}

/// As it travels.
pub(super) fn disk_plan(plan: DiskPlan) -> v1::DiskPlan {
    let choice = plan.choice();
    v1::DiskPlan {
        disk: plan.disk.to_string(),
        chosen: plan.chosen.map_or(0, direction),
        kept: choice.map(|option| marked(&option.kept)),
        removed: choice.map_or_else(Vec::new, |option| all_marked(&option.removed)),
        options: plan.options.into_iter().map(option).collect(),
    }
}

fn option(option: MergeOption) -> v1::MergeOption {
    v1::MergeOption {
        direction: direction(option.direction),
        kept: Some(marked(&option.kept)),
        removed: all_marked(&option.removed),
        copy_bytes: bytes(option.work.copy_bytes),
        zero_bytes: bytes(option.work.zero_bytes),
        space_needed_bytes: bytes(option.work.space_needed_bytes),
        free_bytes: bytes(option.free_bytes),
        freed_bytes: bytes(option.freed_bytes),
        estimated: option.work.estimated,
        blocker: option.blocker.map(|problem| Failure::from(problem).into()),
    }
}

fn direction(direction: Direction) -> i32 {
    match direction {
        Direction::Commit => v1::MergeDirection::Commit.into(),
        Direction::Pull => v1::MergeDirection::Pull.into(),
    }
}

fn all_marked(marks: &[VolumeMark]) -> Vec<v1::MarkedVolume> {
    marks.iter().map(marked).collect()
}

fn marked(mark: &VolumeMark) -> v1::MarkedVolume {
    v1::MarkedVolume {
        volume: Some(volume_ref(&mark.volume)),
        identity: mark.identity.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Work;
    use livemerge_proto::reason::Reason;

    fn wire(name: &str) -> v1::MarkedVolume {
        v1::MarkedVolume {
            volume: Some(v1::VolumeRef {
                storage: "default".to_owned(),
                name: name.to_owned(),
            }),
            identity: format!("id-{name}"),
        }
    }

    fn asked(disk: &str) -> v1::DiskRange {
        v1::DiskRange {
            disk: disk.to_owned(),
            lowest: Some(wire("base.qcow2")),
            youngest: Some(wire("top.qcow2")),
            forced: v1::MergeDirection::Pull.into(),
        }
    }

    fn request(disks: Vec<v1::DiskRange>) -> v1::PlanMergeRequest {
        v1::PlanMergeRequest {
            vm_id: "01a20a3d-31f2-74b2-8ae1-3fa2de55b8c7".to_owned(),
            disks,
            promised_elsewhere: vec![v1::PromisedRoom {
                kept: Some(wire("theirs.qcow2")),
                bytes: 7,
                kept_bytes: None,
                kept_room_bytes: Some(9),
            }],
        }
    }

    #[test]
    fn a_question_is_read_as_it_is_asked() {
        let request_of_two = request(vec![asked("vda"), asked("vdb")]);
        let (vm, ranges, elsewhere) = parse(request_of_two).unwrap();
        assert_eq!(vm.to_string(), request(vec![]).vm_id);
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[1].disk.to_string(), "vdb");
        assert_eq!(marked(&ranges[0].lowest), wire("base.qcow2"));
        assert_eq!(marked(&ranges[0].youngest), wire("top.qcow2"));
        assert_eq!(ranges[0].forced, Some(Direction::Pull));
        assert_eq!(marked(&elsewhere[0].kept), wire("theirs.qcow2"));
        assert_eq!(
            (elsewhere[0].promise.bytes, elsewhere[0].promise.kept_bytes),
            (7, u64::MAX)
        );
        assert_eq!(elsewhere[0].kept_room_bytes, Some(9));
    }

    #[test]
    fn every_bad_field_is_named() {
        let same = v1::DiskRange {
            youngest: Some(wire("base.qcow2")),
            ..asked("vda")
        };
        let bare = v1::DiskRange {
            lowest: None,
            ..asked("")
        };
        let named = |request| {
            let refused = parse(request).unwrap_err();
            let named = refused.violations.into_iter().map(|(field, _)| field);
            named.collect::<Vec<_>>()
        };
        assert_eq!(
            named(request(vec![asked("vda"), same, bare])),
            [
                "disks[2].disk",
                "disks[2].lowest",
                "disks[1].disk",
                "disks[1].youngest"
            ]
        );
        assert_eq!(named(request(vec![])), ["disks"]);
        let promised = v1::PlanMergeRequest {
            promised_elsewhere: vec![v1::PromisedRoom {
                kept: None,
                bytes: -1,
                kept_bytes: Some(-1),
                kept_room_bytes: Some(-1),
            }],
            ..request(vec![asked("vda")])
        };
        assert_eq!(
            named(promised),
            ["kept", "bytes", "kept_bytes", "kept_room_bytes"]
                .map(|name| format!("promised_elsewhere[0].{name}"))
        );
        let nameless = v1::PlanMergeRequest {
            vm_id: String::new(),
            ..request(vec![asked("vda")])
        };
        assert_eq!(named(nameless), ["vm_id"]);
    }

    #[test]
    fn a_plan_travels_whole() {
        let (_, ranges, _) = parse(request(vec![asked("vda")])).unwrap();
        let DiskRange {
            disk,
            lowest,
            youngest,
            ..
        } = ranges.into_iter().next().unwrap();
        let way = |direction, kept: &VolumeMark, removed: &VolumeMark, bytes: u64| MergeOption {
            direction,
            blocker: None,
            kept: kept.clone(),
            removed: vec![removed.clone()],
            work: Work {
                copy_bytes: bytes,
                zero_bytes: bytes + 1,
                space_needed_bytes: bytes + 2,
                kept_data_bytes: None,
                estimated: false,
            },
            free_bytes: bytes + 3,
            freed_bytes: bytes + 4,
        };
        let commit = MergeOption {
            blocker: Some(Problem::new(Reason::InsufficientSpace, "full").with("volume", "v")),
            ..way(Direction::Commit, &lowest, &youngest, 10)
        };
        let plan = disk_plan(DiskPlan {
            disk,
            chosen: Some(Direction::Pull),
            options: [commit, way(Direction::Pull, &youngest, &lowest, 20)],
        });
        assert_eq!(plan.chosen(), v1::MergeDirection::Pull);
        assert_eq!(plan.kept, Some(wire("top.qcow2")));
        assert_eq!(plan.removed, [wire("base.qcow2")]);
        let [commit, pull] = <[v1::MergeOption; 2]>::try_from(plan.options).unwrap();
        let blocker = commit.blocker.unwrap();
        assert_eq!(blocker.reason, "INSUFFICIENT_SPACE");
        assert_eq!(blocker.metadata["volume"], "v");
        assert_eq!(
            pull,
            v1::MergeOption {
                direction: v1::MergeDirection::Pull.into(),
                blocker: None,
                kept: Some(wire("top.qcow2")),
                removed: vec![wire("base.qcow2")],
                copy_bytes: 20,
                zero_bytes: 21,
                space_needed_bytes: 22,
                free_bytes: 23,
                freed_bytes: 24,
                estimated: false,
            }
        );
    }
}
