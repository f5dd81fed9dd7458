//! What is on its way between the two services.
//!
//! Requests and replies are lost, come twice, late, and in any order. What the host shows by itself
//! is one ordered stream: it may break, and begins again with the full state.

use std::collections::{BTreeMap, VecDeque};

use livemerge_api_server::hosts::{HostError, Measured, MergeSeen, VmState};
use livemerge_api_server::snapshot::plan::Range;
use livemerge_api_server::snapshot::step::{Answer, Ask};
use livemerge_proto::ids::{MergeId, VmId};

/// Tells one call from another, over all starts of the server.
pub(super) type CallId = u64;

/// What the agent is asked.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// By an operation. A survey is first one of the chains.
    Ask(Ask),
    /// What merging costs, of the machine's neighbouring volumes.
    Measure(VmId, Vec<Range>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// To an operation.
    Answer(Answer),
    /// What it costs.
    Costs(Result<Vec<Measured>, HostError>),
}

/// A request or a reply.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// To the agent, from the server of this generation.
    Request(CallId, u64, Question),
    /// To the server.
    Reply(CallId, Told),
}

/// What the host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// What the machine does; `None` while the agent cannot tell.
    pub(super) vm: Option<VmState>,
    /// The merges of the journal.
    pub(super) merges: BTreeMap<MergeId, MergeSeen>,
}

/// The line between the two services.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) up: bool,
    pub(super) messages: Vec<Message>,
    /// Copies that take longer than what is sent after them.
    pub(super) late: Vec<Message>,
    /// The stream is open on the agent's side.
    pub(super) streaming: bool,
    pub(super) reports: VecDeque<Report>,
    /// What the agent has sent last on this stream.
    pub(super) last_report: Option<Report>,
    /// The world's count of changes then.
    pub(super) reported: u64,
    calls: CallId,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            up: true,
            messages: Vec::new(),
            late: Vec::new(),
            streaming: false,
            reports: VecDeque::new(),
            last_report: None,
            reported: 0,
            calls: 0,
        }
    }

    /// Puts a request on its way.
    pub(super) fn request(&mut self, generation: u64, question: Question) -> CallId {
        self.calls += 1;
        if self.up {
            self.messages
                .push(Message::Request(self.calls, generation, question));
        }
        self.calls
    }

    /// Puts a reply on its way.
    pub(super) fn reply(&mut self, call: CallId, answer: Told) {
        if self.up {
            self.messages.push(Message::Reply(call, answer));
        }
    }

    /// Whatever is on its way, soon or late.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().chain(&self.late)
    }

    /// Whether overlays or merges are ordered by what is on its way.
    pub(super) fn orders_a_change(&self) -> bool {
        let orders = |message: &Message| {
            let Message::Request(_, _, Question::Ask(ask)) = message else {
                return false;
            };
            matches!(ask, Ask::Overlays(_) | Ask::Merges(_))
        };
        self.messages.iter().any(orders)
    }

    /// The stream begins with the full state.
    pub(super) fn open_stream(&mut self, full: Report) {
        self.streaming = true;
        self.reports.clear();
        self.last_report = Some(full.clone());
        self.reports.push_back(full);
    }

    /// Sends a state, if it is another one.
    pub(super) fn report(&mut self, report: Report) {
        if self.streaming && self.last_report.as_ref() != Some(&report) {
            self.last_report = Some(report.clone());
            self.reports.push_back(report);
        }
    }

    /// The stream ends. What was under way is lost.
    pub(super) fn break_stream(&mut self) {
        self.streaming = false;
        self.reports.clear();
        self.last_report = None;
    }
}
