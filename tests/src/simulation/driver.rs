//! One merge on the agent: the real `step`, one small action at a time, so that anything may happen
//! between two of them, also the agent's end.
//!
//! ```text
//!   look at the machine ─▶ look at the job, decide ─┬─▶ write the phase down ─▶ act ─┐
//!            ▲                                      └─▶ sleep                        │
//!            └──────────────────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use jiff::Timestamp;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{
    Hypervisor, HypervisorError, HypervisorEvent, VmState, VmView,
};
use livemerge_host_agent::merge::step::{
    Action, Machine, Observation, Outcome, Peers, Policy, Step, Told,
};
use livemerge_host_agent::merge::{MergeRecord, Phase, Window, job_order};
use livemerge_proto::ids::MergeId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::agent::{Luck, MergeStep, answered};
use super::event::Did;

const JOURNAL_RETRY: Duration = Duration::from_millis(100);

/// Takes one merge to its end.
pub(super) struct Driver {
    pub(super) merge: MergeId,
    events: Receiver<HypervisorEvent>,
    told: Option<Told>,
    phase_entered: Duration,
    job_missing_since: Option<Duration>,
    fresh_start: bool,
    todo: Todo,
}

/// What a driver does next.
#[derive(Debug)]
enum Todo {
    Look,
    LookAtJob(Option<VmView>),
    Persist(Phase, Option<Action>),
    Act(Action),
    /// Not before; an event ends it.
    Sleep(Duration),
    /// Not before, whatever happens.
    JournalRetry(Duration),
}

impl Driver {
    pub(super) fn new(merge: MergeId, hypervisor: &FakeHypervisor, now: Duration) -> Self {
        Self {
            merge,
            events: hypervisor.events(),
            told: None,
            phase_entered: now,
            job_missing_since: None,
            fresh_start: true,
            todo: Todo::Look,
        }
    }

    /// When it can go on by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.todo {
            Todo::Sleep(until) | Todo::JournalRetry(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn can_go_on(&self, now: Duration) -> bool {
        match self.todo {
            Todo::Sleep(until) => until <= now || !self.events.is_empty(),
            Todo::JournalRetry(until) => until <= now,
            _ => true,
        }
    }

    /// Whether it is about to do something to the guest.
    pub(super) fn acts(&self) -> bool {
        matches!(self.todo, Todo::Act(_))
    }

    /// Whether it is about to write the journal.
    pub(super) fn writes(&self) -> bool {
        matches!(self.todo, Todo::Persist(..))
    }

    /// Takes in the events that have arrived. True when one of them is worth a look.
    fn hear(&mut self, record: &MergeRecord) -> bool {
        let mut worth = false;
        loop {
            match self.events.try_recv() {
                Ok(event) => worth |= self.note(record, &event),
                Err(TryRecvError::Lagged(_)) => worth = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return worth,
            }
        }
    }

    fn note(&mut self, record: &MergeRecord, event: &HypervisorEvent) -> bool {
        match event {
            HypervisorEvent::BlockJob { disk, outcome, .. } if *disk == record.order.disk => {
                if !matches!(self.told, Some(Told::Refused(_))) {
                    self.told = Some(Told::Job(*outcome));
                }
                true
            }
            HypervisorEvent::Lifecycle { .. } | HypervisorEvent::Connected => true,
            HypervisorEvent::BlockJob { .. } | HypervisorEvent::Disconnected => false,
        }
    }
}

/// One small action of one merge.
pub(super) struct Turn<'a> {
    pub(super) driver: &'a mut Driver,
    pub(super) record: &'a mut MergeRecord,
    pub(super) hypervisor: &'a FakeHypervisor,
    /// Set when a job is asked for where one runs.
    pub(super) doubled: &'a mut bool,
    pub(super) now: Duration,
    pub(super) luck: Luck,
}

