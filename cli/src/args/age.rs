//! [`Age`]: how old a thing is at least.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use std::str::FromStr;

/// A time, as it stands on the command line. What it means depends on when it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Age {
    /// So long ago.
    Ago(Span),
    /// Then.
    At(Timestamp),
}

impl Age {
    /// What is older was there before this time.
    ///
    /// # Errors
    /// A time that is not over yet, or lies beyond the calendar.
    pub(crate) fn before(self, now: Timestamp) -> Result<Timestamp, &'static str> {
        match self {
            Self::Ago(span) => {
                let then = now.to_zoned(TimeZone::UTC).checked_sub(span);
                let then = then.map_err(|_| "lies before the calendar begins")?;
                Ok(then.timestamp())
            }
            Self::At(then) if then > now => Err("lies in the future"),
            Self::At(then) => Ok(then),
        }
    }
}

impl FromStr for Age {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str =
            "must be a time such as `30m`, `12h`, `7d`, `2w` or `2026-01-31T12:00:00Z`";
        if let Ok(then) = text.parse() {
            return Ok(Self::At(then));
        }
        let span: Span = text.parse().map_err(|_| WANTED)?;
        if span.is_positive() {
            Ok(Self::Ago(span))
        } else {
            Err("must be more than zero, and is counted back from now")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2026-03-01T12:00:00Z";

    fn before(text: &str) -> Result<String, &'static str> {
        let age: Age = text.parse()?;
        age.before(NOON.parse().unwrap())
            .map(|then| then.to_string())
    }

    #[test]
    fn ages() {
        let ages = [
            ("30m", "2026-03-01T11:30:00Z"),
            ("12h", "2026-03-01T00:00:00Z"),
            ("7d", "2026-02-22T12:00:00Z"),
            ("2w", "2026-02-15T12:00:00Z"),
            ("1d 6h", "2026-02-28T06:00:00Z"),
            ("P1D", "2026-02-28T12:00:00Z"),
            (NOON, NOON),
            ("2026-02-28T12:00:00+02:00", "2026-02-28T10:00:00Z"),
        ];
        for (text, then) in ages {
            assert_eq!(before(text).as_deref(), Ok(then), "{text}");
        }
    }

    #[test]
    fn what_is_no_age() {
        for bad in [
            "",
            "x",
            "7",
            "7 x",
            "2026-01-31",
            "0d",
            "-1h",
            "1d ago",
            "99999999999d",
        ] {
            assert!(bad.parse::<Age>().is_err(), "{bad}");
        }
        assert_eq!(before("2026-03-01T12:00:01Z"), Err("lies in the future"));
        assert!(before("19000y").is_err());
    }
}
