//! What people read of a rule that a field breaks: what it must be.

use super::compile::Bounds;
use prost_reflect::{EnumDescriptor, EnumValueDescriptor};
use std::time::Duration;

pub(super) const REQUIRED: &str = "is required";
pub(super) const UNIQUE: &str = "must not have an entry twice";
pub(super) const UUID: &str = "must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f";

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A pattern says nothing to most people.
const PATTERNS: [(&str, &str); 12] = [
    (
        "^[a-z0-9][a-z0-9.-]{0,62}$",
        "must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
    ),
    (
        "^[a-z0-9][a-z0-9-]{0,62}$",
        "must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
    ),
    (
        "^[A-Za-z][A-Za-z0-9_-]{0,31}$",
        "must be 1 to 32 letters, digits or `_ -`, beginning with a letter",
    ),
    (
        r"^[A-Za-z0-9_](\.?[A-Za-z0-9_+-])*\.?$",
        "must be 1 to 200 of letters, digits and `_ . + -`, beginning with a letter, digit or `_`, without `..`",
    ),
    (
        "^[!-~]{1,200}$",
        "must be 1 to 200 printable ASCII characters without blanks",
    ),
    (
        r"^[^\p{Cc}\p{Z}]([^\p{Cc}]*[^\p{Cc}\p{Z}])?$",
        "must be 1 to 128 characters without control characters or blanks at the ends",
    ),
    (r"^([^\p{Cc}]|\n)*$", "must not have control characters"),
    (
        "^[a-z0-9./_-]{1,63}$",
        "must have a key of 1 to 63 of `a-z 0-9 . / _ -`",
    ),
    ("^r[0-9]{1,20}$", "is not one that a snapshot had"),
    (
        "^[0-9a-f]{16}-[0-9a-f]{16}$",
        "must be the id of a finding as CheckConsistency gives it",
    ),
    (
        r"^(https?://|unix:/)[^\p{Cc}]+$",
        "must be `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`",
    ),
    (
        "^(-|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$",
        "must be `-`, or a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
    ),
];

pub(super) fn of_pattern(pattern: &str) -> Option<&'static str> {
    let found = PATTERNS.iter().find(|(it, _)| *it == pattern);
    found.map(|(_, must)| *must)
}

pub(super) fn of_length(most: usize) -> String {
    format!("must have at most {most} characters")
}

pub(super) fn of_refused(text: &str) -> String {
    match text {
        NIL => "must not be the nil UUID".to_owned(),
        other => format!("must not be `{other}`"),
    }
}

pub(super) fn of_number(bounds: Bounds) -> String {
    match (bounds.least, bounds.most) {
        (Some(least), Some(most)) => format!("must be from {least} to {most}"),
        (Some(least), None) => format!("must be {least} or more"),
        (None, Some(most)) => format!("must be at most {most}"),
        (None, None) => String::new(),
    }
}

pub(super) fn of_time(bounds: Bounds) -> String {
    let time = |nanos: i128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    match (bounds.least.map(time), bounds.most.map(time)) {
        (Some(least), Some(most)) => format!("must be between {least:?} and {most:?}"),
        (Some(least), None) => format!("must be {least:?} or more"),
        (None, Some(most)) => format!("must be at most {most:?}"),
        (None, None) => String::new(),
    }
}

pub(super) fn of_count(bounds: Bounds) -> String {
    match (bounds.least, bounds.most) {
        (Some(least), Some(most)) => format!("must have {least} to {most} entries"),
        (Some(1), None) => "must have at least one entry".to_owned(),
        (Some(least), None) => format!("must have at least {least} entries"),
        (None, Some(most)) => format!("must have at most {most} entries"),
        (None, None) => String::new(),
    }
}

/// Names what is allowed, if it is not too much.
pub(super) fn of_enum(values: &EnumDescriptor, allowed: &[EnumValueDescriptor]) -> String {
    const MOST: usize = 8;
    if allowed.len() > MOST {
        return format!("must be a type of {}", values.name());
    }
    // What all values of an enum begin with, as buf's lint wants it.
    let zero = values.default_value();
    let prefix = zero.name().trim_end_matches("UNSPECIFIED");
    let named = |value: &EnumValueDescriptor| value.name().trim_start_matches(prefix).to_owned();
    let mut names: Vec<_> = allowed
        .iter()
        .filter(|it| it.number() != 0)
        .map(named)
        .collect();
    if allowed.iter().any(|value| value.number() == 0) {
        names.push("unset".to_owned());
    }
    match names.split_last() {
        Some((last, [])) => format!("must be {last}"),
        Some((last, others)) => format!("must be {} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_in_words() {
        let bounds = |least, most| Bounds { least, most };
        let second = 1_000_000_000;
        let told = [
            of_number(bounds(Some(0), Some(1000))),
            of_number(bounds(Some(1), None)),
            of_time(bounds(Some(second / 20), Some(15 * second))),
            of_count(bounds(Some(1), Some(64))),
            of_count(bounds(Some(1), None)),
            of_count(bounds(None, Some(32))),
        ];
        assert_eq!(
            told,
            [
                "must be from 0 to 1000",
                "must be 1 or more",
                "must be between 50ms and 15s",
                "must have 1 to 64 entries",
                "must have at least one entry",
                "must have at most 32 entries",
            ]
        );
    }
}
