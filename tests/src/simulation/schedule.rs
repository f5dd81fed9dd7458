//! What happens next: first anything, then only what brings things to rest.
//!
//! Each event draws what it has to choose from a number of its own. An event and its number are a
//! *step*, and the steps of a run are its [`Tape`]: played again they are the same run, whatever the
//! weights are by then.

use std::time::Duration;

use livemerge_api_server::snapshot::{OperationState, Work};
use livemerge_host_agent::hypervisor::{Hypervisor as _, VmState};
use livemerge_host_agent::merge::{MergeKind, Phase};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::event::Event;
use super::invariants::{Broken, Invariants, at_rest, nothing_is_left};
pub(super) use super::seen::Seen;
use super::tape::{Tape, TapeStep};
use super::trace::Traced;
use super::world::World;
use super::{Steps, Violation};

/// Events within which all must come to rest once faults have stopped.
const REST_WITHIN: usize = 6_000;
/// Simulated time for the same.
const REST_IN: Duration = Duration::from_secs(900);

/// One run.
pub(super) struct Schedule {
    seed: u64,
    rng: ChaCha8Rng,
    world: World,
    invariants: Invariants,
    seen: Seen,
    events: usize,
    tape: Vec<TapeStep>,
}

impl Schedule {
    pub(super) fn new(seed: u64, steps: Steps, traced: Traced) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            world: World::new(seed, steps, traced),
            invariants: Invariants::default(),
            seen: Seen::default(),
            events: 0,
            tape: Vec::new(),
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Seen, Box<Violation>> {
        let done = self.whole();
        self.ended(done)
    }

    /// The same, and gives what has happened, in words.
    pub(super) fn told(mut self) -> Vec<String> {
        let broken = self.whole().err();
        let mut lines = self.world.trace.into_lines();
        lines.extend(broken);
        lines
    }

    /// Plays a tape, each step that is possible, and what follows once faults stop.
    pub(super) fn replay(mut self, tape: &Tape) -> Result<Seen, Box<Violation>> {
        let done = self.played(tape);
        self.ended(done)
    }

    fn ended(self, done: Result<(), Broken>) -> Result<Seen, Box<Violation>> {
        match done {
            Ok(()) => Ok(self.into_seen()),
            Err(broken) => Err(Box::new(Violation {
                seed: self.seed,
                events: self.events,
                broken,
                trace: self.world.trace.into_lines(),
                tape: Tape {
                    world: self.seed,
                    steps: self.tape,
                },
            })),
        }
    }

    fn whole(&mut self) -> Result<(), Broken> {
        self.take_snapshots()?;
        let events = self.rng.random_range(100..=600);
        for _ in 0..events {
            self.one(true)?;
        }
        self.rest()
    }

    fn played(&mut self, tape: &Tape) -> Result<(), Broken> {
        for step in &tape.steps {
            // What a run does by itself, before its first event and after its last.
            let own = matches!(
                step.event,
                Event::ClientCreates
                    | Event::LeftoverIsDeleted
                    | Event::LateMessageComes
                    | Event::MachineIsShutOff
            );
            let mut possible = possible(&self.world, step.faults).into_iter();
            if own || possible.any(|(_, event)| event == step.event) {
                self.happens(*step)?;
            }
        }
        self.rest()
    }

    /// Faults stop; all comes to rest, and what is left can be deleted.
    fn rest(&mut self) -> Result<(), Broken> {
        self.faults_stop()?;
        self.come_to_rest()?;
        self.delete_what_is_left()?;
        while !self.world.network.late.is_empty() {
            self.draw(Event::LateMessageComes, false)?;
            self.come_to_rest()?;
        }
        nothing_is_left(&self.world)
    }

    fn one(&mut self, faults: bool) -> Result<(), Broken> {
        let possible = possible(&self.world, faults);
        let drawn = possible.choose_weighted(&mut self.rng, |(weight, _)| *weight);
        let (_, event) = *drawn.expect("time can always pass");
        self.draw(event, faults)
    }

    fn draw(&mut self, event: Event, faults: bool) -> Result<(), Broken> {
        let number = self.rng.random();
        self.happens(TapeStep {
            event,
            faults,
            number,
        })
    }

    fn happens(&mut self, step: TapeStep) -> Result<(), Broken> {
        self.events += 1;
        self.tape.push(step);
        self.world.rng = ChaCha8Rng::seed_from_u64(step.number);
        let happens = self.world.happen(step.event, step.faults, &mut self.seen);
        if happens {
            self.invariants.hold(&mut self.world)?;
        }
        Ok(())
    }

    /// Before faults begin there is something to delete.
    fn take_snapshots(&mut self) -> Result<(), Broken> {
        for _ in 0..self.rng.random_range(0..=3) {
            self.draw(Event::ClientCreates, false)?;
            self.come_to_rest()?;
        }
        Ok(())
    }

