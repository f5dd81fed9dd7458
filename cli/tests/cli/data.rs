//! A small site: two hosts, three machines (two of one name), snapshots, chains, operations.

mod plan;
mod storage;

pub(crate) use plan::{blocked, plan};

use crate::server::Script;
use livemerge_proto::v1;
use prost_types::{Duration, Timestamp};

pub(crate) const WEB: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const DB: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const OTHER_DB: &str = "33333333-3333-4333-8333-333333333333";
pub(crate) const DAILY: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(crate) const WEEKLY: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
pub(crate) const DB_DAILY: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";
pub(crate) const RUNNING: &str = "dddddddd-dddd-4ddd-8ddd-dddddddddddd";
pub(crate) const FAILED: &str = "eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee";
pub(crate) const DONE: &str = "ffffffff-ffff-4fff-8fff-ffffffffffff";
pub(crate) const STUCK: &str = "0000000000000001-00000000000000aa";
pub(crate) const LEAKED: &str = "0000000000000002-00000000000000bb";
pub(crate) const KEPT: &str = "44444444-4444-4444-8444-444444444444";
pub(crate) const FREED: &str = "55555555-5555-4555-8555-555555555555";
/// Not in the site.
pub(crate) const NOWHERE: &str = "99999999-9999-4999-8999-999999999999";

const GIB: i64 = 1 << 30;
const MIB: i64 = 1 << 20;

/// Noon of the site's day, and so many seconds later.
pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_767_268_800 + seconds,
        nanos: 250_000_000,
    })
}

pub(crate) fn site() -> Script {
    Script {
        hosts: hosts(),
        vms: vms(),
        snapshots: snapshots(),
        chains: vec![chain("vda"), chain("vdb")],
        operations: vec![merging(), failed(), done()],
        events: events(),
        findings: findings(),
        removals: storage::removals(),
        storages: storage::storages(),
        repaired: v1::ApplyRepairResponse {
            outcome: v1::RepairOutcome::Done.into(),
            operation: None,
            freed_bytes: 3 * MIB,
        },
        plan: plan(),
        accepted: Some(queued()),
        ..Default::default()
    }
}

fn hosts() -> Vec<v1::Host> {
    let host = |id: &str, status: v1::HostStatus| v1::Host {
        id: id.into(),
        endpoint: format!("http://{id}:7421"),
        status: status.into(),
        generation: 7,
        version: "0.1.0".into(),
        last_seen_at: at(0),
        hypervisor_connected: status == v1::HostStatus::Up,
        maintenance: false,
        api_version: 1,
    };
    let never_seen = v1::Host {
        id: "host-3".into(),
        ..Default::default()
    };
    let (up, silent) = (v1::HostStatus::Up, v1::HostStatus::Unresponsive);
    vec![host("host-1", up), host("host-2", silent), never_seen]
}

fn vms() -> Vec<v1::Vm> {
    let vm = |id: &str, name: &str, host: &str, state: v1::VmState| v1::Vm {
        id: id.into(),
        name: name.into(),
        host_id: host.into(),
        state: state.into(),
        disks: vec![disk("vda"), disk("vdb")],
        observed_at: at(0),
        still_frozen: false,
    };
    vec![
        vm(WEB, "web", "host-1", v1::VmState::Running),
        vm(DB, "db", "host-1", v1::VmState::ShutOff),
        v1::Vm {
            disks: Vec::new(),
            ..vm(OTHER_DB, "db", "host-2", v1::VmState::Unknown)
        },
    ]
}

fn disk(target: &str) -> v1::VmDisk {
    let active = volume(&format!("web-{target}-2"));
    let locator = format!("/images/web-{target}-2");
    v1::VmDisk {
        target: target.into(),
        active: Some(active),
        locator,
    }
}

fn volume(name: &str) -> v1::VolumeRef {
    v1::VolumeRef {
        storage: "images".into(),
        name: name.into(),
    }
}

