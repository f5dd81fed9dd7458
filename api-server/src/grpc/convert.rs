//! From the domain's types to the wire's.

use crate::hosts::{
    Chain, HostStatus, HostView, Layer, LayerFormat, UnsupportedDisk, VmSeen, VmState, volume_ref,
};
use crate::snapshot::{
    Consistency, Event, EventKind, HostRecord, Origin, Quiesce, Severity, Snapshot, SnapshotState,
    VmRecord,
};
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, VmId};
use livemerge_proto::v1;
use std::time::Duration;

pub(super) fn time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

pub(super) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn snapshot(snapshot: Snapshot) -> v1::Snapshot {
    let state = match snapshot.state {
        SnapshotState::Creating => v1::SnapshotState::Creating,
        SnapshotState::Ready => v1::SnapshotState::Ready,
        SnapshotState::Deleting => v1::SnapshotState::Deleting,
        SnapshotState::Incomplete => v1::SnapshotState::Incomplete,
    };
    let origin = match snapshot.origin {
        Origin::Requested => v1::SnapshotOrigin::Requested,
        Origin::Discovered => v1::SnapshotOrigin::Discovered,
        Origin::LeftByMerge => v1::SnapshotOrigin::LeftByMerge,
    };
    let consistency = match snapshot.consistency {
        Consistency::Unknown => v1::SnapshotConsistency::Unspecified,
        Consistency::Crash => v1::SnapshotConsistency::Crash,
        Consistency::Frozen => v1::SnapshotConsistency::Frozen,
        Consistency::Off => v1::SnapshotConsistency::Off,
    };
    let disks = snapshot.disks.iter().map(|disk| v1::SnapshotDisk {
        disk: disk.disk.to_string(),
        volume: Some(volume_ref(&disk.volume)),
    });
    v1::Snapshot {
        id: snapshot.id.to_string(),
        vm_id: snapshot.vm.to_string(),
        disks: disks.collect(),
        name: snapshot.name.to_string(),
        description: snapshot.description,
        state: state.into(),
        created_at: Some(time(snapshot.created_at)),
        etag: etag(snapshot.revision),
        origin: origin.into(),
        labels: snapshot.labels.into_iter().collect(),
        deletion_protected: snapshot.deletion_protected,
        consistency: consistency.into(),
    }
}

pub(super) fn quiesce(quiesce: v1::Quiesce) -> Quiesce {
    match quiesce {
        v1::Quiesce::Unspecified | v1::Quiesce::IfPossible => Quiesce::IfPossible,
        v1::Quiesce::Required => Quiesce::Required,
        v1::Quiesce::Never => Quiesce::Never,
    }
}

fn etag(revision: u64) -> String {
    format!("r{revision}")
}

/// The revision that an etag stands for.
pub(super) fn parse_etag(etag: &str) -> Option<u64> {
    etag.strip_prefix('r')?.parse().ok()
}

pub(super) fn host(record: HostRecord, view: &HostView, maintenance: bool) -> v1::Host {
    let status = match view.status {
        HostStatus::Up if maintenance => v1::HostStatus::Maintenance,
        HostStatus::Up => v1::HostStatus::Up,
        HostStatus::Unresponsive => v1::HostStatus::Unresponsive,
        HostStatus::Incompatible => v1::HostStatus::Incompatible,
    };
    v1::Host {
        id: record.id.to_string(),
        endpoint: record.endpoint,
        status: status.into(),
        generation: number(record.generation),
        version: record.version,
        last_seen_at: view.last_seen_at.map(time),
        hypervisor_connected: view.hypervisor_connected,
        maintenance,
        api_version: view.api_version.unwrap_or_default(),
    }
}

/// A machine as its host shows it now.
pub(super) fn vm_seen(vm: &VmSeen, host: &HostId, observed_at: Option<Timestamp>) -> v1::Vm {
    let state = match vm.state {
        VmState::Running => v1::VmState::Running,
        VmState::Paused => v1::VmState::Paused,
        VmState::ShutOff => v1::VmState::ShutOff,
    };
    let disks = vm.disks.iter().map(|disk| v1::VmDisk {
        target: disk.target.to_string(),
        active: disk.active.as_ref().map(volume_ref),
        locator: disk.locator.clone(),
    });
    v1::Vm {
        id: vm.id.to_string(),
        name: vm.name.clone(),
        host_id: host.to_string(),
        state: state.into(),
        disks: disks.collect(),
        observed_at: observed_at.map(time),
        still_frozen: vm.still_frozen,
    }
}

/// A machine whose host is silent, or no longer has it.
pub(super) fn vm_unknown(vm: &VmRecord, observed_at: Option<Timestamp>) -> v1::Vm {
    v1::Vm {
        id: vm.id.to_string(),
        name: vm.name.clone(),
        host_id: vm.host.to_string(),
        state: v1::VmState::Unknown.into(),
        disks: vec![],
        observed_at: observed_at.map(time),
        still_frozen: false,
    }
}

