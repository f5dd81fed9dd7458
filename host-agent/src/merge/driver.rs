//! Takes one merge to its end: observe, decide, write down, act.
//!
//! ```text
//!          ┌───────────────────────────────────────────────┐
//!          ▼                                               │
//!   look (hypervisor) ─▶ step (pure) ─┬─ Enter ─▶ journal ─▶ act
//!          ▲                          ├─ Wait ──▶ event or timer
//!          └──────────────────────────┘  Finish ─▶ journal, end
//! ```
//!
//! An action's reply decides nothing; only a clear refusal is passed on, for its text.

use super::board::{Board, MergeView};
use super::journal::Journal;
use super::step::{Action, Machine, Observation, Outcome, Policy, Step, Told, step};
use super::types::{MergeRecord, Phase, Window};
use crate::hypervisor::{CommitOrder, Hypervisor, HypervisorError, HypervisorEvent, VmState};
use livemerge_runtime::{Clock, Shutdown};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};

/// Time before a failed write of the journal is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(100);

/// What a driver works with.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) journal: Arc<Journal>,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) board: Board,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) policy: Arc<Policy>,
    pub(super) shutdown: Shutdown,
}

/// Drives one merge.
pub(super) struct Driver {
    around: Surroundings,
    record: MergeRecord,
    events: Receiver<HypervisorEvent>,
    told: Option<Told>,
    phase_entered: Instant,
    job_missing_since: Option<Instant>,
    fresh_start: bool,
    paused_at: Option<Instant>,
}

impl Driver {
    /// Prepares to drive a record that is in the journal. Events from now on are heard.
    pub(super) fn new(around: Surroundings, record: MergeRecord) -> Self {
        let events = around.hypervisor.events();
        Self {
            around,
            record,
            events,
            told: None,
            phase_entered: Instant::now(),
            job_missing_since: None,
            fresh_start: true,
            paused_at: None,
        }
    }

    /// Runs to the end of the merge, or to the next point at which the guest needs nobody once the
    /// agent stops. May be dropped at any await: the journal has all.
    pub(super) async fn run(mut self) {
        while !self.record.phase.ended() && !self.may_stop() {
            let seen = self.look().await;
            let now = self.around.clock.now();
            match step(&self.record, &seen, &self.around.policy, now) {
                Step::Wait(time) => self.wait(time).await,
                Step::Enter(phase, action) => self.enter(phase, action).await,
                Step::Finish(Outcome::Merged) => self.finish(Phase::Merged { at: now }).await,
                Step::Finish(Outcome::Failed(failure)) => {
                    self.finish(Phase::Failed { at: now, failure }).await;
                }
            }
        }
    }

    fn may_stop(&self) -> bool {
        self.around.shutdown.is_cancelled() && !self.within_window()
    }

    /// Whether the guest may stand still for this merge.
    fn within_window(&self) -> bool {
        matches!(
            self.record.phase,
            Phase::Pivoting { .. } | Phase::Verifying { .. }
        )
    }

    async fn look(&mut self) -> Observation {
        self.hear();
        let machine = self.machine().await.unwrap_or_else(|error| {
            tracing::warn!(merge = %self.record.order.id, %error, "cannot look at the machine");
            Machine::Unknown
        });
        let job_there = match &machine {
            Machine::Seen { job, disk, .. } => {
                job.is_some() || disk.as_ref().is_some_and(|disk| disk.mirror.is_some())
            }
            Machine::Unknown | Machine::Gone => true,
        };
        let missing_since =
            (!job_there).then(|| self.job_missing_since.unwrap_or_else(Instant::now));
        self.job_missing_since = missing_since;
        self.report(&machine);
        Observation {
            machine,
            told: self.told.clone(),
            in_phase: self.phase_entered.elapsed(),
            job_missing_for: missing_since
                .map(|since| since.elapsed())
                .unwrap_or_default(),
            fresh_start: self.fresh_start,
        }
    }

    async fn machine(&self) -> Result<Machine, HypervisorError> {
        let order = &self.record.order;
        let hypervisor = &self.around.hypervisor;
        let vm = match hypervisor.vm(order.vm).await {
            Ok(vm) => vm,
            Err(HypervisorError::NotFound(_)) => return Ok(Machine::Gone),
            Err(error) => return Err(error),
        };
        let disk = vm.disk(&order.disk).cloned();
        let job = match (vm.state, &disk) {
            (VmState::ShutOff, _) | (_, None) => None,
            _ => hypervisor.job(order.vm, &order.disk).await?,
        };
        Ok(Machine::Seen {
            state: vm.state,
            disk,
            job,
        })
    }

    /// Writes the phase down, then acts.
    async fn enter(&mut self, phase: Phase, action: Option<Action>) {
        if !self.persist(phase).await {
            return;
        }
        self.told = None;
        self.fresh_start = false;
        if let Some(action) = action {
            self.act(action).await;
        }
    }

    async fn finish(&mut self, phase: Phase) {
        if self.persist(phase).await {
            let order = &self.record.order;
            match &self.record.phase {
                Phase::Failed { failure, .. } => {
                    tracing::warn!(merge = %order.id, vm = %order.vm, reason = %failure.reason, "{}", failure.message);
                }
                _ => {
                    tracing::info!(merge = %order.id, vm = %order.vm, disk = %order.disk, "merged");
                }
            }
        }
    }