impl Turn<'_> {
    pub(super) fn go_on(mut self, step: MergeStep, wall: Timestamp) -> Did {
        match std::mem::replace(&mut self.driver.todo, Todo::Look) {
            Todo::Look => self.look(),
            Todo::LookAtJob(vm) => self.decide(vm, step, wall),
            Todo::Persist(phase, action) => self.persist(phase, action),
            Todo::Act(action) => self.act(action),
            Todo::Sleep(until) => {
                if !self.driver.hear(self.record) && self.now < until {
                    self.driver.todo = Todo::Sleep(until);
                }
                Did::nothing("wakes")
            }
            Todo::JournalRetry(_) => Did::nothing("tries the journal again"),
        }
    }

    fn look(&mut self) -> Did {
        self.driver.hear(self.record);
        let looked = answered(self.hypervisor.vm(self.record.order.vm));
        let vm = match looked {
            Ok(_) if self.luck != Luck::Good => None,
            seen => seen.ok(),
        };
        let did = Did::nothing(vm.as_ref().map_or("looks, it cannot be told", shown));
        self.driver.todo = Todo::LookAtJob(vm);
        did
    }

    fn decide(&mut self, vm: Option<VmView>, step: MergeStep, wall: Timestamp) -> Did {
        let seen = self.observation(vm);
        let next = step(self.record, &seen, &Policy::default(), wall);
        let did = Did::nothing((&self.record.phase, &next));
        self.driver.todo = match next {
            Step::Wait(time) => Todo::Sleep(self.now + time),
            Step::Enter(phase, action) => Todo::Persist(phase, action),
            Step::Help(_) => unreachable!("nothing can be done about a copy here"),
            Step::Finish(Outcome::Cancelled) => Todo::Persist(Phase::Cancelled { at: wall }, None),
            Step::Finish(Outcome::Merged) => Todo::Persist(Phase::Merged { at: wall }, None),
            Step::Finish(Outcome::Failed(failure)) => {
                Todo::Persist(Phase::Failed { at: wall, failure }, None)
            }
        };
        did
    }

    fn observation(&mut self, vm: Option<VmView>) -> Observation {
        let machine = vm.and_then(|vm| self.machine(&vm));
        let machine = machine.unwrap_or(Machine::Unknown);
        let job_there = match &machine {
            Machine::Seen { job, disk, .. } => {
                job.is_some() || disk.as_ref().is_some_and(|disk| disk.mirror.is_some())
            }
            Machine::Unknown | Machine::Gone => true,
        };
        let now = self.now;
        let missing_since = (!job_there).then(|| self.driver.job_missing_since.unwrap_or(now));
        self.driver.job_missing_since = missing_since;
        Observation {
            machine,
            told: self.driver.told.clone(),
            in_phase: now - self.driver.phase_entered,
            job_missing_for: missing_since.map_or(Duration::ZERO, |since| now - since),
            mark_alone_for: Duration::ZERO,
            peers: Peers::NONE,
            // The simulated copy always catches up.
            stalled_for: Duration::ZERO,
            can_help: false,
            help_waits: false,
            inherited_help: false,
            overlaid: false,
            fresh_start: self.driver.fresh_start,
        }
    }

    fn machine(&self, vm: &VmView) -> Option<Machine> {
        let order = &self.record.order;
        let disk = vm.disk(&order.disk).cloned();
        let job = match (vm.state, &disk) {
            (_, None) => None,
            _ => answered(self.hypervisor.job(order.vm, &order.disk)).ok()?,
        };
        Some(Machine::Seen {
            state: vm.state,
            disk: disk.map(Box::new),
            job,
        })
    }

    fn persist(&mut self, phase: Phase, action: Option<Action>) -> Did {
        if self.luck != Luck::Good {
            self.release_unjournaled();
            self.driver.todo = Todo::JournalRetry(self.now + JOURNAL_RETRY);
            return Did::something("the journal cannot be written");
        }
        let did = Did::something(("journal", &phase));
        let pivots = |phase: &Phase| matches!(phase, Phase::Pivoting { .. });
        if pivots(&phase) && !pivots(&self.record.phase) {
            self.record.pivot_attempts += 1;
        }
        self.record.phase = phase;
        self.record.revision += 1;
        self.driver.phase_entered = self.now;
        self.driver.told = None;
        self.driver.fresh_start = false;
        self.driver.todo = action.map_or(Todo::Look, Todo::Act);
        did
    }

    fn release_unjournaled(&mut self) {
        let suspending = matches!(
            self.record.phase,
            Phase::Pivoting {
                window: Window::Suspending,
                suspended_at: Some(_),
                ..
            }
        );
        if suspending {
            let _looked_at_anew = answered(self.hypervisor.resume(self.record.order.vm));
            self.driver.fresh_start = true;
        }
    }

    fn act(&mut self, action: Action) -> Did {
        let (vm, disk) = (self.record.order.vm, &self.record.order.disk);
        let (name, hypervisor) = (call(action), self.hypervisor);
        match self.luck {
            Luck::Good => {}
            Luck::NotDone => {
                let lost = HypervisorError::Unknown("the call was lost".to_owned());
                hypervisor.fail_next(name, lost);
            }
            Luck::Refused => {
                let no = HypervisorError::Refused("no".to_owned());
                hypervisor.fail_next(name, no);
            }
            Luck::NotTold => hypervisor.lose_reply(name),
        }
        let reply = match action {
            Action::StartJob => {
                *self.doubled |= hypervisor.running_job(vm, disk).is_some();
                answered(hypervisor.start_job(vm, &job_order(self.record)))
            }
            Action::AbortJob => answered(hypervisor.abort_job(vm, disk)),
            Action::SetNextStart => {
                let (removed, kept) = (&self.record.removed, &self.record.kept);
                let port: &dyn Hypervisor = hypervisor;
                answered(port.set_next_start(vm, disk, removed, kept))
            }
            Action::RestoreBacking => unreachable!("nothing is pulled here"),
            Action::AddOverlay => unreachable!("no spare is ordered here"),
            Action::Suspend => answered(hypervisor.suspend(vm)),
            Action::Pivot => answered(hypervisor.pivot(vm, disk)),
            Action::Resume => answered(hypervisor.resume(vm)),
        };
        let did = Did::something((action, &reply));
        if let Err(HypervisorError::Refused(text)) = reply {
            self.driver.told = Some(Told::Refused(text));
        }
        did
    }
}

fn call(action: Action) -> &'static str {
    match action {
        Action::StartJob => "start_job",
        Action::AbortJob => "abort_job",
        Action::SetNextStart => "set_next_start",
        Action::RestoreBacking => "restore_backing",
        Action::AddOverlay => "add_overlay",
        Action::Suspend => "suspend",
        Action::Pivot => "pivot",
        Action::Resume => "resume",
    }
}

fn shown(vm: &VmView) -> &'static str {
    match vm.state {
        VmState::Running => "looks, it runs",
        VmState::Paused => "looks, it stands still",
        VmState::ShutOff => "looks, it is off",
    }
}
