//! One operation on the server: its record, what was answered, and what is done next.

use std::time::Duration;

use livemerge_api_server::hosts::{HostError, HostStatus, VmChains};
use livemerge_api_server::snapshot::Operation;
use livemerge_api_server::snapshot::plan::Range;
use livemerge_api_server::snapshot::step::{Answer, Ask, Sign, Wait, awaited_merges};
use livemerge_api_server::store::Change;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

use super::event::Did;
use super::network::CallId;
use super::record::{Conflict, Record};
use super::server::Write;

const STORE_RETRY: Duration = Duration::from_millis(500);

/// Takes one operation to its end.
pub(super) struct Run {
    pub(super) operation: Operation,
    pub(super) answer: Option<Answer>,
    pub(super) answered_at: Duration,
    pub(super) attempts: u32,
    pub(super) begun: bool,
    pub(super) unseen_since: Option<Duration>,
    /// The view's version when it was looked at.
    pub(super) seen: u64,
    pub(super) todo: Todo,
}

#[derive(Debug)]
pub(super) enum Todo {
    Turn,
    /// Written down; the work has moved, or has not.
    Persist(Box<Change>, bool),
    Ask(Ask),
    Calling(CallId, Duration),
    /// The second half of a survey: what merging these costs.
    Measure(VmChains, Vec<Range>),
    Measuring(CallId, Duration, VmChains),
    Sleep {
        until: Duration,
        sign: Sign,
        status: HostStatus,
    },
    StoreRetry(Duration),
}

impl Run {
    pub(super) fn new(operation: Operation, now: Duration) -> Self {
        Self {
            operation,
            answer: None,
            answered_at: now,
            attempts: 0,
            begun: true,
            unseen_since: None,
            seen: 0,
            todo: Todo::Turn,
        }
    }

    pub(super) fn persist(
        &mut self,
        change: &Change,
        moved: bool,
        record: &mut Record,
        write: Write,
        now: Duration,
    ) -> Did {
        let written = match write {
            Write::NotDone => None,
            Write::Good | Write::NotTold => Some(record.apply(change)),
        };
        match written {
            Some(Ok(operation)) if write == Write::Good => {
                let before = awaited_merges(&self.operation);
                self.operation = operation;
                if moved {
                    self.answer = None;
                    self.attempts = 0;
                    // What was ordered together has begun until all of it has ended.
                    let now = awaited_merges(&self.operation);
                    self.begun &= before.iter().any(|merge| now.contains(merge));
                    self.unseen_since = None;
                }
                Did::something(("record", &self.operation.state))
            }
            // Somebody has asked something of the operation: that stands in the record now.
            Some(Err(Conflict)) if write == Write::Good => {
                self.reread(record);
                Did::nothing("the record has changed")
            }
            _ => {
                self.todo = Todo::StoreRetry(now + STORE_RETRY);
                Did::something(("the record cannot be used", write))
            }
        }
    }

    pub(super) fn reread(&mut self, record: &Record) {
        let stored = &record.operations[&self.operation.id];
        if stored.revision != self.operation.revision {
            self.answer = None;
        }
        self.operation = stored.clone();
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Duration) {
        self.begun |= matches!(answer, Answer::MergesAccepted);
        if matches!(answer, Answer::Error(_)) {
            self.attempts += 1;
        }
        self.answered_at = now;
        self.answer = Some(answer);
        self.todo = Todo::Turn;
    }

    /// It waits for an answer, unless the time is over.
    pub(super) fn time_out(&mut self, limit: Duration, now: Duration, waits: Todo) -> Did {
        if now < limit {
            self.todo = waits;
        } else {
            self.answered(Answer::Error(silent()), now);
        }
        Did::nothing("out of time")
    }

    pub(super) fn sleep(&self, wait: &Wait, status: HostStatus, now: Duration) -> Todo {
        let time = match wait.sign {
            Sign::Any if self.answer.is_some() => wait.time.saturating_sub(now - self.answered_at),
            Sign::Any | Sign::Return => wait.time,
        };
        Todo::Sleep {
            until: now + time,
            sign: wait.sign,
            status,
        }
    }
}

/// No answer.
pub(super) fn silent() -> HostError {
    HostError::Unknown(Problem::new(
        Reason::HostUnreachable,
        "the host's agent does not answer",
    ))
}
