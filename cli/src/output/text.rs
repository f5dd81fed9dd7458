//! Texts, sizes and times for people.

use prost_types::{Duration, Timestamp};

/// The text with every character that could steer a terminal shown instead of sent: control
/// characters, line and paragraph separators, and those that turn the direction of writing.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a terminal may take the character for more than a glyph.
pub(super) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Bytes for people, `-` for none known.
pub(crate) fn size(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) if bytes > 0 => indicatif::HumanBytes(bytes).to_string(),
        _ => "-".to_owned(),
    }
}

/// A time in RFC 3339, UTC; `None` when it is unset or beyond the calendar.
pub(crate) fn time(at: Option<&Timestamp>) -> Option<String> {
    let at = at?;
    let at = jiff::Timestamp::new(at.seconds, at.nanos).ok()?;
    Some(at.to_string())
}

/// A time for people: to the second, `-` when unset.
pub(crate) fn time_or_dash(at: Option<&Timestamp>) -> String {
    let whole = at.map(|at| Timestamp {
        seconds: at.seconds,
        nanos: 0,
    });
    time(whole.as_ref()).unwrap_or_else(|| "-".to_owned())
}

/// A duration in seconds.
pub(crate) fn seconds(duration: Option<&Duration>) -> Option<f64> {
    duration.map(|d| d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

/// An enum's value as a word: `VM_STATE_SHUT_OFF` without `VM_STATE_` is `shut_off`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// `text`, or `-` when there is none.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        escape(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(
            escape("a\x1b[31mb\u{9b}c\n\u{202e}d é"),
            "a\\u{1b}[31mb\\u{9b}c\\n\\u{202e}d é"
        );
    }

    #[test]
    fn times_and_sizes() {
        let at = Timestamp {
            seconds: 1_767_225_600,
            nanos: 500_000_000,
        };
        assert_eq!(time(Some(&at)).as_deref(), Some("2026-01-01T00:00:00.5Z"));
        assert_eq!(time_or_dash(Some(&at)), "2026-01-01T00:00:00Z");
        assert_eq!(
            time(Some(&Timestamp {
                seconds: i64::MAX,
                nanos: -1
            })),
            None
        );
        assert_eq!(size(3 << 19), "1.50 MiB");
        assert_eq!(size(-1), "-");
        assert_eq!(
            seconds(Some(&Duration {
                seconds: 2,
                nanos: 500_000_000
            })),
            Some(2.5)
        );
    }
}
