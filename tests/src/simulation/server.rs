//! The server: the real `step` over a record in memory, one small action at a time, so that anything
//! may happen between two of them, also its end.
//!
//! ```text
//!   observe, decide ─┬─▶ write the change down ───────────┐
//!          ▲         ├─▶ ask ─▶ reply, or out of time ────┤
//!          │         └─▶ sleep ───────────────────────────┤
//!          └──────────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use livemerge_api_server::hosts::{HostStatus, MergeSight, VmChains};
use livemerge_api_server::snapshot::plan::{Mint, Range, Wanted, measurable};
use livemerge_api_server::snapshot::step::{
    Answer, Observation, Sign, Step, awaited_merges, next_removals,
};
use livemerge_api_server::snapshot::{Operation, Snapshot, needed_by};
use livemerge_proto::ids::{HostId, MergeId, OperationId};

use super::clock::WallClock;
use super::event::Did;
use super::mint::IdSource;
use super::network::{CallId, Network, Question, Report, Told};
use super::record::Record;
use super::run::{Run, Todo, silent};

/// The function under test, or a wrong one that the invariants must catch.
pub type OperationStep = fn(&Operation, &Observation<'_>, Timestamp, Mint<'_>) -> Step;

const CALL_LIMIT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(6);

/// How a write of the record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Good,
    NotDone,
    /// It is done, and nobody is told.
    NotTold,
}

/// What outlives the server, and the server.
pub(super) struct Server {
    pub(super) step: OperationStep,
    /// A restarted one does the operations in another order than they were accepted in: wrong.
    sorts_by_id: bool,
    pub(super) clock: WallClock,
    pub(super) record: Record,
    pub(super) process: Option<Process>,
}

/// What ends with the server.
pub(super) struct Process {
    generation: u64,
    host: HostId,
    pub(super) ids: IdSource,
    view: View,
    /// Operations that have not ended, in the order of their turns.
    lane: VecDeque<OperationId>,
    run: Option<Run>,
}

/// What is known of the host.
#[derive(Debug)]
struct View {
    status: HostStatus,
    /// `None` while no stream is open.
    report: Option<Report>,
    last_heard: Duration,
    /// Counts its changes.
    version: u64,
}

impl Server {
    pub(super) fn new(step: OperationStep, sorts_by_id: bool) -> Self {
        Self {
            step,
            sorts_by_id,
            clock: WallClock::default(),
            record: Record::default(),
            process: None,
        }
    }

    /// Starts it: the open operations go on, in the order of their acceptance.
    pub(super) fn start(&mut self, host: HostId, now: Duration) {
        self.record.generation += 1;
        let lane = self.record.open_operations().map(|open| open.id);
        let mut lane: VecDeque<OperationId> = lane.collect();
        if self.sorts_by_id {
            lane.make_contiguous().sort_unstable();
        }
        self.process = Some(Process {
            generation: self.record.generation,
            host,
            ids: IdSource::new(self.record.generation),
            view: View {
                status: HostStatus::Unresponsive,
                report: None,
                last_heard: now,
                version: 0,
            },
            lane,
            run: None,
        });
    }

    /// The next small action.
    pub(super) fn go_on(&mut self, now: Duration, write: Write, network: &mut Network) -> Did {
        let wall = self.clock.at(now);
        let Some(process) = self.process.as_mut() else {
            return Did::nothing("it does not run");
        };
        process.take_next(&self.record, now);
        let Some(run) = process.run.as_mut() else {
            return Did::nothing("no operation is open");
        };
        match std::mem::replace(&mut run.todo, Todo::Turn) {
            Todo::Turn => process.turn(&self.record, self.step, now, wall),
            Todo::Persist(change, moved) => {
                let did = run.persist(&change, moved, &mut self.record, write, now);
                if run.operation.state.ended() {
                    process.run = None;
                }
                did
            }
            Todo::Ask(ask) => process.ask(Question::Ask(ask), None, network, now),
            Todo::Measure(chains, ranges) => {
                let question = Question::Measure(run.operation.vm, ranges);
                process.ask(question, Some(chains), network, now)
            }
            Todo::Calling(call, limit) => run.time_out(limit, now, Todo::Calling(call, limit)),
            Todo::Measuring(call, limit, chains) => {
                run.time_out(limit, now, Todo::Measuring(call, limit, chains))
            }
            Todo::Sleep {
                until,
                sign,
                status,
            } => process.wake(until, sign, status, now),
            Todo::StoreRetry(_) => {
                run.reread(&self.record);
                if run.operation.state.ended() {
                    process.run = None;
                }
                Did::nothing("reads the record anew")
            }
        }
    }
}

