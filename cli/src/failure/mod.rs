//! [`Failure`]: why a command did not do what was asked, as a person reads it and a script
//! branches on it.
//!
//! ```text
//!   error: the snapshot is the active layer
//!   reason: SNAPSHOT_IS_ACTIVE_LAYER
//!   hint: nothing lies above this snapshot to be merged; ...
//! ```
//!
//! Every line is one line: texts of the server are escaped before they are written.

mod exit;
mod hint;

pub(crate) use exit::{EXIT_CODES, Exit};

use crate::connect::Server;
use crate::output::text::escape;
use livemerge_proto::reason::{DOMAIN, Reason};
use livemerge_proto::v1;
use std::error::Error;
use std::fmt;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// Why a command ended otherwise than asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    /// What follows the message: a label and a text each.
    lines: Vec<(&'static str, String)>,
}

impl Failure {
    /// A failure with a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            lines: Vec::new(),
        }
    }

    /// A failure of a known reason, found out on this side.
    pub(crate) fn of(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(reason.code().into(), message).reason(reason.as_str())
    }

    /// The time of `--timeout`, or of a call without one, is over.
    pub(crate) fn out_of_time() -> Self {
        let reason = Reason::DeadlineExceeded;
        Self::new(Exit::Unavailable, "the time is over")
            .line("reason", reason.as_str())
            .hint("--timeout gives more time; what the server had accepted goes on")
    }

    /// An answer lacks what it must have.
    pub(crate) fn incomplete(what: &str) -> Self {
        Self::new(Exit::Internal, format!("the server's answer has no {what}"))
    }

    /// What a call to this server came to.
    pub(crate) fn of_call(status: &Status, server: &Server) -> Self {
        match status.source() {
            // A status with a source was made on this side: the server has not answered.
            Some(source) => broken_line(source, server),
            None if status.code() == Code::Cancelled => Self::out_of_time(),
            None => answered(status),
        }
    }

    /// What an operation tells that has ended without success.
    pub(crate) fn of_operation(operation: &v1::Operation) -> Self {
        if operation.state() == v1::OperationState::Cancelled {
            let message = format!("operation {} was cancelled", operation.id);
            return Self::new(Exit::Cancelled, message);
        }
        let failure = operation.failure.clone().unwrap_or_default();
        let message = match failure.message.as_str() {
            "" => format!("operation {} failed", operation.id),
            text => format!("operation {} failed: {text}", operation.id),
        };
        Self::new(Exit::Unsuccessful, message).reason(&failure.reason)
    }

    /// What would refuse a delete. The first blocker's reason is the one that the delete would
    /// answer.
    pub(crate) fn blocked(blockers: &[v1::Blocker]) -> Self {
        let message = match blockers.len() {
            1 => "the delete would be refused".to_owned(),
            several => format!("the delete would be refused for {several} reasons"),
        };
        let first = blockers.first().map_or("", |blocker| &blocker.reason);
        Self::new(Exit::Unsuccessful, message).reason(first)
    }

    /// Adds a line after the message.
    #[must_use]
    pub(crate) fn line(mut self, label: &'static str, text: impl Into<String>) -> Self {
        self.lines.push((label, text.into()));
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        self.line("hint", text)
    }

    /// Of a fault of the server's: under which trace its log has the cause.
    #[must_use]
    pub(crate) fn traced(self, trace: &str) -> Self {
        match self.exit {
            Exit::Internal => self.line("trace", trace),
            _ => self,
        }
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the failure has this reason.
    pub(crate) fn has_reason(&self, reason: Reason) -> bool {
        self.lines
            .iter()
            .any(|(label, text)| *label == "reason" && text == reason.as_str())
    }

    /// The reason, and what to do about it if it is one of the closed list.
    fn reason(self, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        let failure = self.line("reason", text);
        match text.parse::<Reason>() {
            Ok(reason) => failure.hint(hint::hint(reason)),
            Err(_of_a_newer_server) => failure,
        }
    }
}

fn broken_line(source: &(dyn Error + 'static), server: &Server) -> Failure {
    let mut root = source;
    loop {
        if root.is::<TimeoutExpired>() {
            return Failure::out_of_time();
        }
        let Some(deeper) = root.source() else { break };
        root = deeper;
    }
    let message = format!("the server at {server} cannot be reached: {root}");
    let hint = "does the server run there? --server or LIVEMERGE_SERVER names another";
    Failure::new(Exit::Unavailable, message).hint(hint)
}

fn answered(status: &Status) -> Failure {
    let message = match status.message() {
        "" => status.code().description(),
        text => text,
    };
    let mut failure = Failure::new(status.code().into(), message);
    let details = status.get_error_details();
    let bad_fields = details
        .bad_request()
        .map(|bad| bad.field_violations.as_slice());
    for field in bad_fields.unwrap_or_default() {
        failure = failure.line("field", format!("{} {}", field.field, field.description));
    }
    match details.error_info().filter(|info| info.domain == DOMAIN) {
        Some(info) => failure.reason(&info.reason),
        None => failure,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", escape(&self.message))?;
        self.lines
            .iter()
            .try_for_each(|(label, text)| writeln!(f, "{label}: {}", escape(text)))
    }
}

impl Error for Failure {}