pub(super) fn unsupported(disk: UnsupportedDisk) -> v1::UnsupportedDisk {
    v1::UnsupportedDisk {
        disk: disk.disk.to_string(),
        why: disk.why,
        locators: disk.locators,
    }
}

pub(super) fn chain(vm: VmId, chain: Chain, now: Timestamp) -> v1::VolumeChain {
    v1::VolumeChain {
        vm_id: vm.to_string(),
        disk: chain.disk.to_string(),
        layers: chain.layers.into_iter().map(layer).collect(),
        observed_at: Some(time(now)),
        job_running: chain.job_running,
        libvirt_snapshots: chain.libvirt_snapshots,
        guest_discards: chain.guest_discards,
    }
}

fn layer(layer: Layer) -> v1::ChainLayer {
    let format = match layer.format {
        LayerFormat::Qcow2 => v1::VolumeFormat::Qcow2,
        LayerFormat::Raw => v1::VolumeFormat::Raw,
        LayerFormat::Unknown => v1::VolumeFormat::Unspecified,
    };
    v1::ChainLayer {
        volume: layer.mark.as_ref().map(|mark| volume_ref(&mark.volume)),
        identity: layer
            .mark
            .map(|mark| mark.identity.to_string())
            .unwrap_or_default(),
        locator: layer.locator,
        format: format.into(),
        virtual_bytes: number(layer.virtual_bytes),
        allocated_bytes: number(layer.allocated_bytes),
        shared_with: layer.shared_with,
        encrypted: layer.encrypted,
        dirty_bitmaps: layer.bitmaps,
    }
}

pub(super) fn event(event: Event) -> v1::Event {
    let entry = event.entry;
    v1::Event {
        revision: number(event.revision),
        r#type: event_type(entry.kind).into(),
        severity: severity(entry.severity).into(),
        occurred_at: Some(time(entry.occurred_at)),
        host_id: entry.host.map(|id| id.to_string()).unwrap_or_default(),
        vm_id: entry.vm.map(|id| id.to_string()).unwrap_or_default(),
        snapshot_id: entry.snapshot.map(|id| id.to_string()).unwrap_or_default(),
        operation_id: entry.operation.map(|id| id.to_string()).unwrap_or_default(),
        actor: entry.actor.unwrap_or_default(),
        message: entry.message,
        details: entry.details.into_iter().collect(),
    }
}

pub(super) fn severity(severity: Severity) -> v1::EventSeverity {
    match severity {
        Severity::Info => v1::EventSeverity::Info,
        Severity::Warning => v1::EventSeverity::Warning,
        Severity::Error => v1::EventSeverity::Error,
    }
}

/// The kind of a type that somebody asks for.
pub(super) fn event_kind(wanted: v1::EventType) -> Option<EventKind> {
    Some(match wanted {
        v1::EventType::Unspecified => return None,
        v1::EventType::HostRegistered => EventKind::HostRegistered,
        v1::EventType::HostUp => EventKind::HostUp,
        v1::EventType::HostUnresponsive => EventKind::HostUnresponsive,
        v1::EventType::HostJournalDamaged => EventKind::HostJournalDamaged,
        v1::EventType::GuestStillFrozen => EventKind::GuestStillFrozen,
        v1::EventType::GuestThawed => EventKind::GuestThawed,
        v1::EventType::SnapshotCreateRequested => EventKind::SnapshotCreateRequested,
        v1::EventType::SnapshotCreated => EventKind::SnapshotCreated,
        v1::EventType::SnapshotCreateFailed => EventKind::SnapshotCreateFailed,
        v1::EventType::SnapshotDeleteRequested => EventKind::SnapshotDeleteRequested,
        v1::EventType::SnapshotDeleted => EventKind::SnapshotDeleted,
        v1::EventType::SnapshotDeleteFailed => EventKind::SnapshotDeleteFailed,
        v1::EventType::SnapshotDiscovered => EventKind::SnapshotDiscovered,
        v1::EventType::SnapshotVanished => EventKind::SnapshotVanished,
        v1::EventType::SnapshotUpdated => EventKind::SnapshotUpdated,
        v1::EventType::LiveMergePlanned => EventKind::LiveMergePlanned,
        v1::EventType::LiveMergeStarted => EventKind::LiveMergeStarted,
        v1::EventType::LiveMergeCompleted => EventKind::LiveMergeCompleted,
        v1::EventType::LiveMergeFailed => EventKind::LiveMergeFailed,
        v1::EventType::LiveMergeReady => EventKind::LiveMergeReady,
        v1::EventType::LiveMergePivoting => EventKind::LiveMergePivoting,
        v1::EventType::LiveMergePivotPutOff => EventKind::LiveMergePivotPutOff,
        v1::EventType::VolumeRemoved => EventKind::VolumeRemoved,
        v1::EventType::VolumeRemovalRefused => EventKind::VolumeRemovalRefused,
        v1::EventType::RepairRequested => EventKind::RepairRequested,
        v1::EventType::RepairApplied => EventKind::RepairApplied,
        v1::EventType::VolumeRestoreRequested => EventKind::VolumeRestoreRequested,
        v1::EventType::VolumeRestored => EventKind::VolumeRestored,
        v1::EventType::HostMaintenanceChanged => EventKind::HostMaintenanceChanged,
        v1::EventType::OperationResumed => EventKind::OperationResumed,
        v1::EventType::OperationWaiting => EventKind::OperationWaiting,
        v1::EventType::OperationRecovered => EventKind::OperationRecovered,
        v1::EventType::OperationLimited => EventKind::OperationLimited,
        v1::EventType::OperationCancelled => EventKind::OperationCancelled,
        v1::EventType::OperationCancelRequested => EventKind::OperationCancelRequested,
        v1::EventType::LiveMergeCancelled => EventKind::LiveMergeCancelled,
        v1::EventType::LiveMergeGuestThrottled => EventKind::LiveMergeGuestThrottled,
        v1::EventType::LiveMergeOverlaid => EventKind::LiveMergeOverlaid,
        v1::EventType::LiveMergeLimitLifted => EventKind::LiveMergeLimitLifted,
    })
}

