//! Between the domain's types and the wire's.

use crate::chains::{Chain, ChainLayer};
use crate::freeze::{Consistency, Quiesce};
use crate::hypervisor::{UnsupportedDisk, VmState, VmView};
use crate::merge::{MergeKind, MergeView, Phase};
use crate::volumes::{Described, Volumes};
use jiff::Timestamp;
use livemerge_proto::fields::Fields;
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_storage::{Format, Removal, RemovalState, StorageId, VolumeInfo, VolumeRef};

pub(super) fn time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

pub(super) fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn volume_ref(volume: &VolumeRef) -> v1::VolumeRef {
    v1::VolumeRef {
        storage: volume.storage.to_string(),
        name: volume.name.to_string(),
    }
}

/// Checks a volume's name; `field` is its path in the request.
pub(super) fn parse_volume(
    fields: &mut Fields,
    field: &str,
    volume: Option<v1::VolumeRef>,
) -> Option<VolumeRef> {
    let volume = fields.required(field, volume)?;
    let storage = fields.parse(&format!("{field}.storage"), &volume.storage);
    let name = fields.parse(&format!("{field}.name"), &volume.name);
    Some(VolumeRef {
        storage: storage?,
        name: name?,
    })
}

pub(super) fn format(format: Option<Format>) -> i32 {
    match format {
        Some(Format::Qcow2) => v1::VolumeFormat::Qcow2.into(),
        Some(Format::Raw) => v1::VolumeFormat::Raw.into(),
        None => v1::VolumeFormat::Unspecified.into(),
    }
}

pub(super) fn volume(info: VolumeInfo) -> v1::Volume {
    v1::Volume {
        volume: Some(volume_ref(&info.volume)),
        identity: info.identity.to_string(),
        format: format(Some(info.format)),
        virtual_bytes: bytes(info.virtual_bytes),
        allocated_bytes: bytes(info.allocated_bytes),
        locator: info.locator.to_string(),
        parent_locator: info
            .parent
            .map(|parent| parent.locator.to_string())
            .unwrap_or_default(),
    }
}

pub(super) fn chain(vm: VmId, chain: Chain, now: Timestamp) -> v1::VolumeChain {
    v1::VolumeChain {
        vm_id: vm.to_string(),
        disk: chain.disk.to_string(),
        layers: chain.layers.into_iter().map(layer).collect(),
        observed_at: Some(time(now)),
        job_running: chain.job_running,
        libvirt_snapshots: chain.kept_snapshots,
        guest_discards: chain.discards,
    }
}

fn layer(layer: ChainLayer) -> v1::ChainLayer {
    let known = layer.volume.as_ref();
    v1::ChainLayer {
        volume: known.map(|known| volume_ref(&known.volume)),
        identity: known
            .map(|known| known.identity.to_string())
            .unwrap_or_default(),
        locator: layer.locator.to_string(),
        format: format(layer.format),
        virtual_bytes: known.map_or(0, |known| bytes(known.virtual_bytes)),
        allocated_bytes: known.map_or(0, |known| bytes(known.allocated_bytes)),
        shared_with: layer.shared_with,
        encrypted: known.is_some_and(|known| known.encrypted),
        dirty_bitmaps: known.map(|known| known.bitmaps.clone()).unwrap_or_default(),
    }
}

