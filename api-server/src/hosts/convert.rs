//! Between an agent's answers and what the server knows.
//!
//! An answer that cannot be understood is a fault of one of the two programs: it is treated as no
//! answer, never as an empty one.

use super::Removals;
use super::answer::meant;
use super::measured::{MeasuredWay, Promised};
use super::types::{
    Chain, DiskSeen, DomainSeen, HostReport, Layer, LayerFormat, MergeOrder, MergePhase, MergeSeen,
    MergeWaiting, RemovalOrder, RemovalSeen, Removed, UnsupportedDisk, VmChains, VmSeen, VmState,
    VolumeSeen,
};
use crate::snapshot::{Consistency, Direction, Failure, Mark, Quiesce};
use jiff::Timestamp;
use livemerge_proto::ids::{DiskTarget, HostId, MergeId};
use livemerge_proto::v1;
use livemerge_storage::VolumeRef;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use tonic::Status;

pub(super) fn vm(vm: &v1::Vm) -> Result<VmSeen, Status> {
    let state = vm_state(vm.state()).ok_or_else(|| nonsense("the machine's state"))?;
    let disks = vm.disks.iter().map(disk).collect::<Result<_, _>>()?;
    Ok(VmSeen {
        id: id(&vm.id)?,
        name: vm.name.clone(),
        state,
        disks,
        still_frozen: vm.still_frozen,
    })
}

pub(super) fn quiesce(quiesce: Quiesce) -> v1::Quiesce {
    match quiesce {
        Quiesce::IfPossible => v1::Quiesce::IfPossible,
        Quiesce::Required => v1::Quiesce::Required,
        Quiesce::Never => v1::Quiesce::Never,
    }
}

pub(super) fn consistency(consistency: v1::SnapshotConsistency) -> Consistency {
    match consistency {
        v1::SnapshotConsistency::Unspecified => Consistency::Unknown,
        v1::SnapshotConsistency::Crash => Consistency::Crash,
        v1::SnapshotConsistency::Frozen => Consistency::Frozen,
        v1::SnapshotConsistency::Off => Consistency::Off,
    }
}

fn vm_state(state: v1::VmState) -> Option<VmState> {
    match state {
        v1::VmState::Running => Some(VmState::Running),
        v1::VmState::Paused => Some(VmState::Paused),
        v1::VmState::ShutOff => Some(VmState::ShutOff),
        v1::VmState::Unspecified | v1::VmState::Unknown => None,
    }
}

fn disk(disk: &v1::VmDisk) -> Result<DiskSeen, Status> {
    let active = disk.active.as_ref().map(parse_volume).transpose()?;
    Ok(DiskSeen {
        target: id(&disk.target)?,
        active,
        locator: disk.locator.clone(),
    })
}

pub(super) fn merge(merge: &v1::Merge) -> Result<(MergeId, MergeSeen), Status> {
    let phase = match merge.phase() {
        v1::MergePhase::Pending => MergePhase::Pending,
        v1::MergePhase::Copying => MergePhase::Copying,
        v1::MergePhase::Ready => MergePhase::Ready,
        v1::MergePhase::Pivoting => MergePhase::Pivoting,
        v1::MergePhase::Verifying => MergePhase::Verifying,
        v1::MergePhase::Overlaying => MergePhase::Overlaying,
        v1::MergePhase::Cancelling => MergePhase::Cancelling,
        v1::MergePhase::Cancelled => MergePhase::Cancelled,
        v1::MergePhase::Merged => MergePhase::Merged,
        v1::MergePhase::Failed => {
            MergePhase::Failed(merge.failure.clone().unwrap_or_default().into())
        }
        v1::MergePhase::Unspecified | v1::MergePhase::Removing | v1::MergePhase::Removed => {
            return Err(nonsense("the merge's phase"));
        }
    };
    let time = |time: Option<prost_types::Duration>| {
        let time = time.and_then(|time| Duration::try_from(time).ok());
        time.unwrap_or_default()
    };
    let seen = MergeSeen {
        phase,
        done_bytes: bytes(merge.done_bytes),
        total_bytes: bytes(merge.total_bytes),
        pivot_attempts: u32::try_from(merge.pivot_attempts).unwrap_or(0),
        longest_pause: time(merge.longest_pause),
        copy_time: time(merge.copy_time),
        bytes_per_second: bytes(merge.bytes_per_second),
        limit_lifted: merge.limit_lifted,
        guest_bytes_per_second: bytes(merge.guest_bytes_per_second),
        waiting: merge.waiting.clone().map(waiting).transpose()?,
        overlaid: merge.overlay.is_some(),
        revision: bytes(merge.revision),
    };
    Ok((id(&merge.id)?, seen))
}

