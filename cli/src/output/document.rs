//! The JSON documents. Scripts rely on them: fields are added, never renamed or taken away.
//!
//! Names are those of the API. Enums are words (`shut_off`), what is unset is `null`, durations are
//! in seconds.

mod storage;

pub(crate) use storage::{RemovalDocument, StorageDocument};

use super::text::{seconds, time, word};
use crate::chain::{self, Layer};
use livemerge_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Serialize)]
pub(crate) struct HostDocument<'a> {
    id: &'a str,
    endpoint: &'a str,
    status: String,
    generation: i64,
    version: &'a str,
    last_seen_at: Option<String>,
    hypervisor_connected: bool,
    maintenance: bool,
}

impl<'a> From<&'a v1::Host> for HostDocument<'a> {
    fn from(host: &'a v1::Host) -> Self {
        Self {
            id: &host.id,
            endpoint: &host.endpoint,
            status: word(host.status().as_str_name(), "HOST_STATUS_"),
            generation: host.generation,
            version: &host.version,
            last_seen_at: time(host.last_seen_at.as_ref()),
            hypervisor_connected: host.hypervisor_connected,
            maintenance: host.maintenance,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct VolumeDocument<'a> {
    storage: &'a str,
    name: &'a str,
}

impl<'a> From<&'a v1::VolumeRef> for VolumeDocument<'a> {
    fn from(volume: &'a v1::VolumeRef) -> Self {
        Self {
            storage: &volume.storage,
            name: &volume.name,
        }
    }
}

pub(super) fn volume(volume: Option<&v1::VolumeRef>) -> Option<VolumeDocument<'_>> {
    volume.map(VolumeDocument::from)
}

pub(super) fn volumes(volumes: &[v1::VolumeRef]) -> Vec<VolumeDocument<'_>> {
    volumes.iter().map(VolumeDocument::from).collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct VmDocument<'a> {
    id: &'a str,
    name: &'a str,
    host_id: &'a str,
    state: String,
    disks: Vec<VmDiskDocument<'a>>,
    observed_at: Option<String>,
    still_frozen: bool,
}

#[derive(Debug, Serialize)]
struct VmDiskDocument<'a> {
    target: &'a str,
    active: Option<VolumeDocument<'a>>,
    locator: &'a str,
}

impl<'a> From<&'a v1::Vm> for VmDocument<'a> {
    fn from(vm: &'a v1::Vm) -> Self {
        let disks = vm.disks.iter().map(|disk| VmDiskDocument {
            target: &disk.target,
            active: volume(disk.active.as_ref()),
            locator: &disk.locator,
        });
        Self {
            id: &vm.id,
            name: &vm.name,
            host_id: &vm.host_id,
            state: word(vm.state().as_str_name(), "VM_STATE_"),
            disks: disks.collect(),
            observed_at: time(vm.observed_at.as_ref()),
            still_frozen: vm.still_frozen,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotDocument<'a> {
    id: &'a str,
    vm_id: &'a str,
    name: &'a str,
    description: &'a str,
    state: String,
    origin: Option<String>,
    labels: BTreeMap<&'a str, &'a str>,
    deletion_protected: bool,
    consistency: Option<String>,
    disks: Vec<SnapshotDiskDocument<'a>>,
    created_at: Option<String>,
    etag: &'a str,
}

#[derive(Debug, Serialize)]
struct SnapshotDiskDocument<'a> {
    disk: &'a str,
    volume: Option<VolumeDocument<'a>>,
}

impl<'a> From<&'a v1::Snapshot> for SnapshotDocument<'a> {
    fn from(snapshot: &'a v1::Snapshot) -> Self {
        let disks = snapshot.disks.iter().map(|disk| SnapshotDiskDocument {
            disk: &disk.disk,
            volume: volume(disk.volume.as_ref()),
        });
        Self {
            id: &snapshot.id,
            vm_id: &snapshot.vm_id,
            name: &snapshot.name,
            description: &snapshot.description,
            state: snapshot_state(snapshot),
            origin: set(snapshot_origin(snapshot)),
            labels: sorted(&snapshot.labels),
            deletion_protected: snapshot.deletion_protected,
            consistency: snapshot_consistency(snapshot),
            disks: disks.collect(),
            created_at: time(snapshot.created_at.as_ref()),
            etag: &snapshot.etag,
        }
    }
}

pub(crate) fn snapshot_state(snapshot: &v1::Snapshot) -> String {
    word(snapshot.state().as_str_name(), "SNAPSHOT_STATE_")
}

/// What a guest finds that starts from it, when that is known.
pub(crate) fn snapshot_consistency(snapshot: &v1::Snapshot) -> Option<String> {
    let name = snapshot.consistency().as_str_name();
    set(word(name, "SNAPSHOT_CONSISTENCY_"))
}

