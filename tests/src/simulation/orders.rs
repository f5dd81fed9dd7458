//! What the agent is asked, stage by stage: it may end between two of them.
//!
//! The checks, the plans, the overlays and the removals are the agent's own, on the simulated host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use livemerge_api_server::hosts::{self, HostError, Measured, Removals, Removed, is_a_no};
use livemerge_api_server::snapshot::Consistency;
use livemerge_api_server::snapshot::plan::Range;
use livemerge_api_server::snapshot::step::{Answer, Ask};
use livemerge_host_agent::latest::{Given, Latest};
use livemerge_host_agent::merge::{self, MergeOrder, MergeRecord, Room, check};
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, RemovalOrder};

use super::agent::{Agent, Process, answered};
use super::convert;
use super::driver::{Driver, Journal};
use super::event::Did;
use super::network::{CallId, Question, Told};
use super::schedule::Seen;

/// An order that the agent works on.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) call: CallId,
    generation: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Arrived(Question),
    /// Merges that passed the checks and are not all in the journal yet.
    Checked(Vec<MergeRecord>),
}

/// What storage still frees, and after how many steps it is gone. Outlives the agent.
pub(super) type Purging = BTreeMap<RemovalId, u32>;

impl Order {
    pub(super) fn new(call: CallId, generation: u64, question: Question) -> Self {
        Self {
            call,
            generation,
            stage: Stage::Arrived(question),
        }
    }

    fn accepts(&self) -> bool {
        matches!(self.stage, Stage::Checked(_))
    }

    /// What was asked, until it is being done.
    pub(super) fn ask(&self) -> Option<&Ask> {
        match &self.stage {
            Stage::Arrived(Question::Ask(ask)) => Some(ask),
            _ => None,
        }
    }
}

/// How an order is gone on with.
pub(super) struct Around<'a> {
    pub(super) now: Duration,
    pub(super) purging: &'a mut Purging,
    /// Steps that a removal takes after its volume is condemned.
    pub(super) purge_steps: u32,
    /// The journal cannot be written just now.
    pub(super) journal_fails: bool,
    pub(super) seen: &'a mut Seen,
}

impl Agent {
    /// The orders that can be gone on with. They are accepted one at a time; a wish waits for the end
    /// of its merge's round.
    pub(super) fn ready_orders(&self) -> Vec<usize> {
        let Some(process) = &self.process else {
            return vec![];
        };
        let accepting = process.orders.iter().any(Order::accepts);
        let ready = |order: &Order| match order.ask() {
            Some(Ask::Merges(_)) => !accepting,
            Some(Ask::Cancel(merge)) => process.may_be_wished(&[*merge]),
            Some(Ask::Limit(merges, _)) => process.may_be_wished(merges),
            _ => true,
        };
        (0..process.orders.len())
            .filter(|order| ready(&process.orders[*order]))
            .collect()
    }

    /// The next stage of an order, and its answer when there is one.
    pub(super) fn handle(
        &mut self,
        order: usize,
        around: Around<'_>,
    ) -> (Did, Option<(CallId, Told)>) {
        let Some(process) = self.process.as_mut() else {
            return (Did::nothing("it does not run"), None);
        };
        let Order {
            call,
            generation,
            stage,
        } = process.orders.remove(order);
        let answer = match stage {
            Stage::Arrived(question) => match self.take(call, generation, question, around) {
                Done::Told(told) => told,
                Done::Accept(records) => {
                    let did = Did::nothing(("checked", call, records.len()));
                    self.put_back(call, generation, records);
                    return (did, None);
                }
            },
            Stage::Checked(_) if around.journal_fails => {
                self.half_accepted.clear();
                let text = "the agent's journal cannot be written";
                Told::Answer(no(Problem::new(Reason::StoreUnavailable, text)))
            }
            Stage::Checked(mut records) => {
                self.half_accepted.push(records.remove(0));
                if !records.is_empty() {
                    self.put_back(call, generation, records);
                    return (Did::nothing(("written down in part", call)), None);
                }
                self.accepted(around.now);
                Told::Answer(Answer::MergesAccepted)
            }
        };
        (Did::something((call, &answer)), Some((call, answer)))
    }