    fn faults_stop(&mut self) -> Result<(), Broken> {
        use Event as E;
        let world = &self.world;
        let heals = [
            (E::LineHeals, !world.network.up),
            (E::LibvirtComes, !world.hypervisor.connected()),
            (E::ServerStarts, world.server.process.is_none()),
            (E::AgentStarts, world.agent.process.is_none()),
        ];
        for (event, needed) in heals {
            if needed {
                self.draw(event, false)?;
            }
        }
        Ok(())
    }

    fn come_to_rest(&mut self) -> Result<(), Broken> {
        let (first, begin) = (self.events, self.world.now);
        while !rests(&self.world) {
            let late = self.world.now > begin + REST_IN;
            if late || self.events > first + REST_WITHIN {
                at_rest(&self.world)?;
                return Err(format!(
                    "I5: no rest after {} events and {:?}",
                    self.events - first,
                    self.world.now.saturating_sub(begin)
                ));
            }
            self.one(false)?;
        }
        at_rest(&self.world)
    }

    /// Deletes the snapshots that are left, now and then of a machine that is shut off. One may need
    /// another one to be deleted first; each round must get on.
    fn delete_what_is_left(&mut self) -> Result<(), Broken> {
        if self.rng.random_bool(0.3) {
            self.draw(Event::MachineIsShutOff, false)?;
            self.come_to_rest()?;
        }
        let mut failures = Vec::new();
        while !self.world.server.record.snapshots.is_empty() {
            let before = self.world.server.record.snapshots.len();
            self.draw(Event::LeftoverIsDeleted, false)?;
            let Some((_, operation)) = self.world.requests.last().copied() else {
                return Err("I5: the deletion of what is left is refused".to_owned());
            };
            self.come_to_rest()?;
            let record = &self.world.server.record;
            if let OperationState::Failed(failure) = &record.operations[&operation].state {
                failures.push(format!("{failure:?}"));
            }
            if record.snapshots.len() < before {
                failures.clear();
            } else {
                self.seen.count("a delete had to wait for another one");
            }
            // Which one is tried is drawn: the one that must go first is soon among them.
            if failures.len() > 12 * before {
                return Err(format!("I5: a fresh delete fails: {failures:?}"));
            }
        }
        Ok(())
    }

    fn into_seen(self) -> Seen {
        let mut seen = self.seen;
        seen.add_to("events", self.events);
        for operation in self.world.server.record.operations.values() {
            seen.count(match operation.state {
                OperationState::Succeeded => "an operation succeeds",
                OperationState::Cancelled => "an operation is cancelled",
                _ => "an operation fails",
            });
            let done = operation.state == OperationState::Succeeded;
            if let (true, Work::Delete(_), false) =
                (done, &operation.work, operation.batch.is_empty())
            {
                seen.count("several snapshots are deleted in one operation");
            }
        }
        let records = || self.world.agent.journal.values();
        for record in records() {
            let merged = matches!(record.phase, Phase::Merged { .. });
            let kind = match record.kind {
                MergeKind::ActiveCommit => "an active commit is merged",
                MergeKind::Commit => "an intermediate commit is merged",
                MergeKind::Pull => "a pull is merged",
                MergeKind::OfflineCommit => "an offline commit is merged",
            };
            match record.phase {
                Phase::Merged { .. } => seen.count(kind),
                Phase::Cancelled { .. } => seen.count("a merge is cancelled"),
                _ => seen.count("a merge fails"),
            }
            if merged && record.removed.len() > 1 {
                seen.count("several layers are merged in one job");
            }
            if merged && record.pivots() && record.order.together.len() > 1 {
                seen.count("an active commit of several disks is merged");
            }
        }
        seen
    }
}

/// Nothing is under way, nor waits for anything, and the server has heard how the machine is: it
/// refuses a delete by what it heard last.
fn rests(world: &World) -> bool {
    let server = world.server.process.as_ref();
    let agent = world.agent.process.as_ref();
    let network = &world.network;
    let heard = network.streaming
        && network.reports.is_empty()
        && network.last_report.as_ref().map(|last| last.vm) == Some(world.report().vm);
    let as_it_shall_be = world.stays_off || world.machine.state != VmState::ShutOff;
    server.is_some_and(|server| server.idle())
        && agent.is_some_and(|agent| agent.drivers.is_empty() && agent.orders.is_empty())
        && network.messages.is_empty()
        && !world.paused_by_operator
        && as_it_shall_be
        && heard
}

/// What can happen now, with weights.
fn possible(world: &World, faults: bool) -> Vec<(u32, Event)> {
    let mut possible = Vec::with_capacity(48);
    goes_on(world, faults, &mut possible);
    if faults {
        goes_wrong(world, &mut possible);
        is_asked(world, &mut possible);
    }
    possible
}

