//! Whether a call that failed may succeed if it is made again as it is.

use crate::layers::status;
use http::StatusCode;
use http_body_util::LengthLimitError;
use std::error::Error;
use std::time::Duration;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// A server that takes no more for the moment.
const OVERLOADED: [&str; 2] = ["SERVER_OVERLOADED", "WATCH_LIMIT_REACHED"];

/// The longest wait that anybody may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// What the error says about the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// Not before this, says the server.
    pub(super) retry_after: Duration,
}

impl Lost {
    /// `None` where another try cannot help, or might do harm.
    pub(super) fn of_status(status: &Status) -> Option<Self> {
        match status.source() {
            // Made on this side: there was no answer.
            Some(source) => is_broken(source).then_some(Lost {
                retry_after: Duration::ZERO,
            }),
            None => {
                let details = status.get_error_details();
                let retry = details.retry_info().and_then(|retry| retry.retry_delay);
                // Whoever answers may say anything: nobody is left alone for years.
                let retry = retry.map(|delay| delay.min(LONGEST));
                match status.code() {
                    Code::Unavailable => Some(retry.unwrap_or_default()),
                    // Nothing was done, and there is room again in a while.
                    Code::ResourceExhausted if status::is_any(status, &OVERLOADED) => retry,
                    _ => None,
                }
                .map(|retry_after| Lost { retry_after })
            }
        }
    }

    /// Of an answer without a status, as a proxy's: what gRPC takes for UNAVAILABLE.
    pub(super) fn of_http(status: StatusCode) -> Option<Self> {
        let unavailable = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        unavailable.then_some(Lost {
            retry_after: Duration::ZERO,
        })
    }

    /// Of what a channel fails with.
    pub(super) fn of_error(error: &(dyn Error + 'static)) -> Option<Self> {
        match error.downcast_ref::<Status>() {
            Some(status) => Self::of_status(status),
            None => is_broken(error).then_some(Lost {
                retry_after: Duration::ZERO,
            }),
        }
    }
}

/// Whether a channel has found that the time of a call was over.
pub(super) fn is_over(error: &(dyn Error + 'static)) -> bool {
    error.is::<TimeoutExpired>() || error.source().is_some_and(is_over)
}

/// Whether the connection broke, or there was none; also one behind a proxy, which can only reset the
/// calls that were on it. A call whose time was over is no such case.
fn is_broken(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<TimeoutExpired>() || error.is::<LengthLimitError>() {
            return false;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let reset = error.is_remote() && error.reason().is_some_and(is_of_a_proxy);
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_io() || error.is_go_away() || refused || reset;
        }
        next = error.source();
    }
    true
}

/// How proxies reset a call that has begun and that they cannot go on with. A server of ours ends each with a
/// status.
fn is_of_a_proxy(reason: h2::Reason) -> bool {
    matches!(
        reason,
        h2::Reason::INTERNAL_ERROR | h2::Reason::CONNECT_ERROR
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    #[test]
    fn nobody_is_asked_to_wait_for_longer_than_a_minute() {
        let year = Duration::from_secs(31_536_000);
        for (asked, waits) in [
            (Duration::from_secs(59), Duration::from_secs(59)),
            (LONGEST, LONGEST),
            (year, LONGEST),
            (Duration::MAX, LONGEST),
        ] {
            for (code, reason) in [
                (Code::Unavailable, "SERVER_DRAINING"),
                (Code::ResourceExhausted, "SERVER_OVERLOADED"),
            ] {
                let mut details =
                    ErrorDetails::with_error_info(reason, "livemerge", HashMap::new());
                details.set_retry_info(Some(asked));
                let status = Status::with_error_details(code, "later", details);
                let lost = Lost::of_status(&status).unwrap();
                assert_eq!(lost.retry_after, waits, "{asked:?} {reason}");
            }
        }
    }
}