fn snapshots() -> Vec<v1::Snapshot> {
    let snapshot = |id: &str, vm: &str, name: &str, layer: usize| v1::Snapshot {
        id: id.into(),
        vm_id: vm.into(),
        name: name.into(),
        description: "before the upgrade".into(),
        state: v1::SnapshotState::Ready.into(),
        disks: ["vda", "vdb"].map(|disk| frozen(disk, layer)).into(),
        created_at: at(0),
        etag: "3".into(),
        origin: v1::SnapshotOrigin::Requested.into(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        deletion_protected: false,
        consistency: v1::SnapshotConsistency::Frozen.into(),
    };
    let deleting = v1::SnapshotState::Deleting.into();
    vec![
        snapshot(DAILY, WEB, "daily", 0),
        v1::Snapshot {
            state: deleting,
            ..snapshot(WEEKLY, WEB, "weekly", 1)
        },
        v1::Snapshot {
            disks: Vec::new(),
            consistency: v1::SnapshotConsistency::Unspecified.into(),
            ..snapshot(DB_DAILY, DB, "daily", 0)
        },
    ]
}

fn frozen(disk: &str, layer: usize) -> v1::SnapshotDisk {
    v1::SnapshotDisk {
        disk: disk.into(),
        volume: Some(volume(&format!("web-{disk}-{layer}"))),
    }
}

/// Base, one more, the active layer.
fn chain(disk: &str) -> v1::VolumeChain {
    let layer = |index: i64| {
        let name = format!("web-{disk}-{index}");
        v1::ChainLayer {
            locator: format!("/images/{name}"),
            identity: format!("mark-{index}"),
            format: v1::VolumeFormat::Qcow2.into(),
            virtual_bytes: 10 * GIB,
            allocated_bytes: [3 * GIB / 2, 64 * MIB, 0][usize::try_from(index).unwrap()],
            volume: Some(volume(&name)),
            ..v1::ChainLayer::default()
        }
    };
    let mut layers: Vec<_> = (0..3).map(layer).collect();
    if disk == "vdb" {
        layers[0].format = v1::VolumeFormat::Raw.into();
        layers[0].volume = None;
        layers[0].shared_with = vec!["/images/clone".into()];
    }
    let job_running = disk == "vda";
    v1::VolumeChain {
        vm_id: WEB.into(),
        disk: disk.into(),
        layers,
        observed_at: at(0),
        job_running,
        libvirt_snapshots: Vec::new(),
        guest_discards: disk == "vda",
    }
}

fn operation(id: &str, state: v1::OperationState) -> v1::Operation {
    v1::Operation {
        id: id.into(),
        kind: v1::OperationKind::DeleteSnapshot.into(),
        state: state.into(),
        vm_id: WEB.into(),
        snapshot_id: WEEKLY.into(),
        snapshot_name: "weekly".into(),
        request_id: NOWHERE.into(),
        requested_by: "127.0.0.1:50000".into(),
        created_at: at(1),
        revision: 4,
        ..Default::default()
    }
}

pub(crate) fn queued() -> v1::Operation {
    operation(RUNNING, v1::OperationState::Queued)
}

/// One disk of two is half copied.
pub(crate) fn merging() -> v1::Operation {
    let copying = v1::DiskProgress {
        disk: "vda".into(),
        kind: v1::MergeKind::IntermediateCommit.into(),
        phase: v1::MergePhase::Copying.into(),
        kept: Some(volume("web-vda-0")),
        removed: vec![volume("web-vda-1")],
        planned_bytes: 60 * MIB,
        done_bytes: 32 * MIB,
        total_bytes: 64 * MIB,
        bytes_per_second: 8 * MIB,
        time_left: Some(Duration {
            seconds: 4,
            nanos: 0,
        }),
        ..Default::default()
    };
    v1::Operation {
        phase: v1::OperationPhase::Merging.into(),
        disks: vec![
            copying,
            v1::DiskProgress {
                disk: "vdb".into(),
                ..Default::default()
            },
        ],
        started_at: at(2),
        ..operation(RUNNING, v1::OperationState::Running)
    }
}

/// The host is away for a while.
pub(crate) fn waiting() -> v1::Operation {
    let waiting = v1::Waiting {
        reason: "HOST_UNREACHABLE".into(),
        message: "the host does not answer".into(),
        next_try_at: at(9),
        attempts: 2,
        queue_position: 0,
    };
    v1::Operation {
        waiting: Some(waiting),
        ..merging()
    }
}

/// What [`merging`] comes to.
pub(crate) fn merged() -> v1::Operation {
    let mut disks = merging().disks;
    for disk in &mut disks {
        disk.phase = v1::MergePhase::Removed.into();
        disk.done_bytes = disk.total_bytes;
        disk.freed_bytes = disk.total_bytes;
        disk.bytes_per_second = 0;
        disk.time_left = None;
    }
    let state = v1::OperationState::Succeeded;
    v1::Operation {
        disks,
        started_at: at(2),
        ended_at: at(9),
        ..operation(RUNNING, state)
    }
}

/// One disk was done by then, the others were given up. Three snapshots went together, of which
/// one is in nobody's list any more.
pub(crate) fn cancelled() -> v1::Operation {
    let merge = |disk: &str, phase: v1::MergePhase| v1::DiskProgress {
        disk: disk.into(),
        kind: v1::MergeKind::ActiveCommit.into(),
        phase: phase.into(),
        kept: Some(volume(&format!("web-{disk}-0"))),
        removed: [1, 2].map(|n| volume(&format!("web-{disk}-{n}"))).into(),
        planned_bytes: 64 * MIB,
        ..Default::default()
    };
    let failure = v1::Failure {
        reason: "MERGE_IO_ERROR".into(),
        message: "the job is gone".into(),
        ..Default::default()
    };
    v1::Operation {
        snapshot_id: DAILY.into(),
        snapshot_name: "daily".into(),
        snapshot_ids: [DAILY, WEEKLY, NOWHERE].map(String::from).into(),
        bytes_per_second: 50 * MIB,
        cancel_requested: true,
        disks: vec![
            merge("vda", v1::MergePhase::Cancelled),
            v1::DiskProgress {
                failure: Some(failure),
                ..merge("vdb", v1::MergePhase::Failed)
            },
            v1::DiskProgress {
                round: 1,
                ..merge("vda", v1::MergePhase::Pending)
            },
        ],
        started_at: at(2),
        ended_at: at(9),
        ..operation(RUNNING, v1::OperationState::Cancelled)
    }
}

/// What the snapshots of [`cancelled`] came to.
pub(crate) fn left() -> Vec<v1::Snapshot> {
    let mut left = snapshots();
    left[1].state = v1::SnapshotState::Incomplete.into();
    left
}

pub(crate) fn failed() -> v1::Operation {
    let failure = v1::Failure {
        reason: "VM_DIED".into(),
        message: "the machine stopped".into(),
        metadata: [("vm".to_owned(), WEB.to_owned())].into(),
    };
    let (failure, ended_at) = (Some(failure), at(5));
    let state = v1::OperationState::Failed;
    v1::Operation {
        failure,
        started_at: at(2),
        ended_at,
        ..operation(FAILED, state)
    }
}

pub(crate) fn done() -> v1::Operation {
    let state = v1::OperationState::Succeeded;
    let kind = v1::OperationKind::CreateSnapshot.into();
    v1::Operation {
        kind,
        vm_id: DB.into(),
        ended_at: at(3),
        ..operation(DONE, state)
    }
}

/// One of each severity.
fn findings() -> Vec<v1::Finding> {
    let stuck = v1::Finding {
        id: STUCK.into(),
        kind: v1::FindingKind::SnapshotStuck.into(),
        severity: v1::FindingSeverity::Error.into(),
        host_ids: vec!["host-1".into()],
        vm_id: WEB.into(),
        snapshot_id: WEEKLY.into(),
        message: "snapshot weekly is being deleted, but no operation works on it".into(),
        details: [("snapshot".to_owned(), "weekly".to_owned())].into(),
        repair: v1::Repair::MarkIncomplete.into(),
        ..Default::default()
    };
    let leaked = v1::Finding {
        id: LEAKED.into(),
        kind: v1::FindingKind::LeakedVolume.into(),
        severity: v1::FindingSeverity::Warning.into(),
        host_ids: vec!["host-1".into(), "host-2".into()],
        vm_id: DB.into(),
        volume: Some(volume("left-over.qcow2")),
        message: "nothing refers to images/left-over.qcow2".into(),
        no_repair: "no operation of the record says what it holds".into(),
        ..Default::default()
    };
    let moving = v1::Finding {
        id: "0000000000000003-0000000000000000".into(),
        kind: v1::FindingKind::Unknown.into(),
        severity: v1::FindingSeverity::Info.into(),
        host_ids: vec!["host-2".into()],
        message: "a block job\u{1b}[31m runs".into(),
        ..Default::default()
    };
    vec![stuck, leaked, moving]
}

fn events() -> Vec<v1::Event> {
    let up = v1::Event {
        revision: 1,
        r#type: v1::EventType::HostUp.into(),
        severity: v1::EventSeverity::Info.into(),
        occurred_at: at(0),
        host_id: "host-1".into(),
        message: "host-1 answers".into(),
        ..Default::default()
    };
    let deletion = |revision: i64, r#type: v1::EventType, severity: v1::EventSeverity| v1::Event {
        revision,
        r#type: r#type.into(),
        severity: severity.into(),
        occurred_at: at(revision),
        vm_id: WEB.into(),
        snapshot_id: WEEKLY.into(),
        operation_id: FAILED.into(),
        actor: "127.0.0.1:50000".into(),
        message: "weekly".into(),
        details: [("reason", "VM_DIED"), ("disk", "vda")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Default::default()
    };
    use v1::{EventSeverity as Severity, EventType as Type};
    vec![
        up,
        deletion(2, Type::SnapshotDeleteRequested, Severity::Info),
        deletion(3, Type::SnapshotDeleteFailed, Severity::Error),
    ]
}
