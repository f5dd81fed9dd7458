//! The comparison: a world in which nothing differs, then one difference at a time.
//!
//! ```text
//!   vm 1 on host-1, vda:  base.qcow2 ◀── (A).qcow2 ◀── (B).qcow2, which the guest writes
//!                            │              │
//!                         snapshot 1     snapshot 2
//! ```

mod properties;
mod repairs;
mod table;
mod volumes;

use super::{Finding, HostSeen, Kind, Record, Remedy, Seen, StorageSeen, VmLook, compare};
use crate::hosts::{Chain, Layer, LayerFormat, RemovalSeen, UnsupportedDisk, VmState, VolumeSeen};
use crate::snapshot::{
    CreatePhase, DeletePhase, Deleted, DiskState, DiskTask, Leaving, Mark, MergeKind, Merging,
    NewOverlay, Operation, OperationState, Severity, Snapshot, SnapshotDisk, SnapshotState, Work,
};
use crate::store::conformance::records::{at, id, operation, snapshot};
use livemerge_proto::ids::{HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, VolumeRef};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

pub(super) const HOST: &str = "host-1";
const ROOT: &str = "/images";

/// What both sides say.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) record: Record,
    pub(super) seen: Seen,
}

pub(super) fn host_id() -> HostId {
    HOST.parse().unwrap()
}

/// The name of an overlay of ours.
pub(super) fn ours(number: u128) -> String {
    format!("{}.qcow2", Uuid::from_u128(number))
}

