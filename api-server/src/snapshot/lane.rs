//! One virtual machine's operations, one after the other: observe, decide, write down, ask.
//!
//! ```text
//!            ┌────────────────────────────────────────────────────────┐
//!            ▼                                                        │
//!   observe (host view, last answer) ─▶ step ─┬─ Enter ─▶ store ──────┤
//!                                             ├─ Ask ───▶ host ─▶ answer
//!                                             └─ Wait ──▶ sign or timer
//! ```
//!
//! A server that stops lets a lane come to the end of its step: what was asked is answered, what is
//! written is known. One that dies may end it at any await; the store has all, and the next server
//! goes on.

use super::asking::put_to;
use super::foreseen::rate_of;
use super::hub::{Hub, MergeProgress, OperationView, Rate, Waiting};
use super::needed::needed_of;
use super::plan::Wanted;
use super::promised::promised_elsewhere;
use super::stand_in::stand_in;
use super::step::{Answer, Ask, Observation, Sign, Step, Wait, awaited_merges, step};
use super::surroundings::Surroundings;
use super::turns::{Place, Turn};
use super::types::{DeletePhase, Operation, Work};
use crate::hosts::{HostAgent, HostError, HostHandle, HostView, MergeSight, Promised};
use crate::store::{Change, StoreError};
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::ids::{HostId, MergeId, OperationId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Backoff, Tries};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use uuid::Uuid;

/// Time before the store is tried again after it failed.
const STORE_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// So often in a row somebody else may have been faster; then it is told, and not tried again at once.
const CONFLICTS: u32 = 3;

/// Takes one operation to its end.
pub(super) struct Run {
    pub(super) around: Arc<Surroundings>,
    pub(super) operation: Operation,
    answer: Option<Answer>,
    answered_at: Instant,
    answered_by: Option<HostId>,
    attempts: u32,
    store: Tries,
    begun: bool,
    unseen_since: Option<Instant>,
    rates: BTreeMap<MergeId, Rate>,
    turn: Turn,
    pub(super) asked: broadcast::Receiver<OperationId>,
    /// Where it takes room, until it is looked up.
    pub(super) places: Option<BTreeSet<Place>>,
    began: Instant,
}

/// What is known of an operation from before it was written down, or read.
pub(super) struct Known {
    /// What is asked of all from then on.
    asked: broadcast::Receiver<OperationId>,
    /// Where its merges take room, if nothing can change that before its lane comes to it.
    pub(super) places: Option<BTreeSet<Place>>,
}

impl Known {
    pub(super) fn by(hub: &Hub) -> Self {
        Self {
            asked: hub.asked(),
            places: None,
        }
    }
}

impl Run {
    /// Of an operation that was read or written since this was known.
    pub(super) fn new(around: Arc<Surroundings>, operation: Operation, known: Known) -> Self {
        let began = Instant::now();
        let store = Tries::new(STORE_AGAIN, operation.id);
        Self {
            asked: known.asked,
            places: known.places,
            around,
            operation,
            answer: None,
            answered_at: began,
            answered_by: None,
            attempts: 0,
            store,
            begun: true,
            unseen_since: None,
            rates: BTreeMap::new(),
            turn: Turn::default(),
            began,
        }
    }

