//! One merge: observe, decide, write down, act.
//!
//! An action's reply decides nothing; only a clear refusal is passed on, for its text.

mod help;
mod observe;

use super::board::{MergeView, Waiting};
use super::driver::{Surroundings, blocking};
use super::job::{backing_of, job_order};
use super::pivot::{is_put_off, runs_unwritten};
use super::step::{Action, Machine, Observation, Outcome, Peers, Step, Told, step};
use super::types::{MergeKind, MergeRecord, Phase};
use super::waits::{Waits, job_failed, put_off};
use crate::hypervisor::HypervisorEvent;
use livemerge_proto::problem::Problem;
use livemerge_storage::Locator;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// One merge of a [`Driver`](super::driver::Driver).
pub(super) struct Member {
    pub(super) around: Surroundings,
    pub(super) record: MergeRecord,
    told: Option<Told>,
    told_at: Instant,
    phase_entered: Instant,
    job_missing_since: Option<Instant>,
    mark_alone_since: Option<Instant>,
    of_no_kind_since: Option<Instant>,
    /// The least that was ever left to copy, and since when.
    closest: Option<(u64, Instant)>,
    /// The guest's limit could not be told or set: until then nothing is done about its writes.
    can_be_held_back: bool,
    no_help_until: Option<Instant>,
    inherited_help: bool,
    /// The spare overlay was seen in the chain.
    overlaid: Option<Locator>,
    /// The guest was last seen to write the layer below where the spare would be.
    surely_not_overlaid: bool,
    /// The machine was last seen off, and would write that layer.
    off_without_spare: bool,
    fresh_start: bool,
    paused_at: Option<Instant>,
    /// The guest was let run, and that could not be written down yet.
    let_run: bool,
    waits: Waits,
    /// Who gives the kept volume room for the job that is to start next.
    pub(super) giving: Option<AbortOnDropHandle<Result<(), Problem>>>,
    /// Somebody wishes something of a merge of this driver.
    pub(super) wished: Arc<Notify>,
    /// Before what has failed is tried again.
    pause: Duration,
}

impl Member {
    /// Of a record that is in the journal.
    pub(super) fn new(around: Surroundings, record: MergeRecord, wished: Arc<Notify>) -> Self {
        let waits = Waits::new(record.order.id);
        Self {
            around,
            record,
            told: None,
            told_at: Instant::now(),
            phase_entered: Instant::now(),
            job_missing_since: None,
            mark_alone_since: None,
            of_no_kind_since: None,
            closest: None,
            can_be_held_back: true,
            no_help_until: None,
            inherited_help: true,
            overlaid: None,
            surely_not_overlaid: false,
            off_without_spare: false,
            fresh_start: true,
            paused_at: None,
            let_run: false,
            waits,
            giving: None,
            wished,
            pause: Duration::ZERO,
        }
    }

    /// Does what is next. Returns how long there is nothing to do unless something happens.
    pub(super) async fn turn(&mut self, peers: Peers) -> Duration {
        let seen = self.look(peers).await;
        let now = self.around.clock.now();
        match step(&self.record, &seen, &self.around.policy, now) {
            Step::Wait(time) => return self.rest(time, &seen),
            Step::Enter(phase, action) => {
                self.enter(phase, action).await;
            }
            Step::Help(help) => self.help(help).await,
            Step::Finish(Outcome::Merged) => self.finish(Phase::Merged { at: now }).await,
            Step::Finish(Outcome::Cancelled) => self.finish(Phase::Cancelled { at: now }).await,
            Step::Finish(Outcome::Failed(failure)) => {
                self.finish(Phase::Failed { at: now, failure }).await;
            }
        }
        Duration::ZERO
    }

    /// How long there is nothing to do, and what is shown of it.
    fn rest(&mut self, time: Duration, seen: &Observation) -> Duration {
        let now = self.around.clock.now();
        if seen.machine != Machine::Unknown {
            self.waits.answered();
            let limit = self.around.policy.pivot_limit;
            let pivot = self.waits.pivot_unended(&self.record, seen, limit, now);
            let room = self.waits.lacks_room(&self.record, seen, now, time);
            let again = pivot
                .or(room)
                .or_else(|| job_failed(&self.record, seen, now, time));
            self.show_waiting(again.or_else(|| put_off(&self.record, now)));
            return time;
        }
        // Who stands still does not wait for longer than it must.
        let most = if self.within_window() {
            time
        } else {
            Duration::MAX
        };
        let (waiting, pause) = self.waits.unanswered(now, most);
        self.show_waiting(Some(waiting));
        pause
    }

    /// What was said beside the observation.
    fn hear(&mut self, told: Told) {
        self.told = Some(told);
        self.told_at = Instant::now();
    }