fn waiting(waiting: v1::MergeWaiting) -> Result<Box<MergeWaiting>, Status> {
    let cause = waiting
        .cause
        .ok_or_else(|| nonsense("waits without a cause"))?;
    let next_try_at = waiting
        .next_try_at
        .ok_or_else(|| nonsense("waits without a next try"))?;
    Ok(Box::new(MergeWaiting {
        cause: Failure::from(cause).into(),
        next_try_at: time(next_try_at)?,
        attempts: u32::try_from(waiting.attempts).unwrap_or(0),
    }))
}

pub(super) fn disk_merge(order: &MergeOrder) -> v1::DiskMerge {
    let direction = match order.direction {
        Direction::Commit => v1::MergeDirection::Commit,
        Direction::Pull => v1::MergeDirection::Pull,
    };
    v1::DiskMerge {
        merge_id: order.id.to_string(),
        disk: order.disk.to_string(),
        direction: direction.into(),
        kept: Some(marked(&order.kept)),
        removed: order.removed.iter().map(marked).collect(),
        bytes_per_second: i64::try_from(order.bytes_per_second).unwrap_or(i64::MAX),
        spare: order.spare.as_ref().map(volume_ref),
    }
}

/// A run by its oldest and its youngest volume.
pub(super) fn disk_range((disk, lowest, youngest): &(DiskTarget, Mark, Mark)) -> v1::DiskRange {
    v1::DiskRange {
        disk: disk.to_string(),
        lowest: Some(marked(lowest)),
        youngest: Some(marked(youngest)),
        forced: v1::MergeDirection::Unspecified.into(),
    }
}

pub(super) fn promised_room(promised: &Promised) -> v1::PromisedRoom {
    v1::PromisedRoom {
        kept: Some(marked(&promised.kept)),
        bytes: i64::try_from(promised.bytes).unwrap_or(i64::MAX),
        kept_bytes: promised
            .kept_bytes
            .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        kept_room_bytes: Some(i64::try_from(promised.kept_room_bytes).unwrap_or(i64::MAX)),
    }
}

pub(super) fn way(option: &v1::MergeOption) -> Option<MeasuredWay> {
    let direction = match option.direction() {
        v1::MergeDirection::Commit => Direction::Commit,
        v1::MergeDirection::Pull => Direction::Pull,
        v1::MergeDirection::Unspecified => return None,
    };
    Some(MeasuredWay {
        direction,
        blocker: option.blocker.clone().map(Into::into),
        copy_bytes: bytes(option.copy_bytes),
        needed_bytes: bytes(option.space_needed_bytes),
        free_bytes: bytes(option.free_bytes),
        freed_bytes: bytes(option.freed_bytes),
        estimated: option.estimated,
    })
}

pub(super) fn marked(mark: &Mark) -> v1::MarkedVolume {
    v1::MarkedVolume {
        volume: Some(volume_ref(&mark.volume)),
        identity: mark.identity.to_string(),
    }
}

pub(super) fn chains(answer: v1::MergeServiceGetVolumeChainResponse) -> Result<VmChains, Status> {
    let state = vm_state(answer.state());
    let chains = answer.chains.into_iter().map(chain);
    let unsupported = answer.unsupported_disks.into_iter().map(unsupported);
    Ok(VmChains {
        state,
        chains: chains.collect::<Result<_, _>>()?,
        unsupported: unsupported.collect::<Result<_, _>>()?,
    })
}

fn unsupported(disk: v1::UnsupportedDisk) -> Result<UnsupportedDisk, Status> {
    Ok(UnsupportedDisk {
        disk: id(&disk.disk)?,
        why: disk.why,
        locators: disk.locators,
    })
}

fn chain(chain: v1::VolumeChain) -> Result<Chain, Status> {
    let layers = chain
        .layers
        .into_iter()
        .map(layer)
        .collect::<Result<_, _>>()?;
    Ok(Chain {
        disk: id(&chain.disk)?,
        layers,
        job_running: chain.job_running,
        libvirt_snapshots: chain.libvirt_snapshots,
        guest_discards: chain.guest_discards,
    })
}

fn layer(layer: v1::ChainLayer) -> Result<Layer, Status> {
    let format = match layer.format() {
        v1::VolumeFormat::Qcow2 => LayerFormat::Qcow2,
        v1::VolumeFormat::Raw => LayerFormat::Raw,
        v1::VolumeFormat::Unspecified => LayerFormat::Unknown,
    };
    let mark = match &layer.volume {
        Some(volume) => Some(Mark {
            volume: parse_volume(volume)?,
            identity: id(&layer.identity)?,
        }),
        None => None,
    };
    Ok(Layer {
        mark,
        format,
        virtual_bytes: bytes(layer.virtual_bytes),
        allocated_bytes: bytes(layer.allocated_bytes),
        locator: layer.locator,
        shared_with: layer.shared_with,
        encrypted: layer.encrypted,
        bitmaps: layer.dirty_bitmaps,
    })
}