    pub(super) async fn finish(mut self) {
        // It may have waited for others: what was asked of it meanwhile stands in the record.
        if asked_of(&mut self.asked, self.operation.id)
            .now_or_never()
            .is_some()
        {
            self.reread().await;
        }
        let shutdown = self.around.shutdown.clone();
        match shutdown.run_until_cancelled(self.take_turn()).await {
            Some(turn) => self.turn = turn,
            None => return,
        }
        let mut conflicts = 0;
        while !self.operation.state.ended() && !shutdown.is_cancelled() {
            match self.turn().await {
                Ok(()) => {
                    self.store.succeeded();
                    conflicts = 0;
                }
                // Somebody has asked something of the operation: that stands in the record now.
                Err(StoreError::Conflict(_)) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    self.reread().await;
                }
                Err(error) => self.rest(&error).await,
            }
        }
    }

    pub(super) async fn rest(&mut self, error: &StoreError) {
        tracing::error!(operation = %self.operation.id, error = error as &dyn std::error::Error, "the record cannot be used");
        let cause = Problem::new(
            Reason::StoreUnavailable,
            "the server's database cannot be used",
        );
        let pause = self.store.failed();
        let next = later(self.around.clock.now(), pause);
        self.show_waiting(Some(cause), (next, self.store.count()));
        let shutdown = self.around.shutdown.clone();
        let paused = shutdown.run_until_cancelled(tokio::time::sleep(pause));
        if paused.await.is_some() {
            self.reread().await;
        }
    }

    async fn turn(&mut self) -> Result<(), StoreError> {
        let mut host = match &self.operation.host {
            Some(planned_on) => self.around.hosts.handle(planned_on),
            None => self.around.hosts.of_vm(self.operation.vm),
        };
        if host.as_ref().map(|host| &host.id) != self.answered_by.as_ref() {
            self.answer = None;
        }
        let named = self.operation.snapshots().collect();
        let (snapshots, others) = self.around.snapshots(self.operation.vm, &named).await?;
        let view = host
            .as_mut()
            .map(|host| host.view.borrow_and_update().clone());
        let merges = self.sights(view.as_ref());
        let store = self.around.store.as_ref();
        let needed = needed_of(&self.operation, store).await?;
        // It is looked up again, later each time, as a refusal is asked about again.
        self.attempts += u32::from(!needed.is_empty());
        let unseen = self.unseen(&merges);
        self.begun |= merges.values().any(is_seen);
        let seen = Observation {
            snapshots: &snapshots,
            others: &others,
            host: host.as_ref().map(|host| &host.id),
            merges,
            unseen,
            needed: &needed,
            answer: self.answer.as_ref(),
            attempts: self.attempts,
            begun: self.begun,
            rate: self.rate().await?,
            bytes_per_second: self.turn.bytes_per_second(),
        };
        let mut mint = Uuid::now_v7;
        let next = step(&self.operation, &seen, self.around.clock.now(), &mut mint);
        tracing::debug!(
            step = next.word(),
            revision = self.operation.revision,
            "decides"
        );
        self.show_progress(&seen.merges);
        match next {
            Step::Enter(change) => self.enter(&change).await?,
            Step::Note(change) => self.note(&change).await?,
            Step::Ask(ask) => {
                self.answered_by = host.as_ref().map(|host| host.id.clone());
                let wanted = Wanted {
                    deletes: &snapshots,
                    others: &others,
                    options: &self.operation.options.clone(),
                };
                let elsewhere = self.promised_elsewhere(host.as_ref(), &ask);
                let (ask, stand_in) = self.stand_in(host.as_ref(), ask).await;
                let agent = stand_in.as_ref().or(host.as_ref());
                let agent = agent.map(|host| Arc::clone(&host.agent));
                self.ask(ask, &wanted, &elsewhere, agent).await;
                if let (Some(Answer::Removals(came)), Some(by)) = (&mut self.answer, stand_in) {
                    let removed = came.values_mut().flatten();
                    removed.for_each(|removed| removed.by = Some(by.id.clone()));
                }
            }
            Step::Wait(wait) => self.wait(wait, host.map(|host| host.view)).await,
        }
        Ok(())
    }

    /// How fast its host has merged, when a plan is to be made.
    async fn rate(&self) -> Result<Option<u64>, StoreError> {
        if self.operation.work != Work::Delete(DeletePhase::Planning) || self.answer.is_none() {
            return Ok(None);
        }
        let host = self.answered_by.as_ref();
        rate_of(host, self.around.store.as_ref()).await
    }

    fn sights(&self, view: Option<&HostView>) -> BTreeMap<MergeId, MergeSight> {
        let sight = |merge| view.map_or(MergeSight::Unknown, |view| view.merge(merge));
        let awaited = awaited_merges(&self.operation);
        awaited
            .into_iter()
            .map(|merge| (merge, sight(merge)))
            .collect()
    }

    /// For how long one of the merges could not be seen, or nobody has answered.
    fn unseen(&mut self, merges: &BTreeMap<MergeId, MergeSight>) -> Duration {
        let is_unknown = |sight: &MergeSight| *sight == MergeSight::Unknown;
        let error = self.answer.as_ref().and_then(Answer::error);
        if error.is_some_and(HostError::is_silence) || merges.values().any(is_unknown) {
            self.unseen_since.get_or_insert_with(Instant::now);
        } else if self.answer.is_some() || !merges.is_empty() && merges.values().all(is_seen) {
            // Between two tries there is no answer, and no merge that has begun.
            self.unseen_since = None;
        }
        self.unseen_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn enter(&mut self, change: &Change) -> Result<(), StoreError> {
        fail::fail_point!("api::before-enter");
        let before = awaited_merges(&self.operation);
        self.operation = self.around.store.apply(change).await?;
        fail::fail_point!("api::after-enter");
        self.answer = None;
        self.attempts = 0;
        // What was ordered together has begun until all of it has ended.
        self.begun &= before
            .iter()
            .any(|merge| awaited_merges(&self.operation).contains(merge));
        self.unseen_since = None;
        self.around.hub.show(OperationView::durable(
            self.operation.clone(),
            self.around.clock.now(),
        ));
        Ok(())
    }

    /// What was answered and is shown stays: the work has not moved.
    pub(super) async fn note(&mut self, change: &Change) -> Result<(), StoreError> {
        fail::fail_point!("api::before-note");
        self.operation = self.around.store.apply(change).await?;
        fail::fail_point!("api::after-note");
        let noted = self.operation.clone();
        self.around
            .hub
            .update(noted.id, |view| view.operation = noted);
        Ok(())
    }

    async fn ask(
        &mut self,
        ask: Ask,
        wanted: &Wanted<'_>,
        elsewhere: &[Promised],
        agent: Option<Arc<dyn HostAgent>>,
    ) {
        fail::fail_point!("api::before-ask");
        let answer = match agent {
            Some(agent) => put_to(agent.as_ref(), ask, wanted, elsewhere).await,
            None => Answer::Error(HostError::Unknown(Problem::new(
                Reason::HostUnreachable,
                "no host that is known has the virtual machine",
            ))),
        };
        fail::fail_point!("api::after-ask");
        self.begun |= matches!(answer, Answer::MergesAccepted);
        self.attempts += u32::from(answer.error().is_some());
        self.answered_at = Instant::now();
        self.answer = Some(answer);
    }

    /// The room of other hosts' merges, for a question or an order in which room counts.
    fn promised_elsewhere(&self, host: Option<&HostHandle>, ask: &Ask) -> Vec<Promised> {
        let by = match ask {
            Ask::Survey(_) => None,
            Ask::Merges(_) => Some(self.operation.id),
            _ => return vec![],
        };
        host.map_or_else(Vec::new, |host| {
            let around = &self.around;
            let now = around.clock.now();
            promised_elsewhere(&host.id, by, &around.hub, &around.hosts, now)
        })
    }

    /// Who removes volumes in the place of the host that has merged, and which ones.
    async fn stand_in(&self, host: Option<&HostHandle>, ask: Ask) -> (Ask, Option<HostHandle>) {
        let Ask::Removals(orders) = &ask else {
            return (ask, None);
        };
        match stand_in(&self.around.hosts, self.operation.vm, host, orders).await {
            Some((by, orders)) => (Ask::Removals(orders), Some(by)),
            None => (ask, None),
        }
    }

    async fn wait(&mut self, wait: Wait, view: Option<watch::Receiver<HostView>>) {
        // Signs come all the time: what was answered ages nevertheless, and is asked again.
        let time = match wait.sign {
            Sign::Any if self.answer.is_some() => {
                wait.time.saturating_sub(self.answered_at.elapsed())
            }
            Sign::Any | Sign::Return => wait.time,
        };
        let tried = (later(self.around.clock.now(), time), self.attempts);
        self.show_waiting(wait.cause, wait.by_host.unwrap_or(tried));
        let sign = sign_of(view, wait.sign);
        let asked = asked_of(&mut self.asked, self.operation.id);
        tokio::select! {
            waited = tokio::time::timeout(time, sign) => {
                if waited.is_err() || wait.sign == Sign::Return {
                    self.answer = None;
                }
            }
            () = asked => self.reread().await,
            () = self.around.shutdown.cancelled() => {}
            () = self.turn.share_changed() => {
                // A limit that was heard is another one now.
                self.answer = self.answer.take().filter(|it| *it != Answer::Heard);
            }
        }
    }

    /// After a failed write: whatever the store says is the record now.
    pub(super) async fn reread(&mut self) {
        if let Ok(Some(operation)) = self.around.store.operation(self.operation.id).await {
            if operation.revision != self.operation.revision {
                self.answer = None;
            }
            self.operation = operation;
            // The write may have been made though its answer was an error: an end is shown, too.
            let now = self.around.clock.now();
            let shown = OperationView::durable(self.operation.clone(), now);
            self.around.hub.show(shown);
        }
    }

    /// Shows what it waits for, when it tries next, and how often it has.
    fn show_waiting(&self, cause: Option<Problem>, (next_try_at, attempts): (Timestamp, u32)) {
        let waiting = cause.map(|cause| Waiting {
            cause,
            next_try_at: Some(next_try_at),
            attempts,
            queue_position: 0,
        });
        self.around
            .hub
            .update(self.operation.id, |view| view.waiting = waiting);
    }

    fn show_progress(&mut self, merges: &BTreeMap<MergeId, MergeSight>) {
        let now = self.began.elapsed();
        let mut progress = BTreeMap::new();
        for (id, sight) in merges {
            let MergeSight::Seen(seen) = sight else {
                continue;
            };
            let rate = self.rates.entry(*id).or_default();
            let shown = MergeProgress {
                bytes_per_second: rate.at(now, seen.done_bytes),
                seen: seen.clone(),
            };
            progress.insert(*id, shown);
        }
        if !progress.is_empty() {
            let id = self.operation.id;
            self.around.hub.update(id, |view| view.merges = progress);
        }
    }
}

fn is_seen(sight: &MergeSight) -> bool {
    matches!(sight, MergeSight::Seen(_))
}

/// Ends when the host shows what is waited for; never, if there is no host.
async fn sign_of(view: Option<watch::Receiver<HostView>>, sign: Sign) {
    let Some(mut view) = view else {
        return std::future::pending().await;
    };
    let before = view.borrow().status;
    let shown = match sign {
        Sign::Any => view.changed().await.is_ok(),
        Sign::Return => view.wait_for(|now| now.status != before).await.is_ok(),
    };
    if !shown {
        std::future::pending::<()>().await;
    }
}

/// Ends when something was asked of the operation.
pub(super) async fn asked_of(asked: &mut broadcast::Receiver<OperationId>, id: OperationId) {
    loop {
        match asked.recv().await {
            Ok(other) if other != id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
