//! The statuses this crate answers with by itself.

use http::HeaderMap;
use http_body::Frame;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "livemerge";
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A bug of ours. The cause stands in the log, under the request's ids.
pub(crate) fn internal_bug() -> Status {
    let details = ErrorDetails::with_error_info("INTERNAL_BUG", DOMAIN, HashMap::new());
    Status::with_error_details(Code::Internal, "internal error", details)
}

/// The server is shutting down; another one, or this one restarted, can be asked.
pub(crate) fn draining() -> Status {
    let mut details = ErrorDetails::with_error_info("SERVER_DRAINING", DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, "the server is shutting down", details)
}

/// The connection has reached its age; the next one is served.
pub(crate) fn connection_retires() -> Status {
    let mut details = ErrorDetails::with_error_info("SERVER_DRAINING", DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    let message = "the connection is old and is closed: connect again";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// There is no place for another call.
pub(crate) fn overloaded(message: &str) -> Status {
    exhausted("SERVER_OVERLOADED", message)
}

/// There is no place for another watch.
pub(crate) fn too_many_watches(message: &str) -> Status {
    exhausted("WATCH_LIMIT_REACHED", message)
}

fn exhausted(reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The client has left its answer untaken for too long.
pub(crate) fn reader_too_slow() -> Status {
    let reason = "WATCH_CONSUMER_TOO_SLOW";
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    let message = "what was sent was not taken for too long";
    Status::with_error_details(Code::Aborted, message, details)
}

/// The client's deadline, or the server's bound, has passed.
pub(crate) fn deadline_exceeded() -> Status {
    let details = ErrorDetails::with_error_info("DEADLINE_EXCEEDED", DOMAIN, HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, "deadline exceeded", details)
}

/// A request without credentials, to a method that needs some.
pub(crate) fn credentials_missing() -> Status {
    let details = ErrorDetails::with_error_info("CREDENTIALS_MISSING", DOMAIN, HashMap::new());
    let message = "neither a client certificate nor a bearer token was shown";
    Status::with_error_details(Code::Unauthenticated, message, details)
}

/// A request with credentials that are not good.
pub(crate) fn credentials_invalid(message: &str) -> Status {
    let details = ErrorDetails::with_error_info("CREDENTIALS_INVALID", DOMAIN, HashMap::new());
    Status::with_error_details(Code::Unauthenticated, message, details)
}

/// A caller who has no role that the method takes; the same when there is no such method.
pub(crate) fn not_permitted(path: &str, caller: &str) -> Status {
    let metadata = [("method", path), ("caller", caller)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let details = ErrorDetails::with_error_info("METHOD_NOT_PERMITTED", DOMAIN, metadata);
    let message = format!("{caller} may not call {path}");
    Status::with_error_details(Code::PermissionDenied, message, details)
}

/// Whether it is an error of ours for one of these reasons.
pub(crate) fn is_any(status: &Status, reasons: &[&str]) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.domain == DOMAIN && reasons.contains(&info.reason.as_str()))
}

/// The status as the trailers that end a body.
pub(crate) fn trailers<D>(status: &Status) -> Frame<D> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A status whose text fits no header still ends the call with its code.
        trailers.insert("grpc-status", (status.code() as i32).into());
    }
    Frame::trailers(trailers)
}