/// Behind an endpoint that was given away another agent may answer: what it says is not this host's.
pub(super) fn report(
    host: &HostId,
    answer: v1::HostServiceGetHostResponse,
) -> Result<HostReport, Status> {
    let info = answer.host.unwrap_or_default();
    if info.host_id != host.as_str() {
        let text = format!("the agent at this endpoint is of host {:?}", info.host_id);
        return Err(Status::unavailable(text));
    }
    let storages = info.storages.iter().map(|storage| id(storage));
    Ok(HostReport {
        hypervisor_connected: info.hypervisor_connected,
        storages: storages.collect::<Result<_, _>>()?,
        vms: answer.vms.iter().map(vm).collect::<Result<_, _>>()?,
        damaged_journals: info.damaged_journals,
    })
}

pub(super) fn domain(storage: v1::Storage) -> Result<DomainSeen, Status> {
    Ok(DomainSeen {
        id: id(&storage.id)?,
        free_bytes: bytes(storage.free_bytes),
        total_bytes: bytes(storage.total_bytes),
        promised_bytes: bytes(storage.promised_bytes),
        thin: storage.thin,
        provided: storage.provided,
        keep_for: storage.keep_for.and_then(|time| time.try_into().ok()),
        wipe: storage.wipe,
        discard: storage.discard,
        foreign: storage.foreign,
        problem: storage.problem,
    })
}

pub(super) fn volume(volume: v1::Volume) -> Result<VolumeSeen, Status> {
    Ok(VolumeSeen {
        mark: mark(volume.volume.as_ref(), &volume.identity)?,
        locator: volume.locator,
        parent: Some(volume.parent_locator).filter(|parent| !parent.is_empty()),
        allocated_bytes: bytes(volume.allocated_bytes),
    })
}

/// What came of an order to remove a volume.
pub(super) fn removed(removal: &v1::Removal) -> Result<Removed, Status> {
    Ok(Removed {
        gone: removal.state() == v1::RemovalState::Gone,
        freed_bytes: bytes(removal.freed_bytes),
        kept_until: removal.keep_until.map(time).transpose()?,
        by: None,
    })
}

/// One of several removals that are ordered together.
pub(super) fn volume_removal(order: &RemovalOrder) -> v1::VolumeRemoval {
    v1::VolumeRemoval {
        request_id: order.id.to_string(),
        volume: Some(volume_ref(&order.volume.volume)),
        identity: order.volume.identity.to_string(),
    }
}

/// What came of several. An agent that takes one at a time has answered the first.
pub(super) fn removals(
    orders: &[RemovalOrder],
    answer: v1::RemoveVolumeResponse,
) -> Result<Removals, Status> {
    let ids = orders.iter().map(|order| order.id);
    if answer.outcomes.is_empty() {
        let first = removed(&answer.removal.unwrap_or_default())?;
        return Ok(ids.take(1).map(|id| (id, Ok(first.clone()))).collect());
    }
    if answer.outcomes.len() != orders.len() {
        return Err(nonsense("another number of removals than was ordered"));
    }
    let came = |outcome: v1::RemovalOutcome| match (outcome.removal, outcome.failure) {
        (Some(removal), None) => removed(&removal).map(Ok),
        (None, Some(failure)) => Ok(Err(meant(Failure::from(failure).into()))),
        _ => Err(nonsense(
            "a removal that neither came to something nor failed",
        )),
    };
    ids.zip(answer.outcomes)
        .map(|(id, outcome)| came(outcome).map(|came| (id, came)))
        .collect()
}

pub(super) fn removal(removal: &v1::Removal) -> Result<RemovalSeen, Status> {
    Ok(RemovalSeen {
        id: id(&removal.id)?,
        mark: mark(removal.volume.as_ref(), &removal.identity)?,
        condemned_at: removal.condemned_at.map(time).transpose()?,
        keep_until: removal.keep_until.map(time).transpose()?,
    })
}

fn mark(volume: Option<&v1::VolumeRef>, identity: &str) -> Result<Mark, Status> {
    let volume = volume.ok_or_else(|| nonsense("a volume without a name"))?;
    Ok(Mark {
        volume: parse_volume(volume)?,
        identity: id(identity)?,
    })
}

fn time(at: prost_types::Timestamp) -> Result<Timestamp, Status> {
    Timestamp::new(at.seconds, at.nanos).map_err(|error| nonsense(&error.to_string()))
}

/// A volume's name for the wire.
pub(crate) fn volume_ref(volume: &VolumeRef) -> v1::VolumeRef {
    v1::VolumeRef {
        storage: volume.storage.to_string(),
        name: volume.name.to_string(),
    }
}

fn parse_volume(volume: &v1::VolumeRef) -> Result<VolumeRef, Status> {
    Ok(VolumeRef {
        storage: id(&volume.storage)?,
        name: id(&volume.name)?,
    })
}

pub(super) fn id<T: FromStr<Err: Display>>(text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|error| nonsense(&format!("{text:?}: {error}")))
}

pub(super) fn bytes(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn nonsense(what: &str) -> Status {
    Status::internal(format!("the agent's answer cannot be understood: {what}"))
}
