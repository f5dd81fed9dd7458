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
//! A lane may end at any await; the store has all, and the next server goes on.

use super::hub::{Hub, MergeProgress, OperationView, Rate, Waiting};
use super::step::{Answer, Ask, Observation, Sign, Step, Wait, awaited_merge, step};
use super::types::{Operation, Snapshot};
use crate::hosts::{HostAgent, HostError, HostView, Hosts, MergeSight};
use crate::store::{Change, Page, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use livemerge_proto::ids::{HostId, SnapshotId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Time before the store is tried again after it failed.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// What every lane works with.
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn Store>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Surroundings {
    /// One snapshot of a machine, if it is there, and the others.
    pub(super) async fn snapshots(
        &self,
        vm: VmId,
        own: SnapshotId,
    ) -> Result<(Option<Snapshot>, Vec<Snapshot>), StoreError> {
        let mut all = Vec::new();
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        loop {
            let some = self.store.snapshots(Some(vm), &page).await?;
            page.after = some.last().map(|snapshot| snapshot.id);
            let last = some.len() < page.limit;
            all.extend(some);
            if last {
                break;
            }
        }
        let own = all.iter().position(|snapshot| snapshot.id == own);
        Ok((own.map(|own| all.remove(own)), all))
    }
}

/// Takes one operation to its end.
pub(super) struct Run {
    around: Arc<Surroundings>,
    operation: Operation,
    answer: Option<Answer>,
    answered_at: Instant,
    answered_by: Option<HostId>,
    attempts: u32,
    refusals: u32,
    begun: bool,
    unseen_since: Option<Instant>,
    rate: Rate,
    began: Instant,
}

impl Run {
    pub(super) fn new(around: Arc<Surroundings>, operation: Operation) -> Self {
        let began = Instant::now();
        Self {
            around,
            operation,
            answer: None,
            answered_at: began,
            answered_by: None,
            attempts: 0,
            refusals: 0,
            begun: true,
            unseen_since: None,
            rate: Rate::default(),
            began,
        }
    }

    pub(super) async fn finish(mut self) {
        while !self.operation.state.ended() {
            if let Err(error) = self.turn().await {
                tracing::error!(operation = %self.operation.id, error = &error as &dyn std::error::Error, "the record cannot be used");
                let cause = Problem::new(
                    Reason::StoreUnavailable,
                    "the server's database cannot be used",
                );
                self.show_waiting(Some(cause), STORE_RETRY);
                tokio::time::sleep(STORE_RETRY).await;
                self.reread().await;
            }
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
        let (snapshot, others) = self
            .around
            .snapshots(self.operation.vm, self.operation.snapshot)
            .await?;
        let view = host
            .as_mut()
            .map(|host| host.view.borrow_and_update().clone());
        let merge = self.merge_sight(view.as_ref());
        let unseen = self.unseen(&merge);
        self.begun |= matches!(merge, MergeSight::Seen(_));
        let seen = Observation {
            snapshot: snapshot.as_ref(),
            others: &others,
            host: host.as_ref().map(|host| &host.id),
            merge,
            unseen,
            answer: self.answer.as_ref(),
            attempts: self.attempts,
            refusals: self.refusals,
            begun: self.begun,
        };
        let mut mint = Uuid::now_v7;
        let next = step(&self.operation, &seen, self.around.clock.now(), &mut mint);
        self.show_progress(&seen.merge);
        match next {
            Step::Enter(change) => self.enter(&change).await?,
            Step::Note(change) => self.note(&change).await?,
            Step::Ask(ask) => {
                self.answered_by = host.as_ref().map(|host| host.id.clone());
                self.ask(ask, host.map(|host| host.agent)).await;
            }
            Step::Wait(wait) => self.wait(wait, host.map(|host| host.view)).await,
        }
        Ok(())
    }

    fn merge_sight(&self, view: Option<&HostView>) -> MergeSight {
        match (awaited_merge(&self.operation), view) {
            (Some(merge), Some(view)) => view.merge(merge),
            _ => MergeSight::Unknown,
        }
    }

    /// For how long the merge could not be seen.
    fn unseen(&mut self, merge: &MergeSight) -> Duration {
        if *merge != MergeSight::Unknown {
            self.unseen_since = None;
            return Duration::ZERO;
        }
        self.unseen_since.get_or_insert_with(Instant::now).elapsed()
    }

    async fn enter(&mut self, change: &Change) -> Result<(), StoreError> {
        fail::fail_point!("api::before-enter");
        self.operation = self.around.store.apply(change).await?;
        fail::fail_point!("api::after-enter");
        self.answer = None;
        self.attempts = 0;
        self.refusals = 0;
        self.begun = false;
        self.unseen_since = None;
        self.rate = Rate::default();
        self.around
            .hub
            .show(OperationView::durable(self.operation.clone()));
        Ok(())
    }

    /// What was answered and is shown stays: the work has not moved.
    async fn note(&mut self, change: &Change) -> Result<(), StoreError> {
        fail::fail_point!("api::before-note");
        self.operation = self.around.store.apply(change).await?;
        fail::fail_point!("api::after-note");
        let noted = self.operation.clone();
        self.around
            .hub
            .update(noted.id, |view| view.operation = noted);
        Ok(())
    }

    async fn ask(&mut self, ask: Ask, agent: Option<Arc<dyn HostAgent>>) {
        fail::fail_point!("api::before-ask");
        let answer = match agent {
            Some(agent) => put_to(agent.as_ref(), ask).await,
            None => Answer::Error(HostError::Unknown(Problem::new(
                Reason::HostUnreachable,
                "no host that is known has the virtual machine",
            ))),
        };
        fail::fail_point!("api::after-ask");
        self.begun |= matches!(answer, Answer::MergeAccepted);
        if let Answer::Error(error) = &answer {
            self.attempts += 1;
            self.refusals += u32::from(matches!(error, HostError::Refused(_)));
        }
        self.answered_at = Instant::now();
        self.answer = Some(answer);
    }

    async fn wait(&mut self, wait: Wait, view: Option<watch::Receiver<HostView>>) {
        // Signs come all the time: what was answered ages nevertheless, and is asked again.
        let time = match wait.sign {
            Sign::Any if self.answer.is_some() => {
                wait.time.saturating_sub(self.answered_at.elapsed())
            }
            Sign::Any => wait.time,
            Sign::Return => jittered(wait.time),
        };
        self.show_waiting(wait.cause, time);
        let sign = sign_of(view, wait.sign);
        let out_of_time = tokio::time::timeout(time, sign).await.is_err();
        if out_of_time || wait.sign == Sign::Return {
            self.answer = None;
        }
    }

    /// After a failed write: whatever the store says is the record now.
    async fn reread(&mut self) {
        if let Ok(Some(operation)) = self.around.store.operation(self.operation.id).await {
            if operation.revision != self.operation.revision {
                self.answer = None;
            }
            self.operation = operation;
            // The write may have been made though its answer was an error: an end is shown, too.
            let shown = OperationView::durable(self.operation.clone());
            self.around.hub.show(shown);
        }
    }

    fn show_waiting(&self, cause: Option<Problem>, time: Duration) {
        let waiting = cause.map(|cause| Waiting {
            cause,
            next_try_at: (self.attempts > 0).then(|| later(self.around.clock.now(), time)),
            attempts: self.attempts,
        });
        self.around
            .hub
            .update(self.operation.id, |view| view.waiting = waiting);
    }

    fn show_progress(&mut self, merge: &MergeSight) {
        let MergeSight::Seen(seen) = merge else {
            return;
        };
        let bytes_per_second = self.rate.at(self.began.elapsed(), seen.done_bytes);
        let progress = MergeProgress {
            seen: seen.clone(),
            bytes_per_second,
        };
        self.around
            .hub
            .update(self.operation.id, |view| view.merge = Some(progress));
    }
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

async fn put_to(agent: &dyn HostAgent, ask: Ask) -> Answer {
    let answer = match ask {
        Ask::Chains(vm) => agent.chains(vm, None).await.map(Answer::Chains),
        Ask::Overlays(order) => agent
            .create_overlays(&order)
            .await
            .map(|()| Answer::OverlaysOn),
        Ask::Merge(order) => agent
            .start_merge(&order)
            .await
            .map(|()| Answer::MergeAccepted),
        Ask::Removal(order) => agent.remove_volume(&order).await.map(Answer::Removal),
    };
    answer.unwrap_or_else(Answer::Error)
}

/// Between half and the whole of the time, so that many lanes do not ask at once.
fn jittered(time: Duration) -> Duration {
    let part = u32::from(Uuid::new_v4().as_bytes()[0]);
    time / 2 + time / 2 * part / 255
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
