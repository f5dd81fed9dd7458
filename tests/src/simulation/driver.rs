//! The merges that go together on the agent: whose turn it is, and what comes next, one small action at
//! a time, so that anything may happen between two of them, also the agent's end.
//!
//! ```text
//!   look at the machine ─▶ look at the job, decide ─┬─▶ write the phase down ─▶ act ─┐
//!            ▲                                      ├─▶ help, or no longer           │
//!            │                                      └─▶ sleep                        │
//!            └──── the next member, or the same while the guest may stand still ─────┘
//! ```
//!
//! Wishes are granted between two rounds, as the real driver does.

mod turn;

use std::collections::BTreeMap;
use std::time::Duration;

use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{Hypervisor as _, HypervisorEvent, VmView};
use livemerge_host_agent::merge::step::{Action, Peers};
use livemerge_host_agent::merge::{Help, MergeRecord, Phase};
use livemerge_proto::ids::MergeId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::member::Member;

pub(super) use turn::Turn;

/// The longest time between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// The agent's journal.
pub(super) type Journal = BTreeMap<MergeId, MergeRecord>;

/// Takes the merges that go together to their end.
pub(super) struct Driver {
    pub(super) members: Vec<Member>,
    /// Whose turn it is.
    place: usize,
    /// How long there is nothing to do after this round.
    rest: Duration,
    /// No member has had its turn in this round.
    round_begins: bool,
    events: Receiver<HypervisorEvent>,
    todo: Todo,
}

/// What a driver does next.
#[derive(Debug)]
enum Todo {
    Look,
    LookAtJob(Option<VmView>),
    Persist(Phase, Option<Action>),
    Act(Action),
    SetSpeed(u64),
    Help(Help),
    /// It is written down, and to be done.
    DoHelp(Help),
    /// Within the window: not before, or an event.
    Stand(Duration),
    /// After a round: not before, or an event, or a wish.
    Rest(Duration),
    /// Not before, whatever happens.
    Retry(Duration),
}

impl Driver {
    pub(super) fn new(merges: &[MergeId], hypervisor: &FakeHypervisor, now: Duration) -> Self {
        Self {
            members: merges.iter().map(|id| Member::new(*id, now)).collect(),
            place: 0,
            rest: ROUND,
            round_begins: true,
            events: hypervisor.events(),
            todo: Todo::Look,
        }
    }

    /// When it can go on by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.todo {
            Todo::Stand(until) | Todo::Rest(until) | Todo::Retry(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn can_go_on(&self, now: Duration) -> bool {
        match self.todo {
            Todo::Stand(until) | Todo::Rest(until) => until <= now || !self.events.is_empty(),
            Todo::Retry(until) => until <= now,
            _ => true,
        }
    }

    /// Whether it is about to do something to the guest.
    pub(super) fn acts(&self) -> bool {
        matches!(
            self.todo,
            Todo::Act(_) | Todo::DoHelp(_) | Todo::SetSpeed(_)
        )
    }

    /// Whether it is about to write the journal.
    pub(super) fn writes(&self) -> bool {
        matches!(self.todo, Todo::Persist(..))
    }

    /// Whether a wish can be granted now.
    pub(super) fn hears_wishes(&self) -> bool {
        matches!(self.todo, Todo::Rest(_)) || (self.round_begins && matches!(self.todo, Todo::Look))
    }

    pub(super) fn has(&self, merge: MergeId) -> bool {
        self.members.iter().any(|member| member.merge == merge)
    }

    /// Whether all its merges have ended.
    pub(super) fn ended(&self, journal: &Journal) -> bool {
        let mut members = self.members.iter();
        members.all(|member| journal[&member.merge].phase.ended())
    }

    pub(super) fn peers(&self, of: MergeId, journal: &Journal) -> Peers {
        let others = self.members.iter().filter(|member| member.merge != of);
        Peers::of(others.map(|member| &journal[&member.merge]))
    }

    /// A wish was written down for a member; what it takes is done next.
    pub(super) fn granted(&mut self, merge: MergeId, wish: Granted, now: Duration) {
        let place = self.members.iter().position(|it| it.merge == merge);
        self.place = place.unwrap_or_default();
        self.round_begins = false;
        self.todo = match wish {
            Granted::Cancel(action) => {
                self.members[self.place].entered(false, now);
                action.map_or(Todo::Look, Todo::Act)
            }
            Granted::Limit(speed) => Todo::SetSpeed(speed),
        };
    }

    /// Takes in the events that have arrived. True when one of them is worth a look.
    fn hear(&mut self, journal: &Journal) -> bool {
        let mut worth = false;
        loop {
            match self.events.try_recv() {
                Ok(event) => {
                    for member in &mut self.members {
                        worth |= member.note(&journal[&member.merge], &event);
                    }
                }
                Err(TryRecvError::Lagged(_)) => worth = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return worth,
            }
        }
    }

    /// The turn of this member is over for now.
    fn pass_on(&mut self, time: Duration, journal: &Journal, now: Duration) {
        let open = |place: &usize| !journal[&self.members[*place].merge].phase.ended();
        let record = &journal[&self.members[self.place].merge];
        if !record.phase.ended() && Member::within_window(record) {
            self.todo = sleep(Todo::Stand, time, now);
            return;
        }
        self.rest = self.rest.min(time);
        let next = (self.place + 1..self.members.len()).find(open);
        self.round_begins = next.is_none();
        if let Some(next) = next {
            self.place = next;
            self.todo = Todo::Look;
        } else {
            let first = (0..self.members.len()).find(open);
            self.place = first.unwrap_or_default();
            self.todo = sleep(Todo::Rest, self.rest, now);
            self.rest = ROUND;
        }
    }
}

/// What a wish that is written down takes.
#[derive(Clone, Copy)]
pub(super) enum Granted {
    Cancel(Option<Action>),
    Limit(u64),
}

fn sleep(kind: fn(Duration) -> Todo, time: Duration, now: Duration) -> Todo {
    if time.is_zero() {
        Todo::Look
    } else {
        kind(now + time)
    }
}