pub(super) fn unsupported(disk: UnsupportedDisk) -> v1::UnsupportedDisk {
    v1::UnsupportedDisk {
        disk: disk.target.to_string(),
        why: disk.why,
        locators: disk.layers.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn vm_state(state: VmState) -> v1::VmState {
    match state {
        VmState::Running => v1::VmState::Running,
        VmState::Paused => v1::VmState::Paused,
        VmState::ShutOff => v1::VmState::ShutOff,
    }
}

pub(super) fn vm(vm: &VmView, volumes: &Volumes, still_frozen: bool) -> v1::Vm {
    let state = vm_state(vm.state);
    let disks = vm.disks.iter().map(|disk| {
        let locator = disk.active().map(|layer| &layer.locator);
        v1::VmDisk {
            target: disk.target.to_string(),
            active: locator
                .and_then(|l| volumes.volume_of(l))
                .map(|v| volume_ref(&v)),
            locator: locator.map(ToString::to_string).unwrap_or_default(),
        }
    });
    v1::Vm {
        id: vm.id.to_string(),
        name: vm.name.clone(),
        host_id: String::new(),
        state: state.into(),
        disks: disks.collect(),
        observed_at: None,
        still_frozen,
    }
}

pub(super) fn quiesce(quiesce: v1::Quiesce) -> Quiesce {
    match quiesce {
        v1::Quiesce::Unspecified | v1::Quiesce::IfPossible => Quiesce::IfPossible,
        v1::Quiesce::Required => Quiesce::Required,
        v1::Quiesce::Never => Quiesce::Never,
    }
}

pub(super) fn consistency(consistency: Consistency) -> v1::SnapshotConsistency {
    match consistency {
        Consistency::Unknown => v1::SnapshotConsistency::Unspecified,
        Consistency::Crash => v1::SnapshotConsistency::Crash,
        Consistency::Frozen => v1::SnapshotConsistency::Frozen,
        Consistency::Off => v1::SnapshotConsistency::Off,
    }
}

pub(super) fn merge(view: MergeView) -> v1::Merge {
    let MergeView {
        record,
        done_bytes,
        total_bytes,
        waiting,
        shown,
    } = view;
    let kind = match record.kind {
        MergeKind::ActiveCommit => v1::MergeKind::ActiveCommit,
        MergeKind::Commit => v1::MergeKind::IntermediateCommit,
        MergeKind::Pull => v1::MergeKind::Pull,
        MergeKind::OfflineCommit => v1::MergeKind::OfflineCommit,
    };
    let (phase, ended_at, failure) = match record.phase {
        Phase::Pending => (v1::MergePhase::Pending, None, None),
        Phase::Copying { .. } => (v1::MergePhase::Copying, None, None),
        Phase::Ready { .. } => (v1::MergePhase::Ready, None, None),
        Phase::Pivoting { .. } => (v1::MergePhase::Pivoting, None, None),
        Phase::Overlaying { .. } => (v1::MergePhase::Overlaying, None, None),
        Phase::Cancelling { .. } | Phase::Restoring { .. } => {
            (v1::MergePhase::Cancelling, None, None)
        }
        Phase::Cancelled { at } => (v1::MergePhase::Cancelled, Some(at), None),
        Phase::Verifying { .. } => (v1::MergePhase::Verifying, None, None),
        Phase::Merged { at } => (v1::MergePhase::Merged, Some(at), None),
        Phase::Failed { at, failure } => (v1::MergePhase::Failed, Some(at), Some(failure)),
    };
    v1::Merge {
        id: record.order.id.to_string(),
        vm_id: record.order.vm.to_string(),
        disk: record.order.disk.to_string(),
        kind: kind.into(),
        kept: Some(volume_ref(&record.order.kept.volume)),
        removed: record
            .order
            .removed
            .iter()
            .map(|mark| volume_ref(&mark.volume))
            .collect(),
        bytes_per_second: bytes(record.bytes_per_second),
        limit_lifted: record.help.unlimited,
        guest_bytes_per_second: record
            .help
            .throttle
            .map_or(0, |throttle| bytes(throttle.bytes_per_second)),
        overlay: record
            .order
            .spare
            .filter(|_| record.overlaid)
            .map(|spare| volume_ref(&spare)),
        phase: phase.into(),
        done_bytes: bytes(done_bytes),
        total_bytes: bytes(total_bytes),
        pivot_attempts: i32::try_from(record.pivot_attempts).unwrap_or(i32::MAX),
        longest_pause: prost_types::Duration::try_from(record.longest_pause).ok(),
        copy_time: prost_types::Duration::try_from(record.copied.took).ok(),
        failure: failure.map(Into::into),
        accepted_at: Some(time(record.accepted_at)),
        ended_at: ended_at.map(time),
        waiting: waiting.map(|waiting| v1::MergeWaiting {
            cause: Some(waiting.cause.into()),
            next_try_at: Some(time(waiting.next_try_at)),
            attempts: i32::try_from(waiting.attempts).unwrap_or(i32::MAX),
        }),
        revision: bytes(shown),
    }
}

/// Names of one answer: whoever has more has other worries.
const MOST_FOREIGN: usize = 1000;

pub(super) fn storage(id: &StorageId, described: Described, promised: u64) -> v1::Storage {
    let Described {
        space,
        mut foreign,
        capabilities,
        removal,
    } = described;
    foreign.truncate(MOST_FOREIGN);
    v1::Storage {
        id: id.to_string(),
        free_bytes: bytes(space.free_bytes),
        total_bytes: bytes(space.total_bytes),
        promised_bytes: bytes(promised),
        thin: capabilities.thin,
        provided: capabilities.provided,
        keep_for: Some(removal.keep_for)
            .filter(|time| !time.is_zero())
            .and_then(|time| prost_types::Duration::try_from(time).ok()),
        wipe: removal.wipe,
        discard: removal.discard,
        foreign,
        problem: String::new(),
    }
}

pub(super) fn removal(removal: &Removal) -> v1::Removal {
    let (state, keep_until) = match removal.state {
        RemovalState::Gone => (v1::RemovalState::Gone, None),
        RemovalState::Condemned { keep_until } => (v1::RemovalState::Condemned, keep_until),
    };
    v1::Removal {
        id: removal.id.to_string(),
        volume: Some(volume_ref(&removal.volume)),
        state: state.into(),
        freed_bytes: bytes(removal.freed_bytes),
        condemned_at: removal.condemned_at.map(time),
        keep_until: keep_until.map(time),
        identity: removal.identity.to_string(),
    }
}
