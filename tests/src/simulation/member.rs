//! One merge of a driver: what the agent's process knows of it beside its record.

use std::time::Duration;

use livemerge_host_agent::hypervisor::{
    Hypervisor, HypervisorEvent, VmState, VmView, fake::FakeHypervisor,
};
use livemerge_host_agent::merge::step::{Machine, Observation, Peers, Told};
use livemerge_host_agent::merge::{MergeRecord, Phase};
use livemerge_proto::ids::MergeId;

use super::agent::answered;

/// A member of a driver.
pub(super) struct Member {
    pub(super) merge: MergeId,
    pub(super) told: Option<Told>,
    phase_entered: Duration,
    job_missing_since: Option<Duration>,
    /// The least that was ever left to copy, and since when.
    pub(super) closest: Option<(u64, Duration)>,
    pub(super) no_help_until: Option<Duration>,
    pub(super) inherited_help: bool,
    pub(super) fresh_start: bool,
    /// The guest was let run, and that is not written down.
    pub(super) let_run: bool,
}

impl Member {
    pub(super) fn new(merge: MergeId, now: Duration) -> Self {
        Self {
            merge,
            told: None,
            phase_entered: now,
            job_missing_since: None,
            closest: None,
            no_help_until: None,
            inherited_help: true,
            fresh_start: true,
            let_run: false,
        }
    }

    /// Whether the guest may stand still for it.
    pub(super) fn within_window(record: &MergeRecord) -> bool {
        matches!(
            record.phase,
            Phase::Pivoting { .. } | Phase::Verifying { .. }
        )
    }

    /// True when the event is worth a look.
    pub(super) fn note(&mut self, record: &MergeRecord, event: &HypervisorEvent) -> bool {
        match event {
            HypervisorEvent::BlockJob { disk, outcome, .. } if *disk == record.order.disk => {
                let told = self.told.as_ref();
                if told.is_none_or(|told| told.gives_way_to(*outcome)) {
                    self.told = Some(Told::Job(*outcome));
                }
                true
            }
            HypervisorEvent::Lifecycle { .. } | HypervisorEvent::Connected => true,
            HypervisorEvent::BlockJob { .. }
            | HypervisorEvent::Filling { .. }
            | HypervisorEvent::Disconnected => false,
        }
    }

    /// What the decision is made from. Of a machine that could not be looked at, nothing.
    pub(super) fn observe(
        &mut self,
        record: &MergeRecord,
        vm: Option<VmView>,
        hypervisor: &FakeHypervisor,
        peers: Peers,
        now: Duration,
    ) -> Observation {
        let lacks_room = vm.as_ref().is_some_and(|vm| vm.lacks_room);
        let machine = vm.and_then(|vm| look_at_disk(record, &vm, hypervisor));
        let machine = machine.unwrap_or(Machine::Unknown);
        let job_there = match &machine {
            Machine::Seen { job, disk, .. } => {
                job.is_some() || disk.as_ref().is_some_and(|disk| disk.mirror.is_some())
            }
            Machine::Unknown | Machine::Gone => true,
        };
        let missing_since = (!job_there).then(|| self.job_missing_since.unwrap_or(now));
        self.job_missing_since = missing_since;
        let stalled_for = self.stalled_for(&machine, now);
        Observation {
            machine,
            lacks_room,
            told: self.told.clone(),
            told_for: Duration::ZERO,
            in_phase: now - self.phase_entered,
            job_missing_for: missing_since.map_or(Duration::ZERO, |since| now - since),
            mark_alone_for: Duration::ZERO,
            of_no_kind_for: Duration::ZERO,
            stalled_for,
            can_help: true,
            help_waits: self.help_waits(now),
            inherited_help: self.inherited_help,
            overlaid: false,
            peers,
            fresh_start: self.fresh_start,
        }
    }

    fn stalled_for(&mut self, machine: &Machine, now: Duration) -> Duration {
        let Machine::Seen { job: Some(job), .. } = machine else {
            self.closest = None;
            return Duration::ZERO;
        };
        let left = job.end.saturating_sub(job.cur);
        let closest = self.closest.filter(|(least, _)| left >= *least);
        let (_, since) = *self.closest.insert(closest.unwrap_or((left, now)));
        now - since
    }

    fn help_waits(&self, now: Duration) -> bool {
        self.no_help_until.is_some_and(|until| now < until)
    }

    /// Its phase was written down.
    pub(super) fn entered(&mut self, starts: bool, now: Duration) {
        if starts {
            // Before that no job was expected.
            self.job_missing_since = None;
        }
        self.phase_entered = now;
        self.told = None;
        self.fresh_start = false;
        self.let_run = false;
    }
}

fn look_at_disk(record: &MergeRecord, vm: &VmView, hypervisor: &FakeHypervisor) -> Option<Machine> {
    let order = &record.order;
    let disk = vm.disk(&order.disk).cloned();
    let job = match (vm.state, &disk) {
        (_, None) => None,
        (VmState::ShutOff, _) if !record.offline() => None,
        _ => answered(hypervisor.job(order.vm, &order.disk)).ok()?,
    };
    Some(Machine::Seen {
        state: vm.state,
        disk: disk.map(Box::new),
        job,
    })
}
