//! Values of every record type, with whatever the types can hold.
//!
//! They are drawn by proptest from a fixed seed, so that a run is as any other. Where a type is
//! closed, a `match` goes from one variant to the next: a new one does not compile until it is
//! among them.

mod entries;

pub(super) use entries::{events, kinds};

use super::records::{operation, snapshot};
use crate::snapshot::{
    Consistency, CreatePhase, DeletePhase, Deleted, Direction, DiskState, DiskTask, Failure,
    Foreseen, HostRecord, Leaving, Mark, MergeKind, MergeOptions, Merging, NewOverlay, Obstacle,
    Operation, OperationState, Origin, Quiesce, Snapshot, SnapshotDisk, SnapshotState, Told,
    VmRecord, Work,
};
use jiff::Timestamp;
use livemerge_proto::ids::{DiskTarget, HostId, SnapshotName};
use livemerge_proto::reason::Reason;
use livemerge_storage::VolumeRef;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::fmt::Debug;
use std::iter::successors;
use std::time::Duration;

/// So many values of a strategy, the same in each run.
pub(super) fn draw<T: Debug>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| {
            strategy
                .new_tree(&mut runner)
                .expect("nothing is filtered")
                .current()
        })
        .collect()
}

/// Any text, control characters and all: it lies within a document.
fn text() -> impl Strategy<Value = String> {
    "(?s).{0,24}"
}

/// Text of a column: no NUL, which not every database takes there.
fn word() -> impl Strategy<Value = String> {
    "\\PC{0,24}"
}

fn parsed<T: std::str::FromStr<Err: Debug> + Debug>(
    pattern: &'static str,
) -> impl Strategy<Value = T> {
    pattern.prop_map(|text| text.parse().expect("the pattern allows only what parses"))
}