pub(super) fn volume(name: &str) -> VolumeRef {
    VolumeRef {
        storage: "default".parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

pub(super) fn mark(name: &str) -> Mark {
    Mark {
        volume: volume(name),
        identity: format!("of-{name}").parse().unwrap(),
    }
}

pub(super) fn locator(name: &str) -> String {
    format!("{ROOT}/{name}")
}

pub(super) fn listed(name: &str, parent: Option<&str>) -> VolumeSeen {
    VolumeSeen {
        mark: mark(name),
        locator: locator(name),
        parent: parent.map(locator),
        allocated_bytes: 1,
    }
}

pub(super) fn layer(name: &str) -> Layer {
    Layer {
        mark: Some(mark(name)),
        locator: locator(name),
        format: LayerFormat::Qcow2,
        virtual_bytes: 1,
        allocated_bytes: 1,
        shared_with: vec![],
        encrypted: false,
        bitmaps: vec![],
    }
}

pub(super) fn chain(disk: &str, names: &[&str]) -> Chain {
    Chain {
        disk: disk.parse().unwrap(),
        layers: names.iter().map(|name| layer(name)).collect(),
        job_running: false,
        libvirt_snapshots: vec![],
        guest_discards: false,
    }
}

pub(super) fn frozen(number: u64, name: &str) -> Snapshot {
    let disk = SnapshotDisk {
        disk: "vda".parse().unwrap(),
        volume: volume(name),
        merging: None,
    };
    Snapshot {
        was_incomplete: false,
        state: SnapshotState::Ready,
        disks: vec![disk],
        revision: 3,
        ..snapshot(number, 1, &format!("s{number}"))
    }
}

pub(super) fn silent() -> Problem {
    Problem::new(Reason::HostUnreachable, "it does not answer")
}

/// A create that failed before its overlay was put on.
pub(super) fn failed_create(number: u64, vm: u64, overlay: &str) -> Operation {
    let overlay = NewOverlay {
        disk: "vda".parse().unwrap(),
        below: volume("base.qcow2"),
        overlay: volume(overlay),
    };
    Operation {
        state: OperationState::Failed(Problem::new(Reason::VmNotRunning, "off").into()),
        work: Work::Create(CreatePhase::Overlaying(vec![overlay])),
        ..operation(number, vm)
    }
}

/// An operation that deletes snapshot 1, at this task.
pub(super) fn deleting(number: u64, task: DiskTask) -> Operation {
    Operation {
        snapshot: id(1),
        state: OperationState::Running,
        work: Work::Delete(DeletePhase::Disks(vec![task])),
        ..operation(number, 1)
    }
}

/// A commit of one layer into another.
pub(super) fn task(kept: &str, removed: &str, state: DiskState) -> DiskTask {
    let leaving = Leaving {
        volume: mark(removed),
        removal: id::<RemovalId>(2),
    };
    let deleted = Deleted {
        snapshot: id(1),
        earlier: None,
    };
    DiskTask {
        disk: "vda".parse().unwrap(),
        round: 0,
        kind: MergeKind::Commit,
        kept: mark(kept),
        removed: vec![leaving],
        deletes: vec![deleted],
        merge: id::<MergeId>(1),
        planned_bytes: 0,
        foreseen: Default::default(),
        state,
        told: Default::default(),
    }
}

pub(super) fn merging(kept: &str, removed: &[&str]) -> Merging {
    Merging {
        kept: mark(kept),
        removed: removed.iter().map(|name| mark(name)).collect(),
        chain_tells: true,
    }
}

pub(super) fn removed() -> DiskState {
    DiskState::Removed {
        copied_bytes: 0,
        longest_pause: Duration::ZERO,
        freed_bytes: 0,
        copy_time: Duration::ZERO,
    }
}

pub(super) fn removal(number: u64, name: &str) -> RemovalSeen {
    RemovalSeen {
        id: id(number),
        mark: mark(name),
        condemned_at: None,
        keep_until: None,
    }
}

#[track_caller]
pub(super) fn nothing(remedy: &Remedy, why: &str) {
    assert!(
        matches!(remedy, Remedy::Nothing(text) if text.contains(why)),
        "{remedy:?}"
    );
}

impl World {
    /// Nothing differs.
    pub(super) fn sound() -> Self {
        let (a, b) = (ours(0xa), ours(0xb));
        let volumes = vec![
            listed("base.qcow2", None),
            listed(&a, Some("base.qcow2")),
            listed(&b, Some(&a)),
            listed("template.qcow2", None),
        ];
        let storage = StorageSeen {
            volumes: Ok(volumes),
            removals: Ok(vec![]),
        };
        let look = VmLook {
            name: "vm".to_owned(),
            state: VmState::Running,
            active: vec![locator(&b)],
            chains: Ok(vec![chain("vda", &["base.qcow2", &a, &b])]),
            unsupported: vec![],
        };
        let host = HostSeen {
            vms: BTreeMap::from([(id(1), look)]),
            storages: BTreeMap::from([("default".parse().unwrap(), storage)]),
            journals: vec![],
        };
        Self {
            record: Record {
                snapshots: vec![frozen(1, "base.qcow2"), frozen(2, &a)],
                ..Record::default()
            },
            seen: Seen {
                at: at(10_000),
                hosts: BTreeMap::from([(host_id(), Ok(host))]),
            },
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        compare(&self.record, &self.seen)
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.findings().iter().map(|finding| finding.kind).collect()
    }

    /// The only finding.
    #[track_caller]
    pub(super) fn finding(&self) -> Finding {
        let [finding] = <[Finding; 1]>::try_from(self.findings()).unwrap();
        finding
    }

    pub(super) fn host(&mut self) -> &mut HostSeen {
        self.seen
            .hosts
            .get_mut(&host_id())
            .unwrap()
            .as_mut()
            .unwrap()
    }

    pub(super) fn storage(&mut self) -> &mut StorageSeen {
        self.host().storages.values_mut().next().unwrap()
    }

    pub(super) fn volumes(&mut self) -> &mut Vec<VolumeSeen> {
        self.storage().volumes.as_mut().unwrap()
    }

    pub(super) fn removals(&mut self) -> &mut Vec<RemovalSeen> {
        self.storage().removals.as_mut().unwrap()
    }

    pub(super) fn vm(&mut self) -> &mut VmLook {
        self.host().vms.get_mut(&id::<VmId>(1)).unwrap()
    }

    pub(super) fn chain(&mut self) -> &mut Chain {
        &mut self.vm().chains.as_mut().unwrap()[0]
    }

    /// Another host, which sees nothing or does not answer.
    pub(super) fn add_host(&mut self, name: &str, seen: Result<HostSeen, Problem>) {
        self.seen.hosts.insert(name.parse().unwrap(), seen);
    }
}
