//! The time that is left to a call: of the one that is served now, and as `grpc-timeout` spells it.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// The header that carries it.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest number that the header takes.
const MOST: u128 = 99_999_999;

tokio::task_local! {
    static SERVED_UNTIL: Instant;
}

/// When the call that this task serves is over. A task of its own, as a change has, is of no call.
pub(super) fn served_until() -> Option<Instant> {
    SERVED_UNTIL.try_with(|until| *until).ok()
}

/// Works for a call that is over then.
pub(crate) fn serving<F: Future>(until: Instant, work: F) -> impl Future<Output = F::Output> {
    SERVED_UNTIL.scope(until, work)
}

/// As [`serving`], for what does not wait.
pub(crate) fn serving_now<T>(until: Instant, work: impl FnOnce() -> T) -> T {
    SERVED_UNTIL.sync_scope(until, work)
}

/// What a request asks for: up to eight digits and a unit. A malformed one counts as absent, as in
/// tonic.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// In the finest unit that holds it, rounded down: who is asked gives up first.
pub(super) fn spelled(left: Duration) -> HeaderValue {
    let units = [
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
    ];
    let fits = units.into_iter().find(|(amount, _)| *amount <= MOST);
    let (amount, unit) = fits.unwrap_or((MOST, 'S'));
    HeaderValue::try_from(format!("{amount}{unit}")).expect("digits and a letter are a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
        asked(&headers)
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        assert_eq!(timeout("3H"), Some(Duration::from_secs(10_800)));
        assert_eq!(timeout("2M"), Some(Duration::from_secs(120)));
        assert_eq!(timeout("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout("0n"), Some(Duration::ZERO));
    }

    #[test]
    fn a_malformed_timeout_counts_as_absent() {
        for text in ["", "S", "5", "5s", "+5S", "-5S", "123456789S", "1.5S", "5é"] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            headers.insert(GRPC_TIMEOUT, value);
            assert_eq!(asked(&headers), None, "{text}");
        }
        assert_eq!(asked(&HeaderMap::new()), None);
    }

    #[test]
    fn a_time_is_spelled_as_finely_as_eight_digits_can() {
        for (left, text) in [
            (Duration::ZERO, "0u"),
            (Duration::from_nanos(1_999), "1u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(spelled(left), text);
            assert!(timeout(text).unwrap() <= left);
        }
    }
}