fn uuid<T: From<uuid::Uuid> + Debug>() -> impl Strategy<Value = T> {
    (1..=u128::MAX).prop_map(|bits| T::from(uuid::Uuid::from_u128(bits)))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    let range = Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond();
    prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        range.prop_map(|n| Timestamp::from_nanosecond(n).unwrap())
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn host_id() -> impl Strategy<Value = HostId> {
    parsed("[a-z0-9][a-z0-9.-]{0,62}")
}

fn disk() -> impl Strategy<Value = DiskTarget> {
    parsed("[a-zA-Z][a-zA-Z0-9_-]{0,31}")
}

fn name() -> impl Strategy<Value = SnapshotName> {
    parsed("[a-zA-Z0-9äß漢🦀'\"%\\\\][a-z 漢🦀'\"%\\\\]{0,20}[a-zA-Z0-9ß]")
}

fn volume() -> impl Strategy<Value = VolumeRef> {
    let parts = (
        parsed("[a-z0-9][a-z0-9-]{0,62}"),
        parsed("[a-zA-Z0-9_][a-zA-Z0-9_+-]{0,199}"),
    );
    parts.prop_map(|(storage, name)| VolumeRef { storage, name })
}

fn mark() -> impl Strategy<Value = Mark> {
    (volume(), parsed("[!-~]{1,200}")).prop_map(|(volume, identity)| Mark { volume, identity })
}

fn merging() -> impl Strategy<Value = Merging> {
    let parts = (mark(), vec(mark(), 1..4), any::<bool>());
    parts.prop_map(|(kept, removed, chain_tells)| Merging {
        kept,
        removed,
        chain_tells,
    })
}

fn options() -> impl Strategy<Value = MergeOptions> {
    let next = |direction: &Direction| match direction {
        Direction::Commit => Some(Direction::Pull),
        Direction::Pull => None,
    };
    let directions: Vec<_> = successors(Some(Direction::Commit), next).collect();
    (of(select(directions)), any::<u64>()).prop_map(|(direction, bytes_per_second)| MergeOptions {
        direction,
        bytes_per_second,
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    (select(Reason::ALL), text(), btree_map(text(), text(), 0..4)).prop_map(
        |(reason, message, metadata)| Failure {
            reason,
            message,
            metadata,
        },
    )
}

pub(super) fn hosts() -> impl Strategy<Value = HostRecord> {
    (host_id(), word(), any::<u64>(), word()).prop_map(|(id, endpoint, generation, version)| {
        HostRecord {
            id,
            endpoint,
            generation,
            version,
        }
    })
}

pub(super) fn vms() -> impl Strategy<Value = VmRecord> {
    (uuid(), word(), host_id()).prop_map(|(id, name, host)| VmRecord { id, name, host })
}

fn snapshot_state() -> impl Strategy<Value = SnapshotState> {
    use SnapshotState::{Creating, Deleting, Incomplete, Ready};
    let next = |state: &SnapshotState| match state {
        Creating => Some(Ready),
        Ready => Some(Deleting),
        Deleting => Some(Incomplete),
        Incomplete => None,
    };
    select(successors(Some(Creating), next).collect::<Vec<_>>())
}

fn consistency() -> impl Strategy<Value = Consistency> {
    let next = |consistency: &Consistency| match consistency {
        Consistency::Unknown => Some(Consistency::Crash),
        Consistency::Crash => Some(Consistency::Frozen),
        Consistency::Frozen => Some(Consistency::Off),
        Consistency::Off => None,
    };
    select(successors(Some(Consistency::Unknown), next).collect::<Vec<_>>())
}

fn quiesce() -> impl Strategy<Value = Quiesce> {
    let next = |quiesce: &Quiesce| match quiesce {
        Quiesce::IfPossible => Some(Quiesce::Required),
        Quiesce::Required => Some(Quiesce::Never),
        Quiesce::Never => None,
    };
    select(successors(Some(Quiesce::IfPossible), next).collect::<Vec<_>>())
}

pub(super) fn snapshots() -> impl Strategy<Value = Snapshot> {
    let disk = (disk(), volume(), of(merging())).prop_map(|(disk, volume, merging)| SnapshotDisk {
        disk,
        volume,
        merging,
    });
    let next = |origin: &Origin| match origin {
        Origin::Requested => Some(Origin::Discovered),
        Origin::Discovered => Some(Origin::LeftByMerge),
        Origin::LeftByMerge => None,
    };
    let origins = select(successors(Some(Origin::Requested), next).collect::<Vec<_>>());
    let labels = btree_map(text(), text(), 0..4);
    let noted = (origins, labels, any::<bool>(), consistency());
    (
        name(),
        text(),
        snapshot_state(),
        any::<bool>(),
        vec(disk, 0..4),
        timestamp(),
        noted,
    )
        .prop_map(
            |(name, description, state, was_incomplete, disks, created_at, noted)| {
                let (origin, labels, deletion_protected, consistency) = noted;
                Snapshot {
                    name,
                    description,
                    origin,
                    labels,
                    deletion_protected,
                    consistency,
                    state,
                    was_incomplete,
                    disks,
                    created_at,
                    ..snapshot(1, 1, "a")
                }
            },
        )
}

fn operation_states() -> impl Strategy<Value = OperationState> {
    use OperationState::{Cancelled, Failed, Queued, Running, Succeeded};
    failure().prop_flat_map(|failure| {
        let next = move |state: &OperationState| match state {
            Queued => Some(Running),
            Running => Some(Succeeded),
            Succeeded => Some(Failed(failure.clone())),
            Failed(_) => Some(Cancelled),
            Cancelled => None,
        };
        select(successors(Some(Queued), next).collect::<Vec<_>>())
    })
}

fn disk_state() -> impl Strategy<Value = DiskState> {
    use DiskState::{Cancelled, Failed, Merging, Pending, Refused, Removed, Removing};
    let figures = (
        any::<u64>(),
        duration(),
        any::<usize>(),
        any::<u64>(),
        duration(),
    );
    (figures, failure()).prop_flat_map(|(figures, failure)| {
        let (copied_bytes, longest_pause, gone, freed_bytes, copy_time) = figures;
        let next = move |state: &DiskState| match state {
            Pending => Some(Merging),
            Merging => Some(Removing {
                copied_bytes,
                longest_pause,
                gone,
                freed_bytes,
                copy_time,
            }),
            Removing { .. } => Some(Removed {
                copied_bytes,
                longest_pause,
                freed_bytes,
                copy_time,
            }),
            Removed { .. } => Some(Failed(failure.clone())),
            Failed(failure) => Some(Refused(failure.clone())),
            Refused(_) => Some(Cancelled),
            Cancelled => None,
        };
        select(successors(Some(Pending), next).collect::<Vec<_>>())
    })
}

fn merge_kind() -> impl Strategy<Value = MergeKind> {
    use MergeKind::{ActiveCommit, Commit, OfflineCommit, Pull};
    let next = |kind: &MergeKind| match kind {
        ActiveCommit => Some(Commit),
        Commit => Some(Pull),
        Pull => Some(OfflineCommit),
        OfflineCommit => None,
    };
    select(successors(Some(ActiveCommit), next).collect::<Vec<_>>())
}

fn task() -> impl Strategy<Value = DiskTask> {
    let leaving = (mark(), uuid()).prop_map(|(volume, removal)| Leaving { volume, removal });
    let deleted =
        (uuid(), of(merging())).prop_map(|(snapshot, earlier)| Deleted { snapshot, earlier });
    let volumes = (mark(), vec(leaving, 1..4), vec(deleted, 1..4));
    let numbers = (any::<u32>(), uuid(), any::<u64>(), foreseen());
    (disk(), merge_kind(), volumes, numbers, disk_state(), told()).prop_map(
        |(disk, kind, (kept, removed, deletes), numbers, state, told)| {
            let (round, merge, planned_bytes, foreseen) = numbers;
            DiskTask {
                disk,
                round,
                kind,
                kept,
                removed,
                deletes,
                merge,
                planned_bytes,
                foreseen,
                state,
                told,
            }
        },
    )
}

fn foreseen() -> impl Strategy<Value = Foreseen> {
    let values = (any::<[u64; 5]>(), any::<[bool; 2]>(), of(duration()));
    values.prop_map(
        |([needed, kept, free, freed, other], [guessed, guest_discards], time)| Foreseen {
            needed_bytes: needed,
            kept_bytes: kept,
            free_bytes: free,
            freed_bytes: freed,
            other_way_bytes: other,
            guessed,
            guest_discards,
            time,
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let all = any::<[bool; 6]>();
    all.prop_map(
        |[ready, pivoting, put_off, lifted, throttled, overlaid]| Told {
            ready,
            pivoting,
            put_off,
            lifted,
            throttled,
            overlaid,
        },
    )
}

fn obstacle() -> impl Strategy<Value = Obstacle> {
    (failure(), timestamp()).prop_map(|(cause, since)| Obstacle { cause, since })
}

fn work() -> impl Strategy<Value = Work> {
    let overlay = (disk(), volume(), volume()).prop_map(|(disk, below, overlay)| NewOverlay {
        disk,
        below,
        overlay,
    });
    let parts = (vec(overlay, 0..4), vec(task(), 0..4), failure());
    parts.prop_flat_map(|(overlays, tasks, refused)| {
        let next = move |work: &Work| match work {
            Work::Create(CreatePhase::Planning) => {
                Some(Work::Create(CreatePhase::Overlaying(overlays.clone())))
            }
            Work::Create(CreatePhase::Overlaying(overlays)) => Some(Work::Create(
                CreatePhase::Refused(overlays.clone(), refused.clone()),
            )),
            Work::Create(CreatePhase::Refused(..)) => Some(Work::Delete(DeletePhase::Planning)),
            Work::Delete(DeletePhase::Planning) => {
                Some(Work::Delete(DeletePhase::Disks(tasks.clone())))
            }
            Work::Delete(DeletePhase::Disks(_)) => None,
        };
        select(successors(Some(Work::Create(CreatePhase::Planning)), next).collect::<Vec<_>>())
    })
}

pub(super) fn operations() -> impl Strategy<Value = Operation> {
    let times = (timestamp(), of(timestamp()), of(timestamp()));
    (
        (uuid(), name(), vec(uuid(), 0..3)),
        (options(), any::<bool>(), quiesce()),
        operation_states(),
        work(),
        uuid(),
        of(host_id()),
        text(),
        of(obstacle()),
        times,
    )
        .prop_map(
            |(
                (snapshot, snapshot_name, batch),
                (options, cancel_requested, quiesce),
                state,
                work,
                request,
                host,
                requested_by,
                obstacle,
                times,
            )| {
                Operation {
                    snapshot,
                    snapshot_name,
                    batch,
                    options,
                    cancel_requested,
                    quiesce,
                    state,
                    work,
                    request,
                    host,
                    requested_by,
                    obstacle,
                    created_at: times.0,
                    started_at: times.1,
                    ended_at: times.2,
                    ..operation(1, 1)
                }
            },
        )
}