#[derive(Debug, Serialize)]
pub(crate) struct OperationDocument<'a> {
    id: &'a str,
    kind: String,
    state: String,
    phase: Option<String>,
    vm_id: &'a str,
    snapshot_id: &'a str,
    snapshot_name: &'a str,
    snapshot_ids: &'a [String],
    bytes_per_second: i64,
    cancel_requested: bool,
    request_id: &'a str,
    requested_by: &'a str,
    disks: Vec<DiskProgressDocument<'a>>,
    estimated_time_seconds: Option<f64>,
    waiting: Option<WaitingDocument<'a>>,
    failure: Option<FailureDocument<'a>>,
    created_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    revision: i64,
}

#[derive(Debug, Serialize)]
struct DiskProgressDocument<'a> {
    disk: &'a str,
    kind: Option<String>,
    phase: Option<String>,
    kept: Option<VolumeDocument<'a>>,
    removed: Vec<VolumeDocument<'a>>,
    done_bytes: i64,
    total_bytes: i64,
    planned_bytes: i64,
    bytes_per_second: i64,
    time_left_seconds: Option<f64>,
    longest_pause_seconds: Option<f64>,
    freed_bytes: i64,
    space_needed_bytes: i64,
    space_free_bytes: i64,
    planned_freed_bytes: i64,
    other_way_bytes: i64,
    planned_bytes_guessed: bool,
    planned_time_seconds: Option<f64>,
    copy_time_seconds: Option<f64>,
    round: i32,
    failure: Option<FailureDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct WaitingDocument<'a> {
    reason: &'a str,
    message: &'a str,
    next_try_at: Option<String>,
    attempts: i32,
    queue_position: i32,
}

#[derive(Debug, Serialize)]
struct FailureDocument<'a> {
    reason: &'a str,
    message: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a v1::Operation> for OperationDocument<'a> {
    fn from(operation: &'a v1::Operation) -> Self {
        Self {
            id: &operation.id,
            kind: word(operation.kind().as_str_name(), "OPERATION_KIND_"),
            state: word(operation.state().as_str_name(), "OPERATION_STATE_"),
            phase: set(word(operation.phase().as_str_name(), "OPERATION_PHASE_")),
            vm_id: &operation.vm_id,
            snapshot_id: &operation.snapshot_id,
            snapshot_name: &operation.snapshot_name,
            snapshot_ids: &operation.snapshot_ids,
            bytes_per_second: operation.bytes_per_second,
            cancel_requested: operation.cancel_requested,
            request_id: &operation.request_id,
            requested_by: &operation.requested_by,
            disks: operation
                .disks
                .iter()
                .map(DiskProgressDocument::from)
                .collect(),
            estimated_time_seconds: seconds(operation.estimated_time.as_ref()),
            waiting: operation.waiting.as_ref().map(WaitingDocument::from),
            failure: operation.failure.as_ref().map(FailureDocument::from),
            created_at: time(operation.created_at.as_ref()),
            started_at: time(operation.started_at.as_ref()),
            ended_at: time(operation.ended_at.as_ref()),
            revision: operation.revision,
        }
    }
}

impl<'a> From<&'a v1::DiskProgress> for DiskProgressDocument<'a> {
    fn from(disk: &'a v1::DiskProgress) -> Self {
        Self {
            disk: &disk.disk,
            kind: set(word(disk.kind().as_str_name(), "MERGE_KIND_")),
            phase: set(word(disk.phase().as_str_name(), "MERGE_PHASE_")),
            kept: volume(disk.kept.as_ref()),
            removed: volumes(&disk.removed),
            done_bytes: disk.done_bytes,
            total_bytes: disk.total_bytes,
            planned_bytes: disk.planned_bytes,
            bytes_per_second: disk.bytes_per_second,
            time_left_seconds: seconds(disk.time_left.as_ref()),
            longest_pause_seconds: seconds(disk.longest_pause.as_ref()),
            freed_bytes: disk.freed_bytes,
            space_needed_bytes: disk.space_needed_bytes,
            space_free_bytes: disk.space_free_bytes,
            planned_freed_bytes: disk.planned_freed_bytes,
            other_way_bytes: disk.other_way_bytes,
            planned_bytes_guessed: disk.planned_bytes_guessed,
            planned_time_seconds: seconds(disk.planned_time.as_ref()),
            copy_time_seconds: seconds(disk.copy_time.as_ref()),
            round: disk.round,
            failure: disk.failure.as_ref().map(FailureDocument::from),
        }
    }
}

impl<'a> From<&'a v1::Waiting> for WaitingDocument<'a> {
    fn from(waiting: &'a v1::Waiting) -> Self {
        Self {
            reason: &waiting.reason,
            message: &waiting.message,
            next_try_at: time(waiting.next_try_at.as_ref()),
            attempts: waiting.attempts,
            queue_position: waiting.queue_position,
        }
    }
}