/// What brings things forward.
fn goes_on(world: &World, faults: bool, possible: &mut Vec<(u32, Event)>) {
    use Event as E;
    let mut may = may(possible);
    let (jobs, network) = (&world.jobs, &world.network);
    let server = world.server.process.as_ref();
    let agent = world.agent.process.as_ref();
    let driver = agent.and_then(|agent| agent.drivers.first());

    let writes = match (faults, world.held_back) {
        (_, true) => 10,
        (true, false) => 60,
        (false, false) => 20,
    };
    may(writes, E::GuestWrites, world.runs());
    let limited = jobs.iter().all(|(_, job)| job.speed > 0);
    may(
        if limited { 15 } else { 60 },
        E::JobCopies,
        !jobs.is_empty(),
    );
    may(30, E::QemuSwitches, jobs.iter().any(|(_, job)| job.asked));
    may(
        30,
        E::LibvirtNotices,
        jobs.iter().any(|(_, job)| job.switched),
    );
    let resumes = world.paused_by_operator && !world.pivots();
    may(20, E::OperatorResumes, resumes);
    may(
        90,
        E::MessageArrives,
        network.up && !network.messages.is_empty(),
    );
    let late = network.up && !network.late.is_empty();
    may(1, E::LateMessageComes, late);
    let stale = server.is_some_and(|server| server.hears()) && !network.streaming;
    may(30, E::ServerNoticesTheBreak, stale);
    let opens = network.up && server.is_some() && agent.is_some() && !stale;
    may(40, E::StreamOpens, opens && !network.streaming);
    let news = network.streaming && network.reported != world.changes;
    may(40, E::HostReports, agent.is_some() && news);
    may(
        60,
        E::ReportArrives,
        server.is_some() && !network.reports.is_empty(),
    );
    let can_go_on = server.is_some_and(|server| server.can_go_on(world.now));
    may(90, E::ServerGoesOn, can_go_on);
    let can_go_on = driver.is_some_and(|driver| driver.can_go_on(world.now));
    may(100, E::AgentGoesOn, can_go_on);
    may(
        80,
        E::AgentHandlesAnOrder,
        !world.agent.ready_orders().is_empty(),
    );
    may(30, E::StorageFrees, !world.purging.is_empty());
    may(10, E::TimePasses, true);
    let starts = world.machine.state == VmState::ShutOff && !world.stays_off;
    let starts = starts && !world.has_to_restore();
    may(if faults { 12 } else { 20 }, E::MachineStarts, starts);
    may(30, E::LibvirtComes, !world.hypervisor.connected());
    may(30, E::LineHeals, !network.up);
    may(20, E::ServerStarts, server.is_none());
    may(30, E::AgentStarts, agent.is_none());
}

/// What the promises are about.
fn goes_wrong(world: &World, possible: &mut Vec<(u32, Event)>) {
    use Event as E;
    let mut may = may(possible);
    let (jobs, network) = (&world.jobs, &world.network);
    let pivots = jobs.iter().any(|(_, job)| job.asked || job.switched);
    may(1, E::JobFails, !jobs.is_empty());
    may(1, E::JobIsCancelled, !jobs.is_empty());
    let on = world.machine.state != VmState::ShutOff;
    let switched = jobs.iter().any(|(_, job)| job.switched);
    let death = match (switched, pivots, world.pull_has_ended()) {
        (true, ..) => 400,
        (_, true, _) => 20,
        (.., true) => 10,
        _ => 1,
    };
    may(death, E::QemuDies, on);
    let works = on && !jobs.is_empty();
    may(1, E::HostDies, works && world.agent.process.is_some());
    may(1, E::OperatorPauses, world.runs() && !world.pivots());
    may(1, E::LibvirtGoes, world.hypervisor.connected());
    may(3, E::MessageIsLost, !network.messages.is_empty());
    let few = (1..6).contains(&network.messages.len());
    // A copy of an order that changes something may come when that was undone long since.
    let twice = if network.orders_a_change() { 12 } else { 3 };
    may(twice, E::MessageComesTwice, few);
    may(1, E::LineBreaks, network.up);
    let death = if network.messages.is_empty() { 2 } else { 10 };
    may(death, E::ServerDies, world.server.process.is_some());
    let death = match (pivots, world.pivots()) {
        (true, _) => 30,
        (_, true) => 6,
        _ => 2,
    };
    may(death, E::AgentDies, world.agent.process.is_some());
    may(4, E::ClockJumps, true);
    may(1, E::JournalForgets, world.forgettable().next().is_some());
}

/// What clients want.
fn is_asked(world: &World, possible: &mut Vec<(u32, Event)>) {
    let mut may = may(possible);
    let record = &world.server.record;
    let up = world.server.process.is_some();
    let few = record.snapshots.len() < 4 && record.open_operations().count() < 3;
    let open = record.open_operations().next().is_some();
    may(4, Event::ClientCreates, up && few);
    may(20, Event::ClientDeletes, up && !record.snapshots.is_empty());
    may(4, Event::ClientRepeats, !world.requests.is_empty());
    may(1, Event::ClientCancels, up && open);
    may(2, Event::ClientLimits, up && open);
}

fn may(possible: &mut Vec<(u32, Event)>) -> impl FnMut(u32, Event, bool) {
    |weight, event, if_so| {
        if if_so {
            possible.push((weight, event));
        }
    }
}
