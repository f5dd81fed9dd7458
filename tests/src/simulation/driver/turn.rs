//! One small action of a driver: a look, a decision by the real `step`, a write of the journal, an act on
//! the hypervisor, and what its luck makes of it.

use std::time::Duration;

use jiff::Timestamp;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{Hypervisor, HypervisorError, VmState, VmView};
use livemerge_host_agent::merge::step::{Action, Outcome, Policy, Step, Told};
use livemerge_host_agent::merge::{
    Help, MergeRecord, Phase, backing_of, job_order, runs_unwritten,
};

use super::super::agent::{Luck, MergeStep, answered};
use super::super::event::Did;
use super::super::member::Member;
use super::super::schedule::Seen;
use super::{Driver, Journal, Todo};

const JOURNAL_RETRY: Duration = Duration::from_millis(100);
/// A copy that falls behind is helped soon: a run is short.
const STALLED: Duration = Duration::from_millis(400);

/// One small action of one driver.
pub(in crate::simulation) struct Turn<'a> {
    pub(in crate::simulation) driver: &'a mut Driver,
    pub(in crate::simulation) journal: &'a mut Journal,
    pub(in crate::simulation) hypervisor: &'a FakeHypervisor,
    /// What must never be asked of the hypervisor, and was.
    pub(in crate::simulation) wrong: &'a mut Option<String>,
    pub(in crate::simulation) seen: &'a mut Seen,
    pub(in crate::simulation) now: Duration,
    pub(in crate::simulation) luck: Luck,
}

