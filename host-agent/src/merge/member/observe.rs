//! What a merge's decisions are made from.

use super::super::again::is_over;
use super::super::progress;
use super::super::step::{Machine, Observation, Peers};
use super::Member;
use crate::hypervisor::{BlockJobKind, HypervisorError, VmState};
use std::time::Instant;

impl Member {
    pub(super) async fn look(&mut self, peers: Peers) -> Observation {
        let (machine, lacks_room) = self.machine().await.unwrap_or_else(|error| {
            tracing::warn!(merge = %self.record.order.id, %error, "cannot look at the machine");
            (Machine::Unknown, false)
        });
        let (missing, alone) = match &machine {
            Machine::Seen { job, disk, .. } => {
                let marked = disk.as_ref().is_some_and(|disk| disk.mirror.is_some());
                (job.is_none() && !marked, job.is_none() && marked)
            }
            Machine::Unknown | Machine::Gone => (false, false),
        };
        let of_no_kind = is_of_no_kind(&machine);
        let since =
            |is: bool, began: Option<Instant>| is.then(|| began.unwrap_or_else(Instant::now));
        self.job_missing_since = since(missing, self.job_missing_since);
        self.mark_alone_since = since(alone, self.mark_alone_since);
        self.of_no_kind_since = since(of_no_kind, self.of_no_kind_since);
        let lasts = |since: Option<Instant>| since.map(|since| since.elapsed()).unwrap_or_default();
        if matches!(&machine, Machine::Seen { job: Some(_), .. }) {
            self.told = self.told.take().filter(|told| !is_over(told, &self.record));
        }
        self.report(&machine);
        let stalled_for = self.stalled_for(&machine);
        self.overlaid = self
            .overlaid
            .take()
            .or_else(|| self.sees_the_spare(&machine));
        self.surely_not_overlaid = self.writes_the_old_top(&machine);
        self.off_without_spare = self.would_write_the_old_top(&machine);
        Observation {
            machine,
            lacks_room,
            told: self.told.clone(),
            told_for: self.told_at.elapsed(),
            in_phase: self.phase_entered.elapsed(),
            job_missing_for: lasts(self.job_missing_since),
            mark_alone_for: lasts(self.mark_alone_since),
            of_no_kind_for: lasts(self.of_no_kind_since),
            stalled_for,
            can_help: self.can_be_held_back,
            help_waits: self.help_waits(),
            inherited_help: self.inherited_help,
            overlaid: self.overlaid.is_some(),
            peers,
            fresh_start: self.fresh_start,
        }
    }

    /// And whether it stands still for want of room.
    async fn machine(&self) -> Result<(Machine, bool), HypervisorError> {
        let order = &self.record.order;
        let hypervisor = &self.around.hypervisor;
        let vm = match hypervisor.vm(order.vm).await {
            Ok(vm) => vm,
            Err(HypervisorError::NotFound(_)) => return Ok((Machine::Gone, false)),
            Err(error) => return Err(error),
        };
        let disk = vm.disk(&order.disk).cloned();
        let job = match (vm.state, &disk) {
            (_, None) => None,
            (VmState::ShutOff, _) if !self.record.offline() => None,
            _ => hypervisor.job(order.vm, &order.disk).await?,
        };
        let seen = Machine::Seen {
            state: vm.state,
            disk: disk.map(Box::new),
            job,
        };
        Ok((seen, vm.lacks_room))
    }

    /// Shows how far the copy is.
    fn report(&self, machine: &Machine) {
        let Machine::Seen { job: Some(job), .. } = machine else {
            return;
        };
        let (done, total) = progress::copied(&self.record, job);
        let mut view = self.shown();
        view.total_bytes = view.total_bytes.max(total);
        view.done_bytes = view.done_bytes.max(done.min(view.total_bytes));
        view.record = self.record.clone();
        self.around.board.show(view);
    }
}

fn is_of_no_kind(machine: &Machine) -> bool {
    let Machine::Seen { job, disk, .. } = machine else {
        return false;
    };
    let mark = disk.as_ref().and_then(|disk| disk.mirror.as_ref());
    let kinds = [job.map(|job| job.kind), mark.map(|mark| mark.kind)];
    kinds.contains(&Some(BlockJobKind::Other))
}