    /// True when the record with this phase is durable and is now the record.
    async fn persist(&mut self, phase: Phase) -> bool {
        let mut next = self.record.clone();
        if !same_step(&next.phase, &phase) {
            tracing::debug!(merge = %next.order.id, ?phase, "enters");
        }
        let pivots = |phase: &Phase| matches!(phase, Phase::Pivoting { .. });
        if pivots(&phase) && !pivots(&next.phase) {
            next.pivot_attempts += 1;
        }
        next.phase = phase;
        next.revision += 1;
        let journal = Arc::clone(&self.around.journal);
        fail::fail_point!("agent::before-persist");
        let written = blocking(move || journal.write(&next).map(|()| next)).await;
        match written {
            Ok(next) => {
                fail::fail_point!("agent::after-persist");
                self.record = next;
                self.phase_entered = Instant::now();
                self.around.board.show(MergeView {
                    record: self.record.clone(),
                    ..self.shown()
                });
                true
            }
            Err(error) => {
                tracing::error!(merge = %self.record.order.id, %error, "the journal cannot be written");
                self.release_unjournaled().await;
                tokio::time::sleep(JOURNAL_RETRY).await;
                false
            }
        }
    }

    /// A guest does not stand still for a journal that cannot be written. While no pivot was asked
    /// for, letting it run is always right, and the journal already says that it may stand still.
    async fn release_unjournaled(&mut self) {
        let suspending = matches!(
            self.record.phase,
            Phase::Pivoting {
                window: Window::Suspending,
                suspended_at: Some(_),
                ..
            }
        );
        if suspending {
            self.act(Action::Resume).await;
            self.fresh_start = true;
        }
    }

    async fn act(&mut self, action: Action) {
        let order = &self.record.order;
        let hypervisor = Arc::clone(&self.around.hypervisor);
        fail::fail_point!("agent::before-act");
        let reply = match action {
            Action::StartCommit => {
                let commit = CommitOrder {
                    disk: order.disk.clone(),
                    base: self.record.base.clone(),
                    top: self.record.top.clone(),
                    active: self.record.active,
                };
                hypervisor.start_commit(order.vm, &commit).await
            }
            Action::Suspend => {
                self.paused_at = Some(Instant::now());
                hypervisor.suspend(order.vm).await
            }
            Action::Pivot => hypervisor.pivot(order.vm, &order.disk).await,
            Action::Resume => {
                let reply = hypervisor.resume(order.vm).await;
                if let Some(paused_at) = self.paused_at.take() {
                    let pause = paused_at.elapsed();
                    self.record.longest_pause = self.record.longest_pause.max(pause);
                }
                reply
            }
        };
        fail::fail_point!("agent::after-act");
        if let Err(error) = reply {
            tracing::warn!(merge = %self.record.order.id, ?action, %error, "the hypervisor's reply");
            if let HypervisorError::Refused(text) = error {
                self.told = Some(Told::Refused(text));
            }
        }
    }

    /// Takes in the events that have arrived.
    fn hear(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => drop(self.note(&event)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// True when the event is worth a look.
    fn note(&mut self, event: &HypervisorEvent) -> bool {
        let order = &self.record.order;
        match event {
            HypervisorEvent::BlockJob { vm, disk, outcome }
                if (*vm, disk) == (order.vm, &order.disk) =>
            {
                // A refusal's text says more than the event that may follow it.
                if !matches!(self.told, Some(Told::Refused(_))) {
                    self.told = Some(Told::Job(*outcome));
                }
                true
            }
            HypervisorEvent::Lifecycle { vm } => *vm == order.vm,
            HypervisorEvent::Connected => true,
            HypervisorEvent::BlockJob { .. } | HypervisorEvent::Disconnected => false,
        }
    }

    async fn wait(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        let shutdown = self.around.shutdown.clone();
        loop {
            let heard = tokio::select! {
                heard = tokio::time::timeout_at(end, self.events.recv()) => heard,
                () = shutdown.cancelled(), if !self.within_window() => return,
            };
            match heard {
                Err(_elapsed) => return,
                Ok(Ok(event)) => {
                    if self.note(&event) {
                        return;
                    }
                }
                Ok(Err(RecvError::Lagged(_))) => return,
                Ok(Err(RecvError::Closed)) => return tokio::time::sleep_until(end).await,
            }
        }
    }

    fn shown(&self) -> MergeView {
        self.around
            .board
            .get(self.record.order.id)
            .unwrap_or_else(|| MergeView::new(self.record.clone()))
    }

    /// Shows how far the copy is.
    fn report(&self, machine: &Machine) {
        let Machine::Seen { job: Some(job), .. } = machine else {
            return;
        };
        let mut view = self.shown();
        let (done, total) = if self.record.active {
            (job.cur, job.end)
        } else {
            // An intermediate commit counts the virtual disk, of which only what `top` has
            // allocated is copied.
            let all = self.record.top_bytes;
            (scaled(all, job.cur, job.end), all)
        };
        view.total_bytes = view.total_bytes.max(total);
        view.done_bytes = view.done_bytes.max(done.min(view.total_bytes));
        view.record = self.record.clone();
        self.around.board.show(view);
    }
}

/// `bytes * cur / end`, 0 before the job has begun.
fn scaled(bytes: u64, cur: u64, end: u64) -> u64 {
    if end == 0 {
        return 0;
    }
    let part = u128::from(bytes) * u128::from(cur.min(end)) / u128::from(end);
    u64::try_from(part).unwrap_or(bytes)
}

fn same_step(a: &Phase, b: &Phase) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
}
