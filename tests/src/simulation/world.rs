//! Everything that a run consists of: a host with one machine, its storage, both services, the line
//! between them, a client and a guest.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use livemerge_api_server::hosts::{self, MergePhase, MergeSeen};
use livemerge_api_server::snapshot::MergeOptions;
use livemerge_host_agent::domains::Domain;
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace, RunningJob};
use livemerge_host_agent::hypervisor::{Hypervisor as _, VmState, VmView};
use livemerge_host_agent::merge::{MergeKind, MergeRecord, Phase};
use livemerge_host_agent::overlays::Overlays;
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::{DiskTarget, HostId, OperationId, RequestId, SnapshotId, VmId};
use livemerge_storage::{Locator, VolumeRef, VolumeStore as _};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::Steps;
use super::agent::{Agent, Process};
use super::client::Client;
use super::guest::Guest;
use super::network::{Network, Report};
use super::orders::Purging;
use super::server::Server;
use super::storage::StorageFaults;
use super::trace::{Trace, Traced};
use crate::cluster::FakeVolumes;

/// A run's whole state.
pub(super) struct World {
    /// Time since the start, the same for all; wall clocks differ.
    pub(super) now: Duration,
    pub(super) rng: ChaCha8Rng,
    pub(super) vm: VmId,
    pub(super) disks: Vec<DiskTarget>,
    pub(super) hypervisor: Arc<FakeHypervisor>,
    pub(super) storage: FakeVolumes,
    pub(super) storage_faults: Arc<StorageFaults>,
    pub(super) purging: Purging,
    pub(super) guest: Guest,
    /// Somebody else than the agent has stopped the guest's processors.
    pub(super) paused_by_operator: bool,
    /// The guest's writes are limited.
    pub(super) held_back: bool,
    /// Nobody starts the machine any more.
    pub(super) stays_off: bool,
    pub(super) network: Network,
    pub(super) server: Server,
    pub(super) agent: Agent,
    pub(super) client: Client,
    /// What each accepted request was answered with.
    pub(super) requests: Vec<(RequestId, OperationId)>,
    pub(super) trace: Trace,
    /// Counts the events that changed a machine, an image, the journal or the record.
    pub(super) changes: u64,
    /// The machine as it is, whoever can see it.
    pub(super) machine: VmView,
    /// The jobs that run, as they are.
    pub(super) jobs: Vec<(DiskTarget, RunningJob)>,
}

