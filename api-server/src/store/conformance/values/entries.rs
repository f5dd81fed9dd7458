//! Entries of the audit log, with whatever they can hold.

use super::{host_id, text, timestamp, uuid};
use crate::snapshot::{EventKind, NewEvent, Severity};
use proptest::collection::btree_map;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::iter::successors;

pub(in crate::store::conformance) fn kinds() -> Vec<EventKind> {
    use EventKind::{
        GuestStillFrozen, GuestThawed, HostJournalDamaged, HostMaintenanceChanged, HostRegistered,
        HostUnresponsive, HostUp, LiveMergeCancelled, LiveMergeCompleted, LiveMergeFailed,
        LiveMergeGuestThrottled, LiveMergeLimitLifted, LiveMergeOverlaid, LiveMergePivotPutOff,
        LiveMergePivoting, LiveMergePlanned, LiveMergeReady, LiveMergeStarted,
        OperationCancelRequested, OperationCancelled, OperationLimited, OperationRecovered,
        OperationResumed, OperationWaiting, RepairApplied, RepairRequested, SnapshotCreateFailed,
        SnapshotCreateRequested, SnapshotCreated, SnapshotDeleteFailed, SnapshotDeleteRequested,
        SnapshotDeleted, SnapshotDiscovered, SnapshotUpdated, SnapshotVanished,
        VolumeRemovalRefused, VolumeRemoved, VolumeRestoreRequested, VolumeRestored,
    };
    let next = |kind: &EventKind| match kind {
        HostRegistered => Some(HostUp),
        HostUp => Some(HostUnresponsive),
        HostUnresponsive => Some(HostJournalDamaged),
        HostJournalDamaged => Some(GuestStillFrozen),
        GuestStillFrozen => Some(GuestThawed),
        GuestThawed => Some(HostMaintenanceChanged),
        HostMaintenanceChanged => Some(SnapshotCreateRequested),
        SnapshotCreateRequested => Some(SnapshotCreated),
        SnapshotCreated => Some(SnapshotCreateFailed),
        SnapshotCreateFailed => Some(SnapshotDeleteRequested),
        SnapshotDeleteRequested => Some(SnapshotDeleted),
        SnapshotDeleted => Some(SnapshotDeleteFailed),
        SnapshotDeleteFailed => Some(SnapshotDiscovered),
        SnapshotDiscovered => Some(SnapshotVanished),
        SnapshotVanished => Some(SnapshotUpdated),
        SnapshotUpdated => Some(LiveMergePlanned),
        LiveMergePlanned => Some(LiveMergeStarted),
        LiveMergeStarted => Some(LiveMergeCompleted),
        LiveMergeCompleted => Some(LiveMergeFailed),
        LiveMergeFailed => Some(LiveMergeCancelled),
        LiveMergeCancelled => Some(LiveMergeLimitLifted),
        LiveMergeLimitLifted => Some(LiveMergeGuestThrottled),
        LiveMergeGuestThrottled => Some(LiveMergeOverlaid),
        LiveMergeOverlaid => Some(LiveMergeReady),
        LiveMergeReady => Some(LiveMergePivoting),
        LiveMergePivoting => Some(LiveMergePivotPutOff),
        LiveMergePivotPutOff => Some(VolumeRemoved),
        VolumeRemoved => Some(VolumeRemovalRefused),
        VolumeRemovalRefused => Some(OperationResumed),
        OperationResumed => Some(OperationWaiting),
        OperationWaiting => Some(OperationRecovered),
        OperationRecovered => Some(OperationCancelRequested),
        OperationCancelRequested => Some(OperationCancelled),
        OperationCancelled => Some(OperationLimited),
        OperationLimited => Some(RepairRequested),
        RepairRequested => Some(RepairApplied),
        RepairApplied => Some(VolumeRestoreRequested),
        VolumeRestoreRequested => Some(VolumeRestored),
        VolumeRestored => None,
    };
    successors(Some(HostRegistered), next).collect()
}

fn severity() -> impl Strategy<Value = Severity> {
    let next = |severity: &Severity| match severity {
        Severity::Info => Some(Severity::Warning),
        Severity::Warning => Some(Severity::Error),
        Severity::Error => None,
    };
    select(successors(Some(Severity::Info), next).collect::<Vec<_>>())
}

pub(in crate::store::conformance) fn events() -> impl Strategy<Value = NewEvent> {
    let about = (of(host_id()), of(uuid()), of(uuid()), of(uuid()));
    let words = (of(text()), text(), btree_map(text(), text(), 0..4));
    (select(kinds()), severity(), timestamp(), about, words).prop_map(
        |(kind, severity, occurred_at, about, words)| NewEvent {
            kind,
            severity,
            occurred_at,
            host: about.0,
            vm: about.1,
            snapshot: about.2,
            operation: about.3,
            actor: words.0,
            message: words.1,
            details: words.2,
        },
    )
}