    pub(super) fn show_waiting(&self, waiting: Option<Waiting>) {
        let view = self.shown();
        self.around.board.show(MergeView { waiting, ..view });
    }

    /// Whether the guest may stand still for this merge.
    pub(super) fn within_window(&self) -> bool {
        matches!(
            self.record.phase,
            Phase::Pivoting { .. } | Phase::Verifying { .. }
        )
    }

    /// Writes the phase down, then acts. True when it was written.
    pub(super) async fn enter(&mut self, phase: Phase, action: Option<Action>) -> bool {
        if is_put_off(&self.record.phase, &phase) {
            // While the journal still says that it may have been lifted.
            self.limit_again().await;
        }
        if !self.persist(phase, action).await {
            return false;
        }
        let told = self.told.take();
        self.told = told.filter(|told| told.outlives(&self.record.phase, action));
        self.fresh_start = false;
        if action == Some(Action::StartJob) {
            // Before that none was expected.
            self.job_missing_since = None;
        } else {
            self.giving = None;
        }
        if let Some(action) = action {
            self.act(action).await;
        }
        true
    }

    /// Limits the job from now on. True when that was written down.
    pub(super) async fn limit(&mut self, bytes_per_second: u64) -> bool {
        let mut next = self.record.clone();
        next.bytes_per_second = bytes_per_second;
        if !self.write(next).await {
            return false;
        }
        if matches!(
            self.record.phase,
            Phase::Copying { .. } | Phase::Ready { .. }
        ) {
            self.set_speed(bytes_per_second).await;
        }
        true
    }

    async fn finish(&mut self, phase: Phase) {
        self.take_back_the_spare().await;
        if matches!(phase, Phase::Merged { .. }) {
            self.note_slack().await;
        }
        if self.persist(phase, None).await {
            let order = &self.record.order;
            match &self.record.phase {
                Phase::Failed { failure, .. } => {
                    tracing::warn!(merge = %order.id, vm = %order.vm, reason = %failure.reason, "{}", failure.message);
                }
                Phase::Cancelled { .. } => {
                    tracing::info!(merge = %order.id, vm = %order.vm, disk = %order.disk, "cancelled");
                }
                _ => {
                    tracing::info!(merge = %order.id, vm = %order.vm, disk = %order.disk, "merged");
                }
            }
        }
    }

    /// True when the record with this phase is durable and is now the record. If it is not, the action
    /// that was to follow is not done, unless it lets a guest run that may run all the same.
    async fn persist(&mut self, phase: Phase, action: Option<Action>) -> bool {
        let mut next = self.record.clone();
        if !same_step(&next.phase, &phase) {
            tracing::debug!(merge = %next.order.id, ?phase, "enters");
        }
        let pivots = |phase: &Phase| matches!(phase, Phase::Pivoting { .. });
        if pivots(&phase) && !pivots(&next.phase) {
            next.pivot_attempts += 1;
        }
        self.count(&mut next, &phase);
        if let Some(spare) = &self.overlaid {
            // What was the active layer is one below it from now on.
            next.overlaid = true;
            next.relinked = Some(spare.clone());
            next.kind = MergeKind::Commit;
        }
        let runs = runs_unwritten(&self.record.phase, &phase, action);
        next.phase = phase;
        let written = self.write(next).await;
        if written {
            self.phase_entered = Instant::now();
        } else {
            if runs {
                self.release_unjournaled().await;
            }
            tokio::time::sleep(self.pause).await;
        }
        written
    }

    /// What the job has copied by the time that the phase is entered, and how long that took.
    fn count(&self, next: &mut MergeRecord, phase: &Phase) {
        match &next.phase {
            Phase::Copying { since, starts } if !same_step(&next.phase, phase) => {
                next.starts = *starts;
                let took = self.around.clock.now().duration_since(*since);
                next.copied.took = Duration::try_from(took).unwrap_or_default();
            }
            _ => {}
        }
        if matches!(phase, Phase::Merged { .. }) {
            // A job that was never looked at has copied what it had to.
            let seen = self.shown().total_bytes;
            next.copied.bytes = if seen > 0 { seen } else { next.copy_bytes };
        }
    }

    /// True when the record is durable and is now the record.
    async fn write(&mut self, mut next: MergeRecord) -> bool {
        next.revision += 1;
        let journal = Arc::clone(&self.around.journal);
        fail::fail_point!("agent::before-persist");
        let written = blocking(move || journal.write(&next).map(|()| next)).await;
        let now = self.around.clock.now();
        match written {
            Ok(next) => {
                fail::fail_point!("agent::after-persist");
                self.waits.journal_written();
                self.let_run = false;
                self.record = next;
                self.around.board.show(MergeView {
                    record: self.record.clone(),
                    waiting: put_off(&self.record, now),
                    ..self.shown()
                });
                true
            }
            Err(error) => {
                tracing::error!(merge = %self.record.order.id, %error, "the journal cannot be written");
                let (waiting, pause) = self.waits.journal_failed(now);
                self.show_waiting(Some(waiting));
                self.pause = pause;
                false
            }
        }
    }

