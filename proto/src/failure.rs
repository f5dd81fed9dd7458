//! [`Failure`]: why work that was accepted ended without success, as records keep it.

use crate::{problem::Problem, reason::Reason, v1};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Why an operation or a merge ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What clients branch on.
    pub reason: Reason,
    /// What people read.
    pub message: String,
    /// The dynamic values of the message, by name.
    pub metadata: BTreeMap<String, String>,
}

impl Failure {
    /// A failure with a reason and a text.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds a dynamic value of the text.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            reason: problem.reason,
            message: problem.message,
            metadata: problem.metadata,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let mut problem = Self::new(failure.reason, failure.message);
        problem.metadata = failure.metadata;
        problem
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let metadata = failure.metadata.into_iter().collect();
        Self {
            reason: failure.reason.to_string(),
            message: failure.message,
            metadata,
        }
    }
}

/// Reads a failure back. A reason that this version does not know becomes `INTERNAL_BUG`, with the
/// unknown one in the metadata.
impl From<v1::Failure> for Failure {
    fn from(wire: v1::Failure) -> Self {
        let metadata = wire.metadata.into_iter().collect();
        match wire.reason.parse() {
            Ok(reason) => Self {
                reason,
                message: wire.message,
                metadata,
            },
            Err(_) => Self {
                reason: Reason::InternalBug,
                message: wire.message,
                metadata,
            }
            .with("unknown_reason", wire.reason),
        }
    }
}
