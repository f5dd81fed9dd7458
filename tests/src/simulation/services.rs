//! What happens to the two services, between them, and by their clients.

use std::time::Duration;

use livemerge_api_server::snapshot::step::Ask;
use livemerge_api_server::snapshot::{
    DeletePhase, Direction, DiskState, DiskTask, MergeOptions, Operation, Work,
};
use livemerge_host_agent::hypervisor::HypervisorError;
use livemerge_host_agent::merge::{MergeRecord, Phase, Window};
use livemerge_proto::ids::{MergeId, OperationId};
use livemerge_proto::reason::Reason;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::agent::Luck;
use super::driver::Driver;
use super::event::Did;
use super::network::{Message, Question};
use super::orders::{Around, Order};
use super::schedule::Seen;
use super::server::Write;
use super::world::World;
use crate::cluster::Upset;

impl World {
    pub(super) fn message_arrives(&mut self, seen: &mut Seen) -> Did {
        match self.take_message(seen) {
            Some(Message::Request(call, generation, question)) => {
                let did = Did::nothing((call, generation, &question));
                if let Some(agent) = self.agent.process.as_mut() {
                    agent.orders.push(Order::new(call, generation, question));
                }
                did
            }
            Some(Message::Reply(call, answer)) => {
                if let Some(server) = self.server.process.as_mut() {
                    server.reply(call, answer, &self.server.record, self.now);
                }
                Did::nothing(("reply", call))
            }
            None => Did::nothing("there is none"),
        }
    }

    pub(super) fn message_is_lost(&mut self, seen: &mut Seen) -> Did {
        seen.count("a message is lost");
        Did::nothing(self.take_message(seen))
    }

    pub(super) fn message_comes_twice(&mut self, seen: &mut Seen) -> Did {
        seen.count("a message comes twice");
        let again = self.network.messages.choose(&mut self.rng).cloned();
        let late = self.rng.random_bool(0.5);
        let did = Did::nothing((&again, late));
        if late {
            self.network.late.extend(again);
        } else {
            self.network.messages.extend(again);
        }
        did
    }

    /// What was long on its way is about to arrive.
    pub(super) fn late_message_comes(&mut self, seen: &mut Seen) -> Did {
        let late = &mut self.network.late;
        if late.is_empty() {
            return Did::nothing("there is none");
        }
        seen.count("a copy comes late");
        let which = self.rng.random_range(0..late.len());
        let message = late.remove(which);
        let did = Did::nothing(&message);
        self.network.messages.push(message);
        did
    }

    fn take_message(&mut self, seen: &mut Seen) -> Option<Message> {
        let messages = &mut self.network.messages;
        if messages.is_empty() {
            return None;
        }
        // Often the newest: what was sent before it comes late, also past the end of who sent it.
        let newest = messages.len() - 1;
        let which = match self.rng.random_bool(0.5) {
            true => newest,
            false => self.rng.random_range(0..=newest),
        };
        if which > 0 {
            seen.count("a message overtakes another one");
        }
        Some(messages.remove(which))
    }

    pub(super) fn line(&mut self, up: bool) -> Did {
        self.network.up = up;
        if !up {
            self.network.break_stream();
        }
        Did::nothing("")
    }

    pub(super) fn server_notices_the_break(&mut self) -> Did {
        if let Some(server) = self.server.process.as_mut() {
            server.forget();
        }
        Did::nothing("")
    }

    pub(super) fn stream_opens(&mut self) -> Did {
        let full = self.report();
        self.network.reported = self.changes;
        self.network.open_stream(full);
        Did::nothing("")
    }

    pub(super) fn host_reports(&mut self) -> Did {
        let report = self.report();
        self.network.reported = self.changes;
        self.network.report(report);
        Did::nothing("")
    }

    pub(super) fn report_arrives(&mut self) -> Did {
        let report = self.network.reports.pop_front();
        let (Some(report), Some(server)) = (report, self.server.process.as_mut()) else {
            return Did::nothing("nobody hears it");
        };
        let did = Did::nothing(report.vm);
        server.hear(report, self.now);
        did
    }

