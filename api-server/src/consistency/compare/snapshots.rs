//! Snapshots in a state that no open operation stands behind, or that a failed one has left.

use crate::consistency::finding::{Finding, Kind, Remedy, Repair};
use crate::consistency::record::Record;
use crate::consistency::seen::Seen;
use crate::snapshot::{Severity, Snapshot, SnapshotState};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

pub(super) fn find(record: &Record, seen: &Seen) -> Vec<Finding> {
    let snapshots = record.snapshots.iter();
    let unworked = snapshots.filter(|snapshot| !record.works_on_snapshot(snapshot.id));
    let found = unworked.filter_map(|snapshot| match snapshot.state {
        SnapshotState::Ready => None,
        SnapshotState::Creating => Some(stuck(snapshot, "taken")),
        SnapshotState::Deleting => Some(stuck(snapshot, "deleted")),
        SnapshotState::Incomplete => Some(incomplete(snapshot, seen)),
    });
    found
        .map(|finding| match finding.vm.and_then(|vm| seen.vm(vm)) {
            Some((host, _, _)) => finding.on([host.clone()]),
            None => finding,
        })
        .collect()
}

fn stuck(snapshot: &Snapshot, doing: &str) -> Finding {
    let text = format!(
        "snapshot {} is being {doing}, but no operation works on it",
        snapshot.name
    );
    let remedy = Remedy::Safe(Repair::MarkIncomplete(Box::new(snapshot.clone())));
    Finding::new(Kind::SnapshotStuck, Severity::Error, text, remedy).of_snapshot(snapshot)
}

fn incomplete(snapshot: &Snapshot, seen: &Seen) -> Finding {
    let remedy = match seen.vm(snapshot.vm) {
        None => Remedy::Unclear(no_sight(snapshot, seen)),
        Some(_) => Remedy::Safe(Repair::DeleteSnapshot(snapshot.id, snapshot.revision)),
    };
    let text = format!(
        "a delete of snapshot {} began and did not end; deleted again, it does what is left",
        snapshot.name
    );
    Finding::new(Kind::SnapshotIncomplete, Severity::Warning, text, remedy).of_snapshot(snapshot)
}

fn no_sight(snapshot: &Snapshot, seen: &Seen) -> Problem {
    seen.blind_spot().cloned().unwrap_or_else(|| {
        let text = format!("virtual machine {} is on no host", snapshot.vm);
        Problem::new(Reason::VmStateUnknown, text).with("vm", snapshot.vm)
    })
}