impl World {
    /// A machine of one or two disks that runs, and both services.
    pub(super) fn new(seed: u64, steps: Steps, traced: Traced) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let images = FakeImages::default();
        let storage_faults = Arc::new(StorageFaults::default());
        let storage = FakeVolumes::behind(images.clone(), Arc::clone(&storage_faults) as _);
        if rng.random_bool(0.5) {
            // So large that both ways are measured.
            storage.allocate(64 << 20);
        }
        let hypervisor = Arc::new(FakeHypervisor::new(images, Pace::Manual));
        let targets: &[&str] = if rng.random_bool(0.5) {
            &["vda"]
        } else {
            &["vda", "vdb"]
        };
        let vm = VmId::from(Uuid::from_u128(1));
        let bases: Vec<[Locator; 1]> = targets
            .iter()
            .map(|target| [storage.add_base(&format!("base-{target}.qcow2"))])
            .collect();
        let disks: Vec<(&str, &[Locator])> = targets
            .iter()
            .zip(&bases)
            .map(|(target, base)| (*target, base.as_slice()))
            .collect();
        hypervisor.add_vm(vm, "vm", &disks);
        let machine = hypervisor.peek(vm).expect("it was just defined");
        let mut world = Self {
            now: Duration::ZERO,
            rng,
            vm,
            disks: targets.iter().map(|disk| target(disk)).collect(),
            hypervisor,
            storage,
            storage_faults,
            purging: Purging::new(),
            guest: Guest::default(),
            paused_by_operator: false,
            held_back: false,
            stays_off: false,
            network: Network::new(),
            server: Server::new(steps.operation, steps.sorts_by_id),
            agent: Agent::new(steps.merge, steps.takes_late),
            client: Client::default(),
            requests: Vec::new(),
            trace: Trace::new(traced),
            changes: 0,
            machine,
            jobs: Vec::new(),
        };
        world.start_server();
        world.start_agent();
        world
    }

    pub(super) fn start_server(&mut self) {
        let host: HostId = "host-1".parse().expect("an id");
        self.server.start(host, self.now);
    }

    pub(super) fn start_agent(&mut self) {
        let hypervisor = Arc::clone(&self.hypervisor);
        let domains = vec![Domain::plain(Arc::new(self.storage.clone()))];
        let volumes = Arc::new(Volumes::new(domains, hypervisor.clone()));
        let process = Process {
            overlays: Overlays::new(
                hypervisor.clone(),
                Arc::clone(&volumes),
                Arc::clone(&self.agent.latest),
            ),
            hypervisor,
            volumes,
            orders: Vec::new(),
            drivers: Vec::new(),
        };
        self.agent.start(process, self.now);
    }

    pub(super) fn crash_server(&mut self) {
        self.server.process = None;
        self.network.break_stream();
    }

    pub(super) fn crash_agent(&mut self) {
        self.agent.process = None;
        self.hypervisor.lose_offline_jobs();
        self.network.break_stream();
    }

    /// Something has changed: it is looked at anew.
    pub(super) fn refresh(&mut self) {
        self.changes += 1;
        let machine = self.hypervisor.peek(self.vm);
        self.machine = machine.expect("the machine stays defined");
        let jobs = self.disks.iter().filter_map(|disk| {
            let job = self.hypervisor.running_job(self.vm, disk)?;
            Some((disk.clone(), job))
        });
        self.jobs = jobs.collect();
        let limited = |disk: &DiskTarget| self.hypervisor.limited_to(self.vm, disk) > 0;
        self.held_back = self.disks.iter().any(limited);
    }

    /// The job that runs on a disk.
    pub(super) fn job(&self, disk: &DiskTarget) -> Option<&RunningJob> {
        let job = self.jobs.iter().find(|(on, _)| on == disk);
        job.map(|(_, job)| job)
    }

    pub(super) fn runs(&self) -> bool {
        self.machine.state == VmState::Running
    }

    /// Whether the agent has stopped the guest, or may be about to, for a pivot.
    pub(super) fn pivots(&self) -> bool {
        let within = |record: &MergeRecord| {
            matches!(
                record.phase,
                Phase::Pivoting { .. } | Phase::Verifying { .. }
            )
        };
        self.agent.journal.values().any(within)
    }

    /// Whether a pull has taken layers from the chain, and the guest has not stood still since.
    pub(super) fn pull_has_ended(&self) -> bool {
        let mut records = self.agent.journal.values();
        records.any(|record| {
            let open = matches!(record.phase, Phase::Copying { .. } | Phase::Pivoting { .. });
            record.kind == MergeKind::Pull && open && self.job(&record.order.disk).is_none()
        })
    }

    /// Whether QEMU has died after a pull or a commit below another layer, and the agent has not yet made
    /// the layer above name the copied ones again. A start now would read what the agent then says is not
    /// whole.
    pub(super) fn has_to_restore(&self) -> bool {
        let next = |disk: &DiskTarget| self.machine.disk(disk)?.next_start.clone();
        let lacks = |record: &MergeRecord| {
            let chain = next(&record.order.disk).and_then(|it| self.hypervisor.images().chain(&it));
            let chain = chain.unwrap_or_default();
            !record.removed.iter().any(|layer| chain.contains(layer))
        };
        let open = self.agent.journal.values().filter(|record| {
            let safe = matches!(record.phase, Phase::Pending | Phase::Verifying { .. });
            record.relinked.is_some() && !record.phase.ended() && !safe
        });
        self.machine.state == VmState::ShutOff && open.into_iter().any(lacks)
    }

    /// What the host would show now.
    pub(super) fn report(&self) -> Report {
        let state = self
            .hypervisor
            .connected()
            .then_some(match self.machine.state {
                VmState::Running => hosts::VmState::Running,
                VmState::Paused => hosts::VmState::Paused,
                VmState::ShutOff => hosts::VmState::ShutOff,
            });
        let earlier = self.network.last_report.as_ref().and_then(|last| last.vm);
        let merges = self.agent.journal.values();
        Report {
            vm: state.or(earlier),
            merges: merges
                .map(|record| (record.order.id, seen(record)))
                .collect(),
        }
    }

    /// Where a volume lies; `None` when it is gone.
    pub(super) fn locate(&self, volume: &VolumeRef) -> Option<Locator> {
        let found = self.storage.stat(&volume.name).now_or_never();
        let found = found.expect("the simulated storage answers at once");
        found.ok().map(|info| info.locator)
    }

    /// A client asks for a snapshot.
    pub(super) fn ask_create(&mut self) -> Option<OperationId> {
        let request = self.client.next_request();
        let accepted = self.server.create(request, self.vm, self.now);
        self.requests.extend(accepted.map(|id| (request, id)));
        accepted
    }

    /// A client asks for the deletion of snapshots.
    pub(super) fn ask_delete(
        &mut self,
        snapshots: &[SnapshotId],
        options: MergeOptions,
    ) -> Option<OperationId> {
        let request = self.client.next_request();
        let accepted = self.server.delete(request, snapshots, options, self.now);
        self.requests.extend(accepted.map(|id| (request, id)));
        accepted
    }
}

fn target(name: &str) -> DiskTarget {
    name.parse().expect("a disk's target name")
}

fn seen(record: &MergeRecord) -> MergeSeen {
    let phase = match &record.phase {
        Phase::Pending => MergePhase::Pending,
        Phase::Copying { .. } => MergePhase::Copying,
        Phase::Ready { .. } => MergePhase::Ready,
        Phase::Pivoting { .. } => MergePhase::Pivoting,
        Phase::Verifying { .. } => MergePhase::Verifying,
        Phase::Overlaying { .. } => MergePhase::Overlaying,
        Phase::Cancelling { .. } | Phase::Restoring { .. } => MergePhase::Cancelling,
        Phase::Cancelled { .. } => MergePhase::Cancelled,
        Phase::Merged { .. } => MergePhase::Merged,
        Phase::Failed { failure, .. } => MergePhase::Failed(failure.clone()),
    };
    MergeSeen {
        phase,
        done_bytes: 0,
        total_bytes: record.copy_bytes,
        pivot_attempts: record.pivot_attempts,
        longest_pause: record.longest_pause,
        copy_time: record.copied.took,
        bytes_per_second: record.bytes_per_second,
        limit_lifted: record.help.unlimited,
        guest_bytes_per_second: record.help.throttle.map_or(0, |it| it.bytes_per_second),
        waiting: None,
        overlaid: record.overlaid,
        revision: record.revision,
    }
}
