//! Takes the merges of one machine that go together to their end.
//!
//! ```text
//!          ┌───────────────────────────────────────────────┐
//!          ▼                                               │
//!   look (hypervisor) ─▶ step (pure) ─┬─ Enter ─▶ journal ─▶ act
//!          ▲                          ├─ Wait ──▶ event, wish or timer
//!          └──────────────────────────┘  Finish ─▶ journal, end
//! ```
//!
//! The members take turns. One that may have stopped the guest takes all its turns alone, until the
//! guest runs again: it never stands still for a look at another disk.

use super::board::{Board, MergeView};
use super::journal::Journal;
use super::member::Member;
use super::step::{Action, Peers, Policy};
use super::types::{MergeRecord, Overlaying, Phase};
use crate::hypervisor::{Hypervisor, HypervisorEvent};
use crate::overlays::Overlays;
use crate::volumes::Volumes;
use futures::FutureExt as _;
use livemerge_proto::ids::MergeId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Clock, Shutdown};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot};

/// The longest time between two rounds of looks.
const ROUND: Duration = Duration::from_secs(5);

/// A driver's turn at its machine.
pub(super) type Turn = OwnedMutexGuard<()>;

/// What a driver works with.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) journal: Arc<Journal>,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) overlays: Arc<Overlays>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) board: Board,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) policy: Arc<Policy>,
    pub(super) shutdown: Shutdown,
}

/// What is asked of a merge under way.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) merge: MergeId,
    pub(super) what: What,
    pub(super) answer: oneshot::Sender<Result<MergeView, Problem>>,
}

/// What a wish is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// That the merge is given up.
    Cancel,
    /// That its job copies no more than so many bytes a second; 0 for no limit.
    Limit(u64),
}

/// Where wishes are sent to a driver.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    sender: mpsc::UnboundedSender<Wish>,
    /// For who is in the middle of something that may take long.
    came: Arc<Notify>,
}

/// Where a driver finds them.
pub(super) struct Wished {
    receiver: mpsc::UnboundedReceiver<Wish>,
    came: Arc<Notify>,
}

impl Wishes {
    pub(super) fn new() -> (Self, Wished) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let came = Arc::new(Notify::new());
        let wished = Wished {
            receiver,
            came: Arc::clone(&came),
        };
        (Self { sender, came }, wished)
    }

    /// False when the driver is gone.
    pub(super) fn send(&self, wish: Wish) -> bool {
        let sent = self.sender.send(wish).is_ok();
        self.came.notify_one();
        sent
    }
}

/// Drives the merges that go together.
pub(super) struct Driver {
    around: Surroundings,
    members: Vec<Member>,
    events: Receiver<HypervisorEvent>,
    wishes: Wished,
}

impl Driver {
    /// Prepares to drive records that are in the journal. Events from now on are heard.
    pub(super) fn new(around: Surroundings, records: Vec<MergeRecord>, wishes: Wished) -> Self {
        let events = around.hypervisor.events();
        let member = |record| Member::new(around.clone(), record, Arc::clone(&wishes.came));
        Self {
            members: records.into_iter().map(member).collect(),
            around,
            events,
            wishes,
        }
    }

    /// Runs, when it is its turn at the machine's lane, to the end of all members, or to the next point at
    /// which the guest needs nobody once the agent stops. May be dropped at any await: the journal
    /// has all.
    pub(super) async fn run(mut self, lane: Arc<Mutex<()>>, mut turn: Option<Turn>) {
        while turn.is_none() && !self.ended() {
            tokio::select! {
                taken = Arc::clone(&lane).lock_owned() => turn = Some(taken),
                Some(wish) = self.wishes.receiver.recv() => self.grant(wish).await,
            }
        }
        while !self.ended() && !self.may_stop() {
            let time = self.round().await;
            if !time.is_zero() {
                self.wait(time, true).await;
            }
            while let Ok(wish) = self.wishes.receiver.try_recv() {
                self.grant(wish).await;
            }
        }
    }

