//! [`Problem`]: what a failed call tells its caller, and its form on the wire
//! (`google.rpc.Status` with `ErrorInfo`, `BadRequest`, `PreconditionFailure`, `RetryInfo`).

use crate::reason::{DOMAIN, Reason};
use std::{collections::BTreeMap, fmt, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

/// So many bytes of violations are told at most. They travel twice, as details and within the message,
/// in a header of which clients take 16 KiB: beyond, they would not learn anything.
const VIOLATIONS_BYTES: usize = 3072;
/// What stands around each of them.
const VIOLATION_EXTRA_BYTES: usize = 16;

/// A failed call: a reason of the closed list, a text for people, and the text's dynamic values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What clients branch on.
    pub reason: Reason,
    /// What people read.
    pub message: String,
    /// The dynamic values of the message, by name.
    pub metadata: BTreeMap<String, String>,
    /// Every bad field with what it must be; for `FIELD_INVALID`.
    pub violations: Vec<(String, String)>,
    /// When a retry is worth it.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem with a reason and a text.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = match reason.code() {
            Code::Unavailable | Code::ResourceExhausted => Some(Duration::from_secs(1)),
            _ => None,
        };
        let message = message.into();
        Self {
            reason,
            message,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after,
        }
    }

    /// Adds a dynamic value of the message.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// `FIELD_INVALID` for one field.
    pub fn field(field: &str, must: &str) -> Self {
        Self::fields(vec![(field.to_owned(), must.to_owned())])
    }

    /// `FIELD_INVALID` for several fields. Of very many, the first are told, and how many more there are.
    pub fn fields(mut violations: Vec<(String, String)>) -> Self {
        let mut bytes = 0;
        let fit = violations.iter().take_while(|(field, must)| {
            bytes += field.len() + must.len() + VIOLATION_EXTRA_BYTES;
            bytes <= VIOLATIONS_BYTES
        });
        let told = fit.count().max(1);
        let more = violations.len().saturating_sub(told);
        violations.truncate(told);
        let texts: Vec<String> = violations
            .iter()
            .map(|(f, must)| format!("`{f}` {must}"))
            .collect();
        let mut problem = Self::new(Reason::FieldInvalid, texts.join("; "));
        if more > 0 {
            problem.message.push_str(&format!("; and {more} more"));
            problem = problem.with("more", more);
        }
        problem.violations = violations;
        problem
    }

    fn details(&self) -> ErrorDetails {
        let metadata: std::collections::HashMap<_, _> = self.metadata.clone().into_iter().collect();
        let mut details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        if !self.violations.is_empty() {
            let bad = self
                .violations
                .iter()
                .map(|(f, must)| FieldViolation::new(f, must));
            details.set_bad_request(bad.collect::<Vec<_>>());
        }
        if self.reason.code() == Code::FailedPrecondition {
            let subject = self.metadata.values().next().cloned().unwrap_or_default();
            let violation =
                PreconditionViolation::new(self.reason.as_str(), subject, &self.message);
            details.set_precondition_failure(vec![violation]);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        details
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let details = problem.details();
        Self::with_error_details(problem.reason.code(), problem.message, details)
    }
}

/// Reads a problem back from a status, on the client's side.
///
/// # Errors
/// Gives the status back when it carries no `ErrorInfo` of ours: what it means is then up to its code.
impl TryFrom<Status> for Problem {
    type Error = Status;

    fn try_from(status: Status) -> Result<Self, Status> {
        let details = status.get_error_details();
        let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) else {
            return Err(status);
        };
        let Ok(reason) = info.reason.parse() else {
            return Err(status);
        };
        let violations = details.bad_request().map(|bad| {
            let each = bad.field_violations.iter();
            each.map(|v| (v.field.clone(), v.description.clone()))
                .collect()
        });
        Ok(Self {
            reason,
            message: status.message().to_owned(),
            metadata: info.metadata.clone().into_iter().collect(),
            violations: violations.unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let problem = Problem::new(*reason, "why").with("vm", "a");
            let status = Status::from(problem.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Problem::try_from(status).unwrap(), problem);
        }
    }

    #[test]
    fn all_bad_fields_are_named() {
        let problem = Problem::fields(vec![
            ("a".into(), "must be x".into()),
            ("b".into(), "must be y".into()),
        ]);
        let back = Problem::try_from(Status::from(problem)).unwrap();
        assert_eq!(back.violations.len(), 2);
        assert_eq!(back.message, "`a` must be x; `b` must be y");
    }

    #[test]
    fn a_thousand_bad_fields_do_not_outgrow_what_a_client_reads() {
        let bad = (0..1000).map(|place| (format!("ids[{place}]"), "must not be so".to_owned()));
        let status = Status::from(Problem::fields(bad.collect()));
        // Percent-encoding makes three bytes of one, base64 four of three.
        let header = status.message().len() * 3 + status.details().len() * 4 / 3;
        assert!(header < 16 * 1024, "{header}");
        let back = Problem::try_from(status).unwrap();
        let (told, more) = (back.violations.len(), &back.metadata["more"]);
        assert!(told > 50, "{told}");
        assert_eq!(told + more.parse::<usize>().unwrap(), 1000);
        assert!(
            back.message.ends_with(&format!("; and {more} more")),
            "{back}"
        );
    }

    #[test]
    fn a_foreign_status_stays_a_status() {
        assert!(Problem::try_from(Status::unavailable("gone")).is_err());
    }
}
