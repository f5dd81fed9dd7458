//! The agent: the real `step` over a journal, one small action at a time, so that anything may
//! happen between two of them, also its end.
//!
//! ```text
//!   look at the machine ─▶ look at the job, decide ─┬─▶ write the phase down ─▶ act ─┐
//!            ▲                                      └─▶ sleep                        │
//!            └──────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{
    CommitOrder, Hypervisor, HypervisorError, HypervisorEvent, VmState, VmView,
};
use livemerge_host_agent::merge::step::{
    Action, Machine, Observation, Outcome, Policy, Step, Told,
};
use livemerge_host_agent::merge::{MergeRecord, Phase, Window};
use livemerge_host_agent::overlays::Overlays;
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::MergeId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::clock::WallClock;
use super::event::Did;
use super::orders::Order;

/// The function under test, or a wrong one that the invariants must catch.
pub type MergeStep = fn(&MergeRecord, &Observation, &Policy, Timestamp) -> Step;

const JOURNAL_RETRY: Duration = Duration::from_millis(100);

/// How a write of the journal, or a call of the hypervisor, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    Good,
    /// Nothing is done, and it says so, or nobody knows.
    NotDone,
    /// The hypervisor says no.
    Refused,
    /// It is done, and nobody is told.
    NotTold,
}

/// What outlives the agent, and the agent.
pub(super) struct Agent {
    pub(super) step: MergeStep,
    pub(super) clock: WallClock,
    pub(super) journal: BTreeMap<MergeId, MergeRecord>,
    /// The newest server that was obeyed.
    pub(super) fence: u64,
    /// It has asked for a job on a disk where one ran.
    pub(super) doubled: bool,
    pub(super) process: Option<Process>,
}

/// What ends with the agent.
pub(super) struct Process {
    pub(super) hypervisor: Arc<FakeHypervisor>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) overlays: Overlays,
    /// Orders that it works on.
    pub(super) orders: Vec<Order>,
    /// Merges that have not ended, in the order of their turns.
    pub(super) drivers: Vec<Driver>,
}

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

impl Agent {
    pub(super) fn new(step: MergeStep) -> Self {
        Self {
            step,
            clock: WallClock::default(),
            journal: BTreeMap::new(),
            fence: 0,
            doubled: false,
            process: None,
        }
    }

    /// Starts it: every merge of the journal goes on, those that may have stopped a guest first.
    pub(super) fn start(&mut self, process: Process, now: Duration) {
        let mut open: Vec<&MergeRecord> = self
            .journal
            .values()
            .filter(|record| !record.phase.ended())
            .collect();
        open.sort_by_key(|record| {
            let pending = matches!(record.phase, Phase::Pending);
            (pending, record.accepted_at, record.order.id)
        });
        let drivers = open
            .iter()
            .map(|record| Driver::new(record.order.id, &process.hypervisor, now))
            .collect();
        self.process = Some(Process { drivers, ..process });
    }

    /// The next small action of the merge whose turn it is.
    pub(super) fn go_on(&mut self, now: Duration, luck: Luck) -> Did {
        let Some(process) = self.process.as_mut() else {
            return Did::nothing("it does not run");
        };
        let Some(driver) = process.drivers.first_mut() else {
            return Did::nothing("no merge is open");
        };
        let record = self.journal.get_mut(&driver.merge);
        let record = record.expect("a driver's merge is in the journal");
        let turn = Turn {
            driver,
            record,
            hypervisor: &process.hypervisor,
            doubled: &mut self.doubled,
            now,
            luck,
        };
        let did = turn.go_on(self.step, self.clock.at(now));
        if record.phase.ended() {
            process.drivers.remove(0);
        }
        did
    }
}

/// One small action of one merge.
struct Turn<'a> {
    driver: &'a mut Driver,
    record: &'a mut MergeRecord,
    hypervisor: &'a FakeHypervisor,
    doubled: &'a mut bool,
    now: Duration,
    luck: Luck,
}

impl Turn<'_> {
    fn go_on(mut self, step: MergeStep, wall: Timestamp) -> Did {
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
            fresh_start: self.driver.fresh_start,
        }
    }

    fn machine(&self, vm: &VmView) -> Option<Machine> {
        let order = &self.record.order;
        let disk = vm.disk(&order.disk).cloned();
        let job = match (vm.state, &disk) {
            (VmState::ShutOff, _) | (_, None) => None,
            _ => answered(self.hypervisor.job(order.vm, &order.disk)).ok()?,
        };
        Some(Machine::Seen {
            state: vm.state,
            disk,
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
            Action::StartCommit => {
                *self.doubled |= hypervisor.running_job(vm, disk).is_some();
                let order = CommitOrder {
                    disk: disk.clone(),
                    base: self.record.base.clone(),
                    top: self.record.top.clone(),
                    active: self.record.active,
                };
                answered(hypervisor.start_commit(vm, &order))
            }
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

/// The simulated host answers at once.
pub(super) fn answered<F: Future>(call: F) -> F::Output {
    call.now_or_never()
        .expect("nothing in the simulated host waits")
}

fn call(action: Action) -> &'static str {
    match action {
        Action::StartCommit => "start_commit",
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