    pub(super) fn server_goes_on(&mut self, faults: bool) -> Did {
        let write = match self.rng.random_range(0..100) {
            0..4 if faults => Write::NotDone,
            4..8 if faults => Write::NotTold,
            _ => Write::Good,
        };
        self.server.go_on(self.now, write, &mut self.network)
    }

    pub(super) fn server_dies(&mut self, seen: &mut Seen) -> Did {
        let server = self.server.process.as_ref();
        if server.is_some_and(|server| server.writes()) {
            seen.count("the server dies before it writes");
        }
        if server.is_some_and(|server| server.calls()) {
            seen.count("the server dies while it waits for an answer");
        }
        self.crash_server();
        Did::nothing("")
    }

    pub(super) fn server_starts(&mut self) -> Did {
        self.start_server();
        Did::nothing(self.server.record.generation)
    }

    pub(super) fn agent_goes_on(&mut self, faults: bool, seen: &mut Seen) -> Did {
        let driver = self.agent.process.as_ref();
        let acts = driver.is_some_and(|agent| agent.drivers.first().is_some_and(Driver::acts));
        // Looks and journals go wrong rarely, or nothing would ever be done.
        let odds = if acts { 10 } else { 2 };
        let luck = match self.rng.random_range(0..100) / odds {
            0 if faults => Luck::NotDone,
            1 if faults => Luck::Refused,
            2 if faults => Luck::NotTold,
            _ => Luck::Good,
        };
        self.agent.go_on(self.now, luck, seen)
    }

    pub(super) fn agent_handles_an_order(&mut self, faults: bool, seen: &mut Seen) -> Did {
        let ready = self.agent.ready_orders();
        let Some(order) = ready.choose(&mut self.rng).copied() else {
            return Did::nothing("there is none");
        };
        if faults {
            self.spoil_a_call(order);
        }
        let around = Around {
            now: self.now,
            purge_steps: self.rng.random_range(0..=2),
            journal_fails: faults && self.rng.random_bool(0.05),
            purging: &mut self.purging,
            seen,
        };
        let (did, reply) = self.agent.handle(order, around);
        self.storage_faults.end();
        if let Some((call, answer)) = reply {
            self.network.reply(call, answer);
        }
        self.freeze_what_got_an_overlay();
        did
    }

    fn freeze_what_got_an_overlay(&mut self) {
        let before = std::mem::take(&mut self.machine.disks);
        self.refresh();
        for (before, after) in before.iter().zip(&self.machine.disks) {
            if let (Some(below), Some(active)) = (before.active(), after.active())
                && below != active
            {
                self.guest.freeze(&before.target, &below.locator);
            }
        }
    }

    /// One of the calls that an order may make goes wrong.
    fn spoil_a_call(&mut self, order: usize) {
        let orders = self.agent.process.as_ref().map(|process| &process.orders);
        let ask = orders.and_then(|orders| orders[order].ask());
        let removes = matches!(ask, Some(Ask::Removals(_)));
        // What an overlay leaves behind when its undoing fails, too, is a finding, and no loss.
        if (removes || matches!(ask, Some(Ask::Merges(_)))) && self.rng.random_bool(0.25) {
            let call = if removes && self.rng.random_bool(0.7) {
                "remove"
            } else {
                "stat"
            };
            let upset = match self.rng.random_range(0..4) {
                0 => Upset::Unreached,
                1 => Upset::Answers(Reason::VolumeInUse),
                2 => Upset::Answers(Reason::StorageUnreachable),
                _ => Upset::Lost,
            };
            return self.storage_faults.come(call, upset);
        }
        let lost = || HypervisorError::Unknown("the call was lost".to_owned());
        match self.rng.random_range(0..100) {
            0..3 => self.hypervisor.fail_next("add_overlays", lost()),
            3..8 => self.hypervisor.lose_reply("add_overlays"),
            8..11 => self.hypervisor.fail_next("references", lost()),
            11..14 => self.hypervisor.fail_next("vm", lost()),
            _ => {}
        }
    }