impl Turn<'_> {
    pub(in crate::simulation) fn go_on(mut self, step: MergeStep, wall: Timestamp) -> Did {
        match std::mem::replace(&mut self.driver.todo, Todo::Look) {
            Todo::Look => self.look(),
            Todo::LookAtJob(vm) => self.decide(vm, step, wall),
            Todo::Persist(phase, action) => self.persist(phase, action),
            Todo::Act(action) => self.act(action),
            Todo::SetSpeed(speed) => self.set_speed(speed),
            Todo::Help(help) => self.help(help),
            Todo::DoHelp(help) => self.do_help(help),
            Todo::Stand(until) => self.wake(until, Todo::Stand),
            Todo::Rest(until) => self.wake(until, Todo::Rest),
            Todo::Retry(_) => Did::nothing("tries the journal again"),
        }
    }

    fn member(&mut self) -> &mut Member {
        &mut self.driver.members[self.driver.place]
    }

    fn record(&self) -> &MergeRecord {
        &self.journal[&self.driver.members[self.driver.place].merge]
    }

    fn record_mut(&mut self) -> &mut MergeRecord {
        let merge = self.driver.members[self.driver.place].merge;
        let record = self.journal.get_mut(&merge);
        record.expect("a driver's merges are in the journal")
    }

    fn pass_on(&mut self, time: Duration) {
        self.driver.pass_on(time, self.journal, self.now);
    }

    fn wake(&mut self, until: Duration, sleeps: fn(Duration) -> Todo) -> Did {
        if !self.driver.hear(self.journal) && self.now < until {
            self.driver.todo = sleeps(until);
        }
        Did::nothing("wakes")
    }

    fn look(&mut self) -> Did {
        self.driver.hear(self.journal);
        if self.record().phase.ended() {
            self.pass_on(Duration::ZERO);
            return Did::nothing("it has ended");
        }
        self.driver.round_begins = false;
        let looked = answered(self.hypervisor.vm(self.record().order.vm));
        let vm = match looked {
            Ok(_) if self.luck != Luck::Good => None,
            seen => seen.ok(),
        };
        let did = Did::nothing(vm.as_ref().map_or("looks, it cannot be told", shown));
        self.driver.todo = Todo::LookAtJob(vm);
        did
    }

    fn decide(&mut self, vm: Option<VmView>, step: MergeStep, wall: Timestamp) -> Did {
        let record = self.record().clone();
        let peers = self.driver.peers(record.order.id, self.journal);
        let (hypervisor, now) = (self.hypervisor, self.now);
        let seen = self.member().observe(&record, vm, hypervisor, peers, now);
        let policy = Policy {
            stalled_after: STALLED,
            ..Policy::default()
        };
        let next = step(&record, &seen, &policy, wall);
        let did = Did::nothing((&record.order.disk, &record.phase, &next));
        match next {
            Step::Wait(time) => self.pass_on(time),
            Step::Enter(phase, action) => self.driver.todo = Todo::Persist(phase, action),
            Step::Help(help) => self.driver.todo = Todo::Help(help),
            Step::Finish(outcome) => {
                let phase = match outcome {
                    Outcome::Cancelled => Phase::Cancelled { at: wall },
                    Outcome::Merged => Phase::Merged { at: wall },
                    Outcome::Failed(failure) => Phase::Failed { at: wall, failure },
                };
                self.driver.todo = Todo::Persist(phase, None);
            }
        }
        did
    }

    fn persist(&mut self, phase: Phase, action: Option<Action>) -> Did {
        self.limit_again(&phase);
        if self.luck != Luck::Good {
            if runs_unwritten(&self.record().phase, &phase, action) {
                self.release_unjournaled();
            }
            self.driver.todo = Todo::Retry(self.now + JOURNAL_RETRY);
            return Did::something("the journal cannot be written");
        }
        let did = Did::something(("journal", &self.record().order.disk, &phase));
        if matches!(phase, Phase::Restoring { .. }) {
            self.seen.count("a pull is undone after QEMU's death");
        }
        let record = self.record_mut();
        let pivots = |phase: &Phase| matches!(phase, Phase::Pivoting { .. });
        if pivots(&phase) && !pivots(&record.phase) {
            record.pivot_attempts += 1;
        }
        record.phase = phase;
        record.revision += 1;
        let (now, starts) = (self.now, action == Some(Action::StartJob));
        self.member().entered(starts, now);
        match action {
            Some(action) => self.driver.todo = Todo::Act(action),
            None => self.pass_on(Duration::ZERO),
        }
        did
    }

    /// A pivot that is put off: the job goes on with the limit that was lifted for it.
    fn limit_again(&mut self, next: &Phase) {
        let record = self.record();
        let put_off = matches!(
            (&record.phase, next),
            (Phase::Pivoting { .. }, Phase::Ready { .. })
        );
        let limit = record.bytes_per_second;
        if put_off && record.pivots() && limit > 0 && !record.help.unlimited {
            let order = &record.order;
            let _as_slow_as_it_was =
                answered(self.hypervisor.set_speed(order.vm, &order.disk, limit));
        }
    }

    fn release_unjournaled(&mut self) {
        if !self.member().let_run {
            let let_run = answered(self.hypervisor.resume(self.record().order.vm)).is_ok();
            self.member().let_run = let_run;
        }
        self.member().fresh_start = true;
    }

    fn act(&mut self, action: Action) -> Did {
        let record = self.record().clone();
        let (vm, disk) = (record.order.vm, &record.order.disk);
        let hypervisor = self.hypervisor;
        let holds_up = match action {
            Action::Suspend => record.pivots(),
            Action::Pivot => !record.phase.suspended(),
            _ => false,
        };
        if holds_up && record.bytes_per_second > 0 {
            // A limit would hold up the rest, too.
            let _as_fast_as_it_is = answered(hypervisor.set_speed(vm, disk, 0));
        }
        self.spoil(call(action));
        let reply = match action {
            Action::StartJob => {
                if hypervisor.running_job(vm, disk).is_some() {
                    *self.wrong = Some("I3: a job was asked for where one runs".to_owned());
                }
                answered(hypervisor.start_job(vm, &job_order(&record)))
            }
            Action::AbortJob => answered(hypervisor.abort_job(vm, disk)),
            Action::SetNextStart => {
                let port: &dyn Hypervisor = hypervisor;
                answered(port.set_next_start(vm, disk, &record.removed, &record.kept))
            }
            Action::RestoreBacking => {
                let backing = backing_of(&record);
                let relinked = record.relinked.as_ref().unwrap_or(&record.kept);
                answered(hypervisor.restore_backing(vm, disk, relinked, &backing))
            }
            Action::Suspend => answered(hypervisor.suspend(vm)),
            Action::AddOverlay => unreachable!("no spare is ordered here"),
            Action::Pivot => {
                self.may_pivot(&record);
                answered(hypervisor.pivot(vm, disk))
            }
            Action::Resume => answered(hypervisor.resume(vm)),
        };
        let did = Did::something((action, disk, &reply));
        if let Err(HypervisorError::Refused(text)) = reply {
            self.member().told = Some(Told::Refused(text));
        }
        self.pass_on(Duration::ZERO);
        did
    }

    /// The next call of that name goes as this one's luck is.
    fn spoil(&self, name: &str) {
        let hypervisor = self.hypervisor;
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
    }

    /// Before the first pivot all that go together have caught up.
    fn may_pivot(&mut self, record: &MergeRecord) {
        let others = self.driver.members.iter();
        let mut others = others.map(|member| &self.journal[&member.merge]);
        let behind = others.find(|other| {
            let early = matches!(other.phase, Phase::Pending | Phase::Copying { .. });
            other.pivots() && early
        });
        if let Some(behind) = behind {
            let (disk, other) = (&record.order.disk, &behind.order.disk);
            *self.wrong = Some(format!(
                "barrier: {disk} is pivoted before {other} has caught up"
            ));
        }
    }

    fn set_speed(&mut self, speed: u64) -> Did {
        self.spoil("set_speed");
        let order = &self.record().order;
        let set = answered(self.hypervisor.set_speed(order.vm, &order.disk, speed));
        let did = Did::something(("speed", &order.disk, speed, set));
        self.pass_on(Duration::ZERO);
        did
    }

    fn put_help_off(&mut self) {
        let until = self.now + STALLED;
        self.member().no_help_until = Some(until);
    }

    /// What holds the guest back is written down first, and taken back before that is written down.
    fn help(&mut self, mut help: Help) -> Did {
        let record = self.record().clone();
        let (vm, disk) = (record.order.vm, &record.order.disk);
        self.member().closest = None;
        let undone = help == Help::default();
        if let (true, Some(throttle)) = (undone, record.help.throttle) {
            self.spoil("limit_writes");
            match answered(self.hypervisor.limit_writes(vm, disk, throttle.before)) {
                Err(HypervisorError::Unknown(_)) => {
                    self.driver.todo = Todo::Retry(self.now + JOURNAL_RETRY);
                    return Did::something("the guest's limit stays");
                }
                Err(_) => self.put_help_off(),
                Ok(()) => {}
            }
        } else if self.luck != Luck::Good {
            self.driver.todo = Todo::Retry(self.now + JOURNAL_RETRY);
            return Did::nothing("the journal cannot be written");
        }
        if let (Some(throttle), None) = (&mut help.throttle, record.help.throttle) {
            match answered(self.hypervisor.write_limit(vm, disk)) {
                Ok(before) => throttle.before = before,
                Err(_) => {
                    self.put_help_off();
                    self.pass_on(Duration::ZERO);
                    return Did::nothing("the guest's limit cannot be told");
                }
            }
        }
        self.seen.count(match (undone, help.throttle) {
            (true, _) => "help is taken back",
            (_, None) => "a job's limit is lifted",
            (_, Some(_)) => "the guest is held back",
        });
        let record = self.record_mut();
        record.help = help;
        record.revision += 1;
        self.member().inherited_help = false;
        if undone {
            self.pass_on(Duration::ZERO);
        } else {
            self.driver.todo = Todo::DoHelp(help);
        }
        Did::something(("helps", disk, help))
    }

    fn do_help(&mut self, help: Help) -> Did {
        let record = self.record().clone();
        let (vm, disk) = (record.order.vm, &record.order.disk);
        if help.unlimited {
            let _as_fast_as_it_is = answered(self.hypervisor.set_speed(vm, disk, 0));
        }
        if let Some(throttle) = help.throttle {
            self.spoil("limit_writes");
            let limit = throttle.bytes_per_second;
            let set = answered(self.hypervisor.limit_writes(vm, disk, limit));
            if matches!(set, Err(HypervisorError::Refused(_))) {
                self.put_help_off();
            }
        }
        self.pass_on(Duration::ZERO);
        Did::something(("helps", disk))
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