    fn ended(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.record.phase.ended())
    }

    fn may_stop(&self) -> bool {
        let within_window = self.members.iter().any(Member::within_window);
        self.around.shutdown.is_cancelled() && !within_window
    }

    /// A turn of each member. Returns how long there is nothing to do unless something happens.
    async fn round(&mut self) -> Duration {
        let mut rest = ROUND;
        for place in 0..self.members.len() {
            while !self.members[place].record.phase.ended() {
                self.hear();
                let peers = self.peers(place);
                let time = self.members[place].turn(peers).await;
                if !self.members[place].within_window() {
                    rest = rest.min(time);
                    break;
                }
                self.wait(time, false).await;
            }
        }
        rest
    }

    fn peers(&self, of: usize) -> Peers {
        let others = self.members.iter().enumerate();
        let others = others.filter(|(place, _)| *place != of);
        Peers::of(others.map(|(_, member)| &member.record))
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
        let mut worth = false;
        for member in &mut self.members {
            worth |= member.note(event);
        }
        worth
    }

    /// Waits for an event that is worth a look, no longer than this; outside a pivot also for a
    /// wish, and for the agent's stop.
    async fn wait(&mut self, time: Duration, outside: bool) {
        let end = tokio::time::Instant::now() + time;
        let shutdown = self.around.shutdown.clone();
        loop {
            let heard = tokio::select! {
                heard = tokio::time::timeout_at(end, self.events.recv()) => heard,
                () = shutdown.cancelled(), if outside => return,
                Some(wish) = self.wishes.receiver.recv(), if outside => return self.grant(wish).await,
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

    async fn grant(&mut self, wish: Wish) {
        // Nobody is to break anything off for this one any more.
        let _heard = self.wishes.came.notified().now_or_never();
        let place = self
            .members
            .iter()
            .position(|member| member.record.order.id == wish.merge);
        let answer = match place {
            Some(place) => match wish.what {
                What::Cancel => self.cancel(place).await,
                What::Limit(bytes_per_second) => self.limit(place, bytes_per_second).await,
            },
            None => Err(ended(wish.merge)),
        };
        // Who asked may be gone.
        let _ = wish.answer.send(answer);
    }

    /// Gives a merge up, as long as that can be done. What goes together with it follows.
    async fn cancel(&mut self, place: usize) -> Result<MergeView, Problem> {
        let passed = self.peers(place).passed;
        let now = self.around.clock.now();
        let member = &mut self.members[place];
        let written = match &member.record.phase {
            // It is on its way there, or has come to nothing by itself.
            phase if phase.lost() => true,
            Phase::Pending if !passed => member.enter(Phase::Cancelled { at: now }, None).await,
            Phase::Copying { .. }
            | Phase::Ready { .. }
            | Phase::Overlaying {
                stage: Overlaying::Ending,
                ..
            } if !passed => {
                let cancelling = Phase::Cancelling { since: now };
                member.enter(cancelling, Some(Action::AbortJob)).await
            }
            Phase::Overlaying { .. } if !passed => return Err(between(&member.record)),
            _ => return Err(past_return(&member.record)),
        };
        for other in &mut self.members {
            // Of these nothing was touched, and they may have long to wait for their turn.
            if written && matches!(other.record.phase, Phase::Pending) {
                other.enter(Phase::Cancelled { at: now }, None).await;
            }
        }
        self.answer(place, written)
    }

    async fn limit(&mut self, place: usize, bytes_per_second: u64) -> Result<MergeView, Problem> {
        let member = &mut self.members[place];
        if member.record.phase.ended() {
            return Err(ended(member.record.order.id));
        }
        let written = member.limit(bytes_per_second).await;
        self.answer(place, written)
    }

    fn answer(&self, place: usize, written: bool) -> Result<MergeView, Problem> {
        if written {
            return Ok(self.members[place].shown());
        }
        let text = "the agent's journal cannot be written";
        Err(Problem::new(Reason::StoreUnavailable, text))
    }
}

/// That a merge has ended.
pub(super) fn ended(merge: MergeId) -> Problem {
    let text = format!("merge {merge} has ended");
    Problem::new(Reason::ConcurrentChange, text).with("merge", merge)
}

/// That a merge can only go forward.
pub(super) fn past_return(record: &MergeRecord) -> Problem {
    let (id, disk) = (record.order.id, &record.order.disk);
    let text = format!("merge {id} cannot be cancelled: the guest is being switched, or was");
    let problem = Problem::new(Reason::PointOfNoReturn, text);
    problem.with("merge", id).with("disk", disk)
}

/// That whether a merge can be cancelled is seen in a moment.
fn between(record: &MergeRecord) -> Problem {
    let (id, disk) = (record.order.id, &record.order.disk);
    let text =
        format!("merge {id} is giving disk {disk} a fresh overlay: ask again when it copies");
    let problem = Problem::new(Reason::ConcurrentChange, text);
    problem.with("merge", id).with("disk", disk)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
}