    pub(super) fn agent_dies(&mut self, seen: &mut Seen) -> Did {
        let process = self.agent.process.as_ref();
        let driver = process.and_then(|process| process.drivers.first());
        if driver.is_some_and(|driver| driver.acts()) {
            seen.count("the agent dies between the journal and the act");
        }
        if driver.is_some_and(|driver| driver.writes()) {
            seen.count("the agent dies before it writes the journal");
        }
        for window in self.agent.journal.values().filter_map(window) {
            seen.count(match window {
                Window::Suspending => "the agent dies while it suspends the guest",
                Window::Intent => "the agent dies while it pivots",
                Window::Releasing => "the agent dies while it releases the guest",
            });
        }
        self.crash_agent();
        Did::something("")
    }

    /// The host loses its power: the agent ends, and QEMU with it.
    pub(super) fn host_dies(&mut self, seen: &mut Seen) -> Did {
        seen.count("the host dies");
        self.crash_agent();
        self.hypervisor.kill_vm(self.vm);
        Did::something("")
    }

    /// The agent forgets a merge that has ended, as it does after a week, or when they are many. No
    /// copy of its order is on its way any more by then.
    pub(super) fn journal_forgets(&mut self, seen: &mut Seen) -> Did {
        let forgettable: Vec<_> = self.forgettable().collect();
        let Some(merge) = forgettable.choose(&mut self.rng) else {
            return Did::nothing("there is none");
        };
        seen.count("the journal forgets a merge");
        self.agent.journal.remove(merge);
        Did::something(merge)
    }

    /// Merges of which no order is on its way. A pull, or a commit below another layer, whose end the
    /// server has not seen stays, and so does whatever the server takes for one: after it is forgotten
    /// nobody can tell whether the kept volume has the data, and a delete is refused for ever, which an
    /// operator has to repair.
    pub(super) fn forgettable(&self) -> impl Iterator<Item = MergeId> {
        let requests = self
            .network
            .under_way()
            .filter_map(|message| match message {
                Message::Request(_, _, Question::Ask(ask)) => Some(ask),
                _ => None,
            });
        let process = self.agent.process.as_ref();
        let taken = process.map_or(&[][..], |process| &process.orders);
        let asks = requests.chain(taken.iter().filter_map(Order::ask));
        let ordered: Vec<MergeId> = asks
            .filter_map(|ask| match ask {
                Ask::Merges(orders) => Some(orders.iter().map(|order| order.id)),
                _ => None,
            })
            .flatten()
            .collect();
        let open = self
            .agent
            .journal
            .values()
            .filter(|record| !record.phase.ended());
        let operations = self.server.record.open_operations();
        let unseen = operations.flat_map(merging).filter(|task| {
            let record = self.agent.journal.get(&task.merge);
            let is_merged = |record: &MergeRecord| matches!(record.phase, Phase::Merged { .. });
            let proof = task.merging().chain_tells;
            record.is_some_and(|record| record.relinked.is_some() || is_merged(record) && !proof)
        });
        let unseen = unseen.map(|task| task.merge);
        // Whoever works on a merge holds its record, and one of several may have ended before the others.
        let drivers = process.iter().flat_map(|process| &process.drivers);
        let driven = drivers.flat_map(|driver| driver.members.iter().map(|member| member.merge));
        let kept: Vec<MergeId> = open
            .flat_map(|record| record.order.together.clone())
            .chain(driven)
            .chain(ordered)
            .chain(unseen)
            .collect();
        let all = self.agent.journal.keys().copied();
        all.filter(move |merge| !kept.contains(merge))
    }

    pub(super) fn agent_starts(&mut self) -> Did {
        self.start_agent();
        Did::nothing("")
    }

    pub(super) fn clock_jumps(&mut self, seen: &mut Seen) -> Did {
        seen.count("a clock jumps");
        let seconds = self.rng.random_range(-90_000..=90_000);
        let server = self.rng.random_bool(0.5);
        let clock = if server {
            &mut self.server.clock
        } else {
            &mut self.agent.clock
        };
        clock.jump(seconds);
        Did::nothing((if server { "server" } else { "agent" }, seconds))
    }

