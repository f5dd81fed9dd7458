//! Merges and observations for tests.

use super::room::Promise;
use super::step::{Machine, Observation, Peers};
use super::types::{
    Copied, Direction, Help, MergeKind, MergeOrder, MergeRecord, Phase, VolumeMark,
};
use crate::hypervisor::{
    BlockJob, BlockJobKind, DiskView, JobProgress, Layer, MirrorState, VmState,
};
use jiff::Timestamp;
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_storage::{Format, Locator, VolumeRef};
use std::time::Duration;
use uuid::Uuid;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).expect("in range")
}

pub(crate) fn locator(name: &str) -> Locator {
    Locator::File(format!("/images/{name}.qcow2").into())
}

fn mark(name: &str) -> VolumeMark {
    let volume = VolumeRef {
        storage: "default".parse().expect("an id"),
        name: format!("{name}.qcow2").parse().expect("a name"),
    };
    VolumeMark {
        volume,
        identity: format!("id-{name}").parse().expect("an identity"),
    }
}

/// A merge of `top` into `base` that was just accepted.
pub(crate) fn record(active: bool) -> MergeRecord {
    MergeRecord {
        order: MergeOrder {
            id: MergeId::from(Uuid::now_v7()),
            generation: 1,
            vm: VmId::from(Uuid::from_u128(7)),
            disk: "vda".parse().expect("a target"),
            direction: Direction::Commit,
            kept: mark("base"),
            removed: vec![mark("top")],
            together: vec![],
            bytes_per_second: 0,
            spare: None,
        },
        kind: if active {
            MergeKind::ActiveCommit
        } else {
            MergeKind::Commit
        },
        kept: locator("base"),
        removed: vec![locator("top")],
        below: None,
        relinked: None,
        backing_format: None,
        copy_bytes: 1 << 20,
        promise: Promise::default(),
        given_room: false,
        elsewhere: vec![],
        profile: None,
        copied: Copied::default(),
        bytes_per_second: 0,
        help: Help::default(),
        overlaid: false,
        phase: Phase::Pending,
        starts: 0,
        pivot_attempts: 0,
        longest_pause: Duration::ZERO,
        trace: None,
        accepted_at: now(),
        revision: 1,
    }
}

/// The merge that the QEMU of every sample has pulled for.
pub(crate) fn puller() -> MergeId {
    MergeId::from(Uuid::from_u128(9))
}

/// A disk with these layers, base first; it would start with the last one.
pub(crate) fn disk(layers: &[&str]) -> DiskView {
    let chain: Vec<Layer> = layers
        .iter()
        .map(|name| Layer {
            locator: locator(name),
            format: Some(Format::Qcow2),
        })
        .collect();
    DiskView {
        target: "vda".parse().expect("a target"),
        next_start: chain.last().map(|layer| layer.locator.clone()),
        chain,
        mirror: None,
        works_for: Some(puller()),
        unflushed: vec![],
        astray: vec![],
        discards: false,
    }
}

/// The mark of an active commit into `base`.
pub(crate) fn mirror(state: MirrorState) -> Option<BlockJob> {
    Some(BlockJob {
        kind: BlockJobKind::ActiveCommit,
        target: Some(locator("base")),
        state,
        switched: Some(false),
    })
}

pub(crate) fn job(kind: BlockJobKind, cur: u64, end: u64) -> Option<JobProgress> {
    Some(JobProgress { kind, cur, end })
}

/// What is seen of a machine.
pub(crate) fn seen(state: VmState, disk: DiskView, job: Option<JobProgress>) -> Observation {
    Observation {
        machine: Machine::Seen {
            state,
            disk: Some(Box::new(disk)),
            job,
        },
        lacks_room: false,
        told: None,
        told_for: Duration::ZERO,
        in_phase: Duration::ZERO,
        job_missing_for: Duration::ZERO,
        mark_alone_for: Duration::ZERO,
        of_no_kind_for: Duration::ZERO,
        stalled_for: Duration::ZERO,
        can_help: true,
        help_waits: false,
        inherited_help: false,
        overlaid: false,
        peers: Peers::NONE,
        fresh_start: false,
    }
}
