//! What happens next: first anything, then only what brings things to rest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use livemerge_api_server::snapshot::OperationState;
use livemerge_host_agent::hypervisor::{Hypervisor as _, VmState};
use livemerge_host_agent::merge::Phase;
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::event::Event;
use super::invariants::{Broken, Invariants, at_rest, nothing_is_left};
use super::world::World;
use super::{Steps, Violation};

/// Events within which all must come to rest once faults have stopped.
const REST_WITHIN: usize = 6_000;
/// Simulated time for the same.
const REST_IN: Duration = Duration::from_secs(900);

/// What runs have gone through: how often of each.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// How often.
    pub fn times(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// With what other runs have gone through.
    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            writeln!(f, "{times:>9}  {what}")?;
        }
        Ok(())
    }
}

/// One run.
pub(super) struct Schedule {
    seed: u64,
    world: World,
    invariants: Invariants,
    seen: Seen,
    events: usize,
}

impl Schedule {
    pub(super) fn new(seed: u64, steps: Steps, traced: bool) -> Self {
        Self {
            seed,
            world: World::new(seed, steps, traced),
            invariants: Invariants::default(),
            seen: Seen::default(),
            events: 0,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Seen, Box<Violation>> {
        match self.whole() {
            Ok(()) => Ok(self.into_seen()),
            Err(broken) => Err(Box::new(Violation {
                seed: self.seed,
                events: self.events,
                broken,
                trace: self.world.trace.into_lines(),
            })),
        }
    }

    fn whole(&mut self) -> Result<(), Broken> {
        self.take_snapshots()?;
        let events = self.world.rng.random_range(100..=600);
        for _ in 0..events {
            self.one(true)?;
        }
        self.faults_stop()?;
        self.come_to_rest()?;
        self.delete_what_is_left()?;
        nothing_is_left(&self.world)
    }

    fn one(&mut self, faults: bool) -> Result<(), Broken> {
        let possible = possible(&self.world, faults);
        let drawn = possible.choose_weighted(&mut self.world.rng, |(weight, _)| *weight);
        let (_, event) = *drawn.expect("time can always pass");
        self.happens(event, faults)
    }

    fn happens(&mut self, event: Event, faults: bool) -> Result<(), Broken> {
        self.events += 1;
        if self.world.happen(event, faults, &mut self.seen) {
            self.invariants.hold(&mut self.world)?;
        }
        Ok(())
    }

    /// Before faults begin there is something to delete.
    fn take_snapshots(&mut self) -> Result<(), Broken> {
        for _ in 0..self.world.rng.random_range(0..=3) {
            self.world.ask_create();
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
            (E::MachineStarts, world.machine.state == VmState::ShutOff),
        ];
        for (event, needed) in heals {
            if needed {
                self.happens(event, false)?;
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

    /// Deletes the snapshots that are left. One may need another one to be deleted first; each round
    /// must get on.
    fn delete_what_is_left(&mut self) -> Result<(), Broken> {
        let mut rounds = 0;
        while !self.world.server.record.snapshots.is_empty() {
            rounds += 1;
            if rounds == 2 {
                self.seen.count("a delete had to wait for another one");
            }
            let mut left: Vec<_> = self.world.server.record.snapshots.keys().copied().collect();
            left.shuffle(&mut self.world.rng);
            let before = left.len();
            let mut failures = Vec::new();
            for snapshot in left {
                let Some(operation) = self.world.ask_delete(snapshot) else {
                    return Err(format!("I5: the deletion of {snapshot} is refused"));
                };
                self.come_to_rest()?;
                let operation = &self.world.server.record.operations[&operation];
                if let OperationState::Failed(failure) = &operation.state {
                    failures.push(format!("{}: {failure:?}", operation.snapshot_name));
                }
            }
            if self.world.server.record.snapshots.len() == before {
                return Err(format!("I5: a fresh delete fails: {failures:?}"));
            }
        }
        Ok(())
    }

    fn into_seen(self) -> Seen {
        let mut seen = self.seen;
        seen.0.insert("events", self.events);
        for operation in self.world.server.record.operations.values() {
            seen.count(match operation.state {
                OperationState::Succeeded => "an operation succeeds",
                _ => "an operation fails",
            });
        }
        for record in self.world.agent.journal.values() {
            seen.count(match (&record.phase, record.pivots()) {
                (Phase::Merged { .. }, true) => "an active commit is merged",
                (Phase::Merged { .. }, false) => "an intermediate commit is merged",
                _ => "a merge fails",
            });
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
    server.is_some_and(|server| server.idle())
        && agent.is_some_and(|agent| agent.drivers.is_empty() && agent.orders.is_empty())
        && network.messages.is_empty()
        && !world.paused_by_operator
        && heard
}

/// What can happen now, with weights.
fn possible(world: &World, faults: bool) -> Vec<(u32, Event)> {
    let mut possible = Vec::with_capacity(40);
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

    may(if faults { 60 } else { 20 }, E::GuestWrites, world.runs());
    may(60, E::JobCopies, !jobs.is_empty());
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
    let down = world.machine.state == VmState::ShutOff;
    may(20, E::MachineStarts, down);
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
    let death = if pivots { 20 } else { 1 };
    may(death, E::QemuDies, world.machine.state != VmState::ShutOff);
    may(1, E::OperatorPauses, world.runs() && !world.pivots());
    may(1, E::LibvirtGoes, world.hypervisor.connected());
    may(3, E::MessageIsLost, !network.messages.is_empty());
    let few = (1..6).contains(&network.messages.len());
    may(3, E::MessageComesTwice, few);
    may(1, E::LineBreaks, network.up);
    may(2, E::ServerDies, world.server.process.is_some());
    let death = if world.pivots() { 20 } else { 2 };
    may(death, E::AgentDies, world.agent.process.is_some());
    may(4, E::ClockJumps, true);
}

/// What clients want.
fn is_asked(world: &World, possible: &mut Vec<(u32, Event)>) {
    let mut may = may(possible);
    let record = &world.server.record;
    let up = world.server.process.is_some();
    let few = record.snapshots.len() < 4 && record.open_operations().count() < 3;
    may(4, Event::ClientCreates, up && few);
    may(20, Event::ClientDeletes, up && !record.snapshots.is_empty());
    may(4, Event::ClientRepeats, !world.requests.is_empty());
}

fn may(possible: &mut Vec<(u32, Event)>) -> impl FnMut(u32, Event, bool) {
    |weight, event, if_so| {
        if if_so {
            possible.push((weight, event));
        }
    }
}