impl<'a> From<&'a v1::Failure> for FailureDocument<'a> {
    fn from(failure: &'a v1::Failure) -> Self {
        let metadata = sorted(&failure.metadata);
        Self {
            reason: &failure.reason,
            message: &failure.message,
            metadata,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct EventDocument<'a> {
    revision: i64,
    r#type: String,
    severity: String,
    occurred_at: Option<String>,
    host_id: Option<&'a str>,
    vm_id: Option<&'a str>,
    snapshot_id: Option<&'a str>,
    operation_id: Option<&'a str>,
    actor: Option<&'a str>,
    message: &'a str,
    details: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a v1::Event> for EventDocument<'a> {
    fn from(event: &'a v1::Event) -> Self {
        Self {
            revision: event.revision,
            r#type: word(event.r#type().as_str_name(), "EVENT_TYPE_"),
            severity: word(event.severity().as_str_name(), "EVENT_SEVERITY_"),
            occurred_at: time(event.occurred_at.as_ref()),
            host_id: given(&event.host_id),
            vm_id: given(&event.vm_id),
            snapshot_id: given(&event.snapshot_id),
            operation_id: given(&event.operation_id),
            actor: given(&event.actor),
            message: &event.message,
            details: sorted(&event.details),
        }
    }
}

/// One disk's chain, base first.
#[derive(Debug, Serialize)]
pub(crate) struct ChainDocument<'a> {
    vm_id: &'a str,
    disk: &'a str,
    job_running: bool,
    libvirt_snapshots: &'a [String],
    guest_discards: bool,
    observed_at: Option<String>,
    layers: Vec<LayerDocument<'a>>,
    /// Why there are none, and no snapshot can be taken or deleted.
    unsupported: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct LayerDocument<'a> {
    volume: Option<VolumeDocument<'a>>,
    locator: &'a str,
    identity: &'a str,
    format: String,
    virtual_bytes: i64,
    allocated_bytes: i64,
    shared_with: &'a [String],
    encrypted: bool,
    dirty_bitmaps: &'a [String],
    /// The guest writes this layer.
    active: bool,
    /// What the layer froze.
    snapshots: Vec<FrozenDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct FrozenDocument<'a> {
    id: &'a str,
    name: &'a str,
    state: String,
}

impl<'a> ChainDocument<'a> {
    /// A chain, and the snapshots of its machine.
    pub(crate) fn new(chain: &'a v1::VolumeChain, snapshots: &'a [v1::Snapshot]) -> Self {
        Self {
            vm_id: &chain.vm_id,
            disk: &chain.disk,
            job_running: chain.job_running,
            libvirt_snapshots: &chain.libvirt_snapshots,
            guest_discards: chain.guest_discards,
            observed_at: time(chain.observed_at.as_ref()),
            layers: chain::layers(chain, snapshots)
                .map(LayerDocument::from)
                .collect(),
            unsupported: None,
        }
    }

    /// A disk whose chain is not told.
    pub(crate) fn unsupported(vm_id: &'a str, disk: &'a v1::UnsupportedDisk) -> Self {
        Self {
            vm_id,
            disk: &disk.disk,
            job_running: false,
            libvirt_snapshots: &[],
            guest_discards: false,
            observed_at: None,
            layers: Vec::new(),
            unsupported: Some(&disk.why),
        }
    }
}

impl<'a> From<Layer<'a>> for LayerDocument<'a> {
    fn from(of: Layer<'a>) -> Self {
        let (layer, active) = (of.layer, of.active);
        let frozen = of.snapshots.into_iter().map(|snapshot| FrozenDocument {
            id: &snapshot.id,
            name: &snapshot.name,
            state: snapshot_state(snapshot),
        });
        Self {
            volume: volume(layer.volume.as_ref()),
            locator: &layer.locator,
            identity: &layer.identity,
            format: word(layer.format().as_str_name(), "VOLUME_FORMAT_"),
            virtual_bytes: layer.virtual_bytes,
            allocated_bytes: layer.allocated_bytes,
            shared_with: &layer.shared_with,
            encrypted: layer.encrypted,
            dirty_bitmaps: &layer.dirty_bitmaps,
            active,
            snapshots: frozen.collect(),
        }
    }
}

pub(crate) fn snapshot_origin(snapshot: &v1::Snapshot) -> String {
    word(snapshot.origin().as_str_name(), "SNAPSHOT_ORIGIN_")
}

/// An enum's word, unless the enum is unset.
pub(super) fn set(word: String) -> Option<String> {
    (word != "unspecified").then_some(word)
}

pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn sorted(map: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