    /// A guest does not stand still for a journal that cannot be written. Once it was let run it is left
    /// alone: whoever stops it then means it.
    async fn release_unjournaled(&mut self) {
        if !self.let_run {
            self.let_run = self.act(Action::Resume).await;
        }
        self.fresh_start = true;
    }

    /// True when the hypervisor says that it is done.
    async fn act(&mut self, action: Action) -> bool {
        let order = self.record.order.clone();
        let hypervisor = Arc::clone(&self.around.hypervisor);
        fail::fail_point!("agent::before-act");
        let reply = match action {
            Action::StartJob => match self.give_room_in_time().await {
                Ok(()) => {
                    let job = job_order(&self.record);
                    hypervisor.start_job(order.vm, &job).await
                }
                Err(problem) => {
                    tracing::warn!(merge = %order.id, %problem, "no room for its data yet");
                    self.hear(Told::NotStarted(problem));
                    return false;
                }
            },
            Action::AbortJob => hypervisor.abort_job(order.vm, &order.disk).await,
            Action::Suspend => {
                self.prepare_pause().await;
                self.paused_at = Some(Instant::now());
                hypervisor.suspend(order.vm).await
            }
            Action::Pivot => match self.lift_limit().await {
                Ok(()) => hypervisor.pivot(order.vm, &order.disk).await,
                // It might never end.
                Err(error) => Err(error),
            },
            Action::SetNextStart => {
                let (removed, kept) = (&self.record.removed, &self.record.kept);
                hypervisor
                    .set_next_start(order.vm, &order.disk, removed, kept)
                    .await
            }
            Action::Resume => {
                let reply = hypervisor.resume(order.vm).await;
                if let Some(paused_at) = self.paused_at.take() {
                    let pause = paused_at.elapsed();
                    self.record.longest_pause = self.record.longest_pause.max(pause);
                }
                reply
            }
            Action::AddOverlay => self.add_overlay().await,
            Action::RestoreBacking => {
                let relinked = self.record.relinked.as_ref().unwrap_or(&self.record.kept);
                let backing = backing_of(&self.record);
                let restored =
                    hypervisor.restore_backing(order.vm, &order.disk, relinked, &backing);
                restored.await
            }
        };
        fail::fail_point!("agent::after-act");
        let Err(error) = reply else {
            return true;
        };
        tracing::warn!(merge = %self.record.order.id, ?action, %error, "the hypervisor's reply");
        if let Some(told) = Told::by(error, action, &self.record) {
            self.hear(told);
        }
        false
    }

    /// So that the guest does not stand still for what can be done before.
    async fn prepare_pause(&self) {
        if self.record.pivots() && self.record.bytes_per_second > 0 {
            // A limit would hold up the rest, too.
            self.set_speed(0).await;
        }
        if let (MergeKind::Commit | MergeKind::Pull, Locator::File(path) | Locator::Block(path)) =
            (self.record.kind, self.record.kept.clone())
        {
            // What QEMU copied may be in the host's cache: all of it would be written out at once.
            let synced = blocking(move || File::open(path)?.sync_data()).await;
            if let Err(error) = synced {
                tracing::debug!(merge = %self.record.order.id, %error, "not written out beforehand");
            }
        }
    }

    /// True when the event is worth a look.
    pub(super) fn note(&mut self, event: &HypervisorEvent) -> bool {
        let order = &self.record.order;
        match event {
            HypervisorEvent::BlockJob { vm, disk, outcome }
                if (*vm, disk) == (order.vm, &order.disk) =>
            {
                if self
                    .told
                    .as_ref()
                    .is_none_or(|told| told.gives_way_to(*outcome))
                {
                    self.hear(Told::Job(*outcome));
                }
                true
            }
            HypervisorEvent::Lifecycle { vm } => *vm == order.vm,
            HypervisorEvent::Connected => true,
            HypervisorEvent::BlockJob { .. }
            | HypervisorEvent::Filling { .. }
            | HypervisorEvent::Disconnected => false,
        }
    }

    pub(super) fn shown(&self) -> MergeView {
        self.around
            .board
            .get(self.record.order.id)
            .unwrap_or_else(|| MergeView::new(self.record.clone()))
    }
}

fn same_step(a: &Phase, b: &Phase) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