pub(super) fn event_type(kind: EventKind) -> v1::EventType {
    match kind {
        EventKind::HostRegistered => v1::EventType::HostRegistered,
        EventKind::HostUp => v1::EventType::HostUp,
        EventKind::HostUnresponsive => v1::EventType::HostUnresponsive,
        EventKind::HostJournalDamaged => v1::EventType::HostJournalDamaged,
        EventKind::GuestStillFrozen => v1::EventType::GuestStillFrozen,
        EventKind::GuestThawed => v1::EventType::GuestThawed,
        EventKind::SnapshotCreateRequested => v1::EventType::SnapshotCreateRequested,
        EventKind::SnapshotCreated => v1::EventType::SnapshotCreated,
        EventKind::SnapshotCreateFailed => v1::EventType::SnapshotCreateFailed,
        EventKind::SnapshotDeleteRequested => v1::EventType::SnapshotDeleteRequested,
        EventKind::SnapshotDeleted => v1::EventType::SnapshotDeleted,
        EventKind::SnapshotDeleteFailed => v1::EventType::SnapshotDeleteFailed,
        EventKind::SnapshotDiscovered => v1::EventType::SnapshotDiscovered,
        EventKind::SnapshotVanished => v1::EventType::SnapshotVanished,
        EventKind::SnapshotUpdated => v1::EventType::SnapshotUpdated,
        EventKind::LiveMergePlanned => v1::EventType::LiveMergePlanned,
        EventKind::LiveMergeStarted => v1::EventType::LiveMergeStarted,
        EventKind::LiveMergeCompleted => v1::EventType::LiveMergeCompleted,
        EventKind::LiveMergeFailed => v1::EventType::LiveMergeFailed,
        EventKind::LiveMergeReady => v1::EventType::LiveMergeReady,
        EventKind::LiveMergePivoting => v1::EventType::LiveMergePivoting,
        EventKind::LiveMergePivotPutOff => v1::EventType::LiveMergePivotPutOff,
        EventKind::VolumeRemoved => v1::EventType::VolumeRemoved,
        EventKind::VolumeRemovalRefused => v1::EventType::VolumeRemovalRefused,
        EventKind::RepairRequested => v1::EventType::RepairRequested,
        EventKind::RepairApplied => v1::EventType::RepairApplied,
        EventKind::VolumeRestoreRequested => v1::EventType::VolumeRestoreRequested,
        EventKind::VolumeRestored => v1::EventType::VolumeRestored,
        EventKind::HostMaintenanceChanged => v1::EventType::HostMaintenanceChanged,
        EventKind::OperationResumed => v1::EventType::OperationResumed,
        EventKind::OperationWaiting => v1::EventType::OperationWaiting,
        EventKind::OperationRecovered => v1::EventType::OperationRecovered,
        EventKind::OperationLimited => v1::EventType::OperationLimited,
        EventKind::OperationCancelled => v1::EventType::OperationCancelled,
        EventKind::OperationCancelRequested => v1::EventType::OperationCancelRequested,
        EventKind::LiveMergeCancelled => v1::EventType::LiveMergeCancelled,
        EventKind::LiveMergeGuestThrottled => v1::EventType::LiveMergeGuestThrottled,
        EventKind::LiveMergeOverlaid => v1::EventType::LiveMergeOverlaid,
        EventKind::LiveMergeLimitLifted => v1::EventType::LiveMergeLimitLifted,
    }
}
