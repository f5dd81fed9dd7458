//! What an object store's error means for who asked.

use crate::StorageError;
use object_store::Error;
use std::fmt::Display;
use std::io;
use std::time::Duration;

/// An error by what the caller does next.
pub(super) fn failure(what: impl Display, error: Error) -> StorageError {
    let what = format!("object {what}");
    match error {
        Error::NotFound { .. } => StorageError::NotFound { what },
        error if denies(&error) => StorageError::Denied {
            what,
            source: io::Error::new(io::ErrorKind::PermissionDenied, text(&error)),
        },
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StorageError::Busy { what },
        Error::InvalidPath { source } => StorageError::Corrupt {
            what,
            why: format!("a key beside it is not one of ours: {source}"),
        },
        error => StorageError::Unreachable {
            what,
            source: io::Error::other(text(&error)),
        },
    }
}

/// Whether an operator has to act: no permission, wrong credentials, or a lock on the object.
pub(super) fn denies(error: &Error) -> bool {
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => true,
        // A key of a bulk request has its own answer, whose code is only in its text.
        Error::Generic { .. } => {
            let text = text(error);
            [
                "AccessDenied",
                "ObjectLocked",
                "WORM",
                "Forbidden",
                "InvalidAccessKeyId",
            ]
            .iter()
            .any(|code| text.contains(code))
        }
        _ => false,
    }
}

/// Whether the store asks for fewer requests.
pub(super) fn throttles(error: &Error) -> bool {
    let text = text(error);
    [
        "SlowDown",
        "status code: 503",
        "status code: 429",
        "TooManyRequests",
        "ServerBusy",
        "RequestLimitExceeded",
    ]
    .iter()
    .any(|code| text.contains(code))
}

pub(super) fn hangs(what: impl Display, limit: Duration) -> StorageError {
    StorageError::Unreachable {
        what: format!("object {what}"),
        source: io::Error::new(io::ErrorKind::TimedOut, format!("no end after {limit:?}")),
    }
}

/// With its causes, once each.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    #[test]
    fn an_answer_says_who_acts_next() {
        let denied = failure("a", generic("DeleteObjects AccessDenied: no"));
        assert!(matches!(denied, StorageError::Denied { .. }), "{denied:?}");
        let unknown = failure("a", generic("connection reset"));
        assert!(unknown.worth_a_retry(), "{unknown:?}");
        let missing = Error::NotFound {
            path: "a".to_owned(),
            source: "no".into(),
        };
        assert!(matches!(
            failure("a", missing),
            StorageError::NotFound { .. }
        ));
        for (text, asks) in [
            ("SlowDown: reduce your request rate", true),
            (
                "Server returned non-2xx status code: 503 Service Unavailable: ",
                true,
            ),
            (
                "Server returned non-2xx status code: 429 Too Many Requests: ",
                true,
            ),
            (
                "Error performing GET http://127.0.0.1:5030/b/0000000000000429 in 503ms",
                false,
            ),
        ] {
            assert_eq!(throttles(&generic(text)), asks, "{text}");
        }
        assert!(!throttles(&generic("connection reset")));
    }
}