    pub(super) fn time_passes(&mut self, faults: bool) -> Did {
        let driver = self.agent.process.as_ref();
        let driver = driver.and_then(|process| process.drivers.first()?.due());
        let server = self.server.process.as_ref();
        let server = server.and_then(|process| process.due());
        let due = [driver, server].into_iter().flatten();
        let next = due.filter(|due| *due > self.now).min();
        let long = self.rng.random_bool(if faults { 0.3 } else { 1.0 });
        self.now = match next {
            Some(next) if long => next,
            _ => self.now + Duration::from_millis(self.rng.random_range(1..=500)),
        };
        Did::nothing("")
    }

    pub(super) fn client_creates(&mut self) -> Did {
        Did::something(self.ask_create())
    }

    /// A client deletes one snapshot or several, in either direction, with a limit or without.
    pub(super) fn client_deletes(&mut self) -> Did {
        let snapshots: Vec<_> = self.server.record.snapshots.keys().copied().collect();
        let many = self.rng.random_range(1..=snapshots.len().clamp(1, 3));
        let chosen = snapshots.sample(&mut self.rng, many);
        let chosen: Vec<_> = chosen.copied().collect();
        let options = MergeOptions {
            direction: match self.rng.random_range(0..4) {
                0 => Some(Direction::Pull),
                1 => Some(Direction::Commit),
                _ => None,
            },
            bytes_per_second: if self.rng.random_bool(0.3) { 1_000 } else { 0 },
        };
        let accepted = self.ask_delete(&chosen, options);
        Did::something((chosen, options, accepted))
    }

    pub(super) fn client_cancels(&mut self, seen: &mut Seen) -> Did {
        let Some(operation) = self.an_open_operation() else {
            return Did::nothing("nothing is open");
        };
        let asked = self.server.cancel(operation, self.now);
        if asked {
            seen.count("a cancel is asked for");
        }
        Did::something((operation, asked))
    }

    pub(super) fn client_limits(&mut self, seen: &mut Seen) -> Did {
        let Some(operation) = self.an_open_operation() else {
            return Did::nothing("nothing is open");
        };
        let limit = [0, 1_000, 5_000][self.rng.random_range(0..3)];
        let asked = self.server.limit(operation, limit);
        if asked {
            seen.count("a limit is asked for");
        }
        Did::something((operation, limit, asked))
    }

    fn an_open_operation(&mut self) -> Option<OperationId> {
        let open = self.server.record.open_operations();
        let open: Vec<_> = open.map(|operation| operation.id).collect();
        open.choose(&mut self.rng).copied()
    }

    /// Of what is left at the end, one snapshot is deleted, or all of them.
    pub(super) fn leftover_is_deleted(&mut self) -> Did {
        let left: Vec<_> = self.server.record.snapshots.keys().copied().collect();
        let all = self.rng.random_bool(0.3);
        let one = left.choose(&mut self.rng).copied();
        let chosen = if all { left } else { one.into_iter().collect() };
        let accepted = self.ask_delete(&chosen, MergeOptions::default());
        Did::something((chosen, accepted))
    }

    /// A client asks once more, under the same id.
    pub(super) fn client_repeats(&mut self) -> Did {
        let Some((request, first)) = self.requests.choose(&mut self.rng).copied() else {
            return Did::nothing("nothing was asked");
        };
        let again = self.server.create(request, self.vm, self.now);
        // Another one than the first is kept, too: the invariant sees that both cannot be.
        self.requests.extend(
            again
                .filter(|again| *again != first)
                .map(|again| (request, again)),
        );
        Did::something((request, again))
    }
}

/// What the operation has had merged and not seen the end of.
fn merging(operation: &Operation) -> impl Iterator<Item = &DiskTask> {
    let tasks = match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => &tasks[..],
        _ => &[],
    };
    let merging = |task: &&DiskTask| task.state == DiskState::Merging;
    tasks.iter().filter(merging)
}

fn window(record: &MergeRecord) -> Option<Window> {
    match record.phase {
        Phase::Pivoting { window, .. } => Some(window),
        _ => None,
    }
}