    fn put_back(&mut self, call: CallId, generation: u64, records: Vec<MergeRecord>) {
        if let Some(process) = self.process.as_mut() {
            process.orders.push(Order {
                call,
                generation,
                stage: Stage::Checked(records),
            });
        }
    }

    /// All of an order is written down: it is driven from now on.
    fn accepted(&mut self, now: Duration) {
        let records = std::mem::take(&mut self.half_accepted);
        let merges: Vec<_> = records.iter().map(|record| record.order.id).collect();
        let records = records.into_iter().map(|record| (record.order.id, record));
        self.journal.extend(records);
        if let Some(process) = self.process.as_mut() {
            let driver = Driver::new(&merges, &process.hypervisor, now);
            process.drivers.push(driver);
        }
    }

    fn take(
        &mut self,
        call: CallId,
        generation: u64,
        question: Question,
        around: Around<'_>,
    ) -> Done {
        let only_looks = matches!(
            question,
            Question::Measure(..) | Question::Ask(Ask::Chains(_) | Ask::Survey(_))
        );
        if !only_looks {
            if generation < self.fence && !self.takes_late {
                around.seen.count("a stale order is refused");
                let text = "a newer server has given orders";
                return Done::no(Problem::new(Reason::StaleGeneration, text));
            }
            self.fence = generation;
        }
        let wall = self.clock.at(around.now);
        match question {
            Question::Ask(Ask::Cancel(merge)) => {
                let granted = self.cancel(merge, around.now, around.journal_fails);
                Done::of(granted.map(|()| Answer::Heard))
            }
            Question::Ask(Ask::Limit(merges, speed)) => {
                let mut merges = merges.into_iter();
                let limited = merges.try_for_each(|merge| {
                    self.limit(merge, speed, around.now, around.journal_fails)
                });
                Done::of(limited.map(|()| Answer::Heard))
            }
            question => {
                let Some(process) = self.process.as_ref() else {
                    return Done::no(Problem::new(Reason::HostUnreachable, "it does not run"));
                };
                let desk = Desk {
                    process,
                    journal: &self.journal,
                    latest: &self.latest,
                    given: Given {
                        generation,
                        // An order without a number is never late.
                        sequence: if self.takes_late { 0 } else { call },
                    },
                    around,
                    wall,
                };
                desk.take(question)
            }
        }
    }
}

enum Done {
    Told(Told),
    Accept(Vec<MergeRecord>),
}

impl Done {
    fn no(problem: Problem) -> Self {
        Self::Told(Told::Answer(no(problem)))
    }

    fn of(answer: Result<Answer, Problem>) -> Self {
        Self::Told(Told::Answer(answer.unwrap_or_else(no)))
    }
}

/// What an order that has arrived is decided with.
struct Desk<'a> {
    process: &'a Process,
    journal: &'a Journal,
    latest: &'a Arc<Latest>,
    given: Given,
    around: Around<'a>,
    wall: Timestamp,
}