impl Process {
    /// An operation was accepted.
    pub(super) fn enqueue(&mut self, operation: OperationId) {
        self.lane.push_back(operation);
    }

    pub(super) fn idle(&self) -> bool {
        self.run.is_none() && self.lane.is_empty()
    }

    /// When it can go on by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.run.as_ref()?.todo {
            Todo::Calling(_, until)
            | Todo::Measuring(_, until, _)
            | Todo::Sleep { until, .. }
            | Todo::StoreRetry(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn can_go_on(&self, now: Duration) -> bool {
        let Some(run) = &self.run else {
            return !self.lane.is_empty();
        };
        match &run.todo {
            Todo::Calling(_, until) | Todo::Measuring(_, until, _) | Todo::StoreRetry(until) => {
                *until <= now
            }
            Todo::Sleep {
                until,
                sign,
                status,
            } => *until <= now || self.view.signs(*sign, run.seen, *status),
            _ => true,
        }
    }

    /// Whether it is about to write the record.
    pub(super) fn writes(&self) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| matches!(run.todo, Todo::Persist(..)))
    }

    /// Whether it waits for an answer.
    pub(super) fn calls(&self) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| matches!(run.todo, Todo::Calling(..) | Todo::Measuring(..)))
    }

    /// What is known of the merges that an operation waits for.
    pub(super) fn merges(&self, operation: &Operation) -> BTreeMap<MergeId, MergeSight> {
        self.view.merges(operation)
    }

    /// Something was asked of an operation: who waits reads it anew.
    pub(super) fn was_asked(&mut self, operation: OperationId, record: &Record) {
        let waits = |run: &&mut Run| {
            run.operation.id == operation && matches!(run.todo, Todo::Sleep { .. })
        };
        if let Some(run) = self.run.as_mut().filter(waits) {
            run.todo = Todo::Turn;
            run.reread(record);
            if run.operation.state.ended() {
                self.run = None;
            }
        }
    }

    fn take_next(&mut self, record: &Record, now: Duration) {
        while self.run.is_none() {
            let Some(next) = self.lane.pop_front() else {
                return;
            };
            let stored = &record.operations[&next];
            if !stored.state.ended() {
                self.run = Some(Run::new(stored.clone(), now));
            }
        }
    }

    fn turn(
        &mut self,
        record: &Record,
        step: OperationStep,
        now: Duration,
        wall: Timestamp,
    ) -> Did {
        let Some(run) = self.run.as_mut() else {
            return Did::nothing("no operation is open");
        };
        run.seen = self.view.version;
        let named: Vec<_> = run.operation.snapshots().collect();
        let all = record.snapshots.values().cloned();
        let (own, others): (Vec<Snapshot>, Vec<Snapshot>) =
            all.partition(|snapshot| named.contains(&snapshot.id));
        let merges = self.view.merges(&run.operation);
        let is_seen = |sight: &MergeSight| matches!(sight, MergeSight::Seen(_));
        run.begun |= merges.values().any(is_seen);
        let unknown = merges.values().any(|sight| *sight == MergeSight::Unknown);
        let next = next_removals(&run.operation).into_iter();
        let needed = next.filter_map(|leaving| {
            let (snapshots, operations) = (record.snapshots.values(), record.operations.values());
            let volume = &leaving.volume.volume;
            let by = needed_by(volume, run.operation.id, snapshots, operations)?;
            Some((leaving.removal, by))
        });
        let needed: BTreeMap<_, _> = needed.collect();
        run.attempts += u32::from(!needed.is_empty());
        let unseen_since = unknown.then(|| run.unseen_since.unwrap_or(now));
        run.unseen_since = unseen_since;
        let seen = Observation {
            snapshots: &own,
            others: &others,
            host: Some(&self.host),
            merges,
            unseen: unseen_since.map_or(Duration::ZERO, |since| now - since),
            needed: &needed,
            answer: run.answer.as_ref(),
            attempts: run.attempts,
            begun: run.begun,
            rate: None,
            bytes_per_second: 0,
        };
        let mut mint = || self.ids.next(wall);
        let next = step(&run.operation, &seen, wall, &mut mint);
        let did = Did::nothing((&run.operation.snapshot_name, &next));
        run.todo = match next {
            Step::Enter(change) => Todo::Persist(change, true),
            Step::Note(change) => Todo::Persist(change, false),
            Step::Ask(ask) => Todo::Ask(ask),
            Step::Wait(wait) => run.sleep(&wait, self.view.status, now),
        };
        did
    }

    fn ask(
        &mut self,
        question: Question,
        surveyed: Option<VmChains>,
        network: &mut Network,
        now: Duration,
    ) -> Did {
        let Some(run) = self.run.as_mut() else {
            return Did::nothing("no operation is open");
        };
        let did = Did::nothing(("asks", &question));
        if network.up {
            let call = network.request(self.generation, question);
            let limit = now + CALL_LIMIT;
            run.todo = match surveyed {
                Some(chains) => Todo::Measuring(call, limit, chains),
                None => Todo::Calling(call, limit),
            };
        } else {
            run.answered(Answer::Error(silent()), now);
        }
        did
    }

    /// A reply has come. One that nobody waits for is nothing.
    pub(super) fn reply(&mut self, call: CallId, told: Told, record: &Record, now: Duration) {
        let Some(run) = self.run.as_mut() else { return };
        match (&mut run.todo, told) {
            (Todo::Calling(of, _), Told::Answer(Answer::Survey(chains, _))) if *of == call => {
                let worth = worth(&run.operation, &chains, record);
                if worth.is_empty() {
                    run.answered(Answer::Survey(chains, vec![]), now);
                } else {
                    run.todo = Todo::Measure(chains, worth);
                }
            }
            (Todo::Calling(of, _), Told::Answer(answer)) if *of == call => {
                run.answered(answer, now);
            }
            (Todo::Measuring(of, _, chains), Told::Costs(costs)) if *of == call => {
                let chains = chains.clone();
                let answer = costs.map(|costs| Answer::Survey(chains, costs));
                run.answered(answer.unwrap_or_else(Answer::Error), now);
            }
            _ => {}
        }
    }

    fn wake(&mut self, until: Duration, sign: Sign, status: HostStatus, now: Duration) -> Did {
        let Some(run) = self.run.as_mut() else {
            return Did::nothing("no operation is open");
        };
        let signs = self.view.signs(sign, run.seen, status);
        if !signs && now < until {
            run.todo = Todo::Sleep {
                until,
                sign,
                status,
            };
        } else if !signs || sign == Sign::Return {
            run.answer = None;
        }
        Did::nothing("wakes")
    }

    /// A report has come.
    pub(super) fn hear(&mut self, report: Report, now: Duration) {
        self.view.status = HostStatus::Up;
        self.view.last_heard = now;
        self.view.report = Some(report);
        self.view.version += 1;
    }

    /// The stream broke: what the host has is unknown.
    pub(super) fn forget(&mut self) {
        if self.view.report.take().is_some() {
            self.view.version += 1;
        }
    }

    /// Whether anything is known of the host.
    pub(super) fn hears(&self) -> bool {
        self.view.report.is_some()
    }

    /// A host that was silent for too long is unresponsive.
    pub(super) fn check_silence(&mut self, now: Duration) {
        let view = &mut self.view;
        let silent = view.report.is_none() && now >= view.last_heard + SILENCE;
        if silent && view.status == HostStatus::Up {
            view.status = HostStatus::Unresponsive;
            view.version += 1;
        }
    }
}

/// What it pays to measure of an operation's merges.
fn worth(operation: &Operation, chains: &VmChains, record: &Record) -> Vec<Range> {
    let named: Vec<_> = operation.snapshots().collect();
    let all = record.snapshots.values().cloned();
    let (deletes, others): (Vec<Snapshot>, Vec<Snapshot>) =
        all.partition(|snapshot| named.contains(&snapshot.id));
    let wanted = Wanted {
        deletes: &deletes,
        others: &others,
        options: &operation.options,
    };
    measurable(&wanted, chains)
}

impl View {
    fn signs(&self, sign: Sign, seen: u64, status: HostStatus) -> bool {
        match sign {
            Sign::Any => self.version != seen,
            Sign::Return => self.status != status,
        }
    }

    fn merges(&self, operation: &Operation) -> BTreeMap<MergeId, MergeSight> {
        let sight = |merge: &MergeId| match &self.report {
            Some(report) => report
                .merges
                .get(merge)
                .cloned()
                .map_or(MergeSight::Absent, MergeSight::Seen),
            None => MergeSight::Unknown,
        };
        let awaited = awaited_merges(operation).into_iter();
        awaited.map(|merge| (merge, sight(&merge))).collect()
    }
}