impl Desk<'_> {
    fn take(mut self, question: Question) -> Done {
        let ask = match question {
            Question::Ask(ask) => ask,
            Question::Measure(vm, ranges) => {
                let costs = self.measure(vm, ranges).map_err(host_error);
                return Done::Told(Told::Costs(costs));
            }
        };
        let hypervisor = self.process.hypervisor.as_ref();
        let volumes = self.process.volumes.as_ref();
        Done::of(match ask {
            Ask::Chains(vm) => convert::chains(vm, hypervisor, volumes).map(Answer::Chains),
            Ask::Overlays(order) => {
                let order = convert::overlay_order(order, self.given);
                let done = answered(self.process.overlays.create(&order));
                self.count_late(&done);
                done.map(|_overlaid| Answer::OverlaysOn(Consistency::Crash))
            }
            Ask::Survey(vm) => convert::chains(vm, hypervisor, volumes)
                .map(|chains| Answer::Survey(chains, vec![])),
            Ask::Merges(orders) => {
                let orders = convert::merge_orders(orders, self.given.generation);
                let accepted = self.accept(&orders);
                self.count_late(&accepted);
                match accepted {
                    Ok(records) if !records.is_empty() => return Done::Accept(records),
                    Ok(_known) => Ok(Answer::MergesAccepted),
                    Err(problem) => Err(problem),
                }
            }
            Ask::Cancel(_) | Ask::Limit(..) => unreachable!("a wish goes to the driver"),
            Ask::Removals(orders) => {
                let mut came = Removals::new();
                for order in &orders {
                    let removed = remove(order, volumes, &mut self.around);
                    came.insert(order.id, removed.map_err(host_error));
                }
                Ok(Answer::Removals(came))
            }
        })
    }

    fn count_late<T>(&mut self, answer: &Result<T, Problem>) {
        if answer
            .as_ref()
            .is_err_and(|no| no.reason == Reason::StaleGeneration)
        {
            self.around.seen.count("a late order is refused");
        }
    }

    fn measure(&self, vm: VmId, ranges: Vec<Range>) -> Result<Vec<Measured>, Problem> {
        let hypervisor = self.process.hypervisor.as_ref();
        let oldest: Vec<_> = ranges
            .iter()
            .map(|(_, oldest, _)| oldest.volume.clone())
            .collect();
        let ranges = ranges.into_iter().map(convert::range).collect();
        let room = Room::default();
        let plans = merge::plan(vm, ranges, hypervisor, &self.process.volumes, room);
        let plans = answered(plans)?;
        let measured = plans.into_iter().zip(oldest);
        Ok(measured
            .map(|(plan, oldest)| convert::measured(plan, oldest))
            .collect())
    }

    /// New merges, or none when they are known.
    fn accept(&self, orders: &[MergeOrder]) -> Result<Vec<MergeRecord>, Problem> {
        let known = orders
            .iter()
            .filter_map(|order| self.journal.get(&order.id));
        let known: Vec<_> = known.collect();
        if known.len() == orders.len() {
            return Ok(vec![]);
        }
        if !known.is_empty() {
            let text = "a merge was ordered with another payload";
            return Err(Problem::new(Reason::MergeIdConflict, text));
        }
        if let Some(first) = orders.first() {
            answered(self.latest.pass(first.vm, self.given))?;
        }
        let mut room = Room::default();
        let fitting = |order: &MergeOrder| {
            let mut open = self.journal.values().filter(|other| !other.phase.ended());
            if let Some(open) = open.find(|other| other.order.disk == order.disk) {
                let text = format!("merge {} works on disk {}", open.order.id, order.disk);
                return Err(Problem::new(Reason::ConcurrentChange, text));
            }
            let hypervisor = self.process.hypervisor.as_ref();
            let volumes = &self.process.volumes;
            let fit = answered(check(order, hypervisor, volumes))?;
            let promise = answered(room.promise(order, &fit.work, volumes))?;
            let record = MergeRecord::new(order.clone(), fit, self.wall);
            Ok(MergeRecord { promise, ..record })
        };
        orders.iter().map(fitting).collect()
    }
}

fn remove(
    order: &hosts::RemovalOrder,
    volumes: &Volumes,
    around: &mut Around<'_>,
) -> Result<Removed, Problem> {
    let Around {
        purging,
        purge_steps,
        seen,
        ..
    } = around;
    let known = purging.contains_key(&order.id);
    if !known {
        let volume = &order.volume.volume;
        let removal =
            RemovalOrder::new(order.id, volume.name.clone(), order.volume.identity.clone());
        let removed = answered(volumes.remove(&volume.storage, &removal));
        if removed.is_err() {
            seen.count("a removal fails");
        }
        if removed?.freed_bytes > 0 && *purge_steps > 0 {
            purging.insert(order.id, *purge_steps);
        }
    }
    Ok(Removed {
        gone: !purging.contains_key(&order.id),
        freed_bytes: 0,
        kept_until: None,
        by: None,
    })
}

/// As the server takes a problem that its agent answers with.
fn host_error(problem: Problem) -> HostError {
    if is_a_no(problem.reason) {
        HostError::Refused(problem)
    } else {
        HostError::Unknown(problem)
    }
}

fn no(problem: Problem) -> Answer {
    Answer::Error(host_error(problem))
}
