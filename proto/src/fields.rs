//! [`Fields`]: checks a request and names *every* bad field, not only the first.
//!
//! Each check returns the parsed value if it can; [`Fields::check`] turns the collected violations
//! into one [`Problem`], after which every value is there.

use crate::problem::Problem;
use std::{fmt::Display, str::FromStr, time::Duration};

/// The largest page that a list gives.
pub const MAX_PAGE_SIZE: usize = 1000;
/// The page size of a list that names none.
pub const DEFAULT_PAGE_SIZE: usize = 100;

/// Collects the violations of one request.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<(String, String)>,
}

impl Fields {
    /// Starts with none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a violation: the field, and what it must be.
    pub fn reject(&mut self, field: &str, must: impl Display) {
        self.violations.push((field.to_owned(), must.to_string()));
    }

    /// A required text that must parse.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            self.reject(field, "is required");
            return None;
        }
        text.parse()
            .map_err(|error: T::Err| self.reject(field, error))
            .ok()
    }

    /// An optional text that must parse when it is there. The outer option is the check's success.
    pub fn parse_optional<T: FromStr<Err: Display>>(
        &mut self,
        field: &str,
        text: &str,
    ) -> Option<Option<T>> {
        if text.is_empty() {
            Some(None)
        } else {
            self.parse(field, text).map(Some)
        }
    }

    /// A required sub-message.
    pub fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.reject(field, "is required");
        }
        value
    }

    /// A text of at most `most` characters without control characters other than line breaks.
    pub fn text(&mut self, field: &str, text: String, most: usize) -> Option<String> {
        if text.chars().count() > most {
            self.reject(field, format_args!("must have at most {most} characters"));
            return None;
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            self.reject(field, "must not have control characters");
            return None;
        }
        Some(text)
    }

    /// A page size: 0 means [`DEFAULT_PAGE_SIZE`].
    pub fn page_size(&mut self, field: &str, size: i32) -> Option<usize> {
        match usize::try_from(size) {
            Ok(0) => Some(DEFAULT_PAGE_SIZE),
            Ok(size) if size <= MAX_PAGE_SIZE => Some(size),
            _ => {
                self.reject(field, format_args!("must be from 0 to {MAX_PAGE_SIZE}"));
                None
            }
        }
    }

    /// A number of bytes, of bytes a second, or of what is counted: 0 or more.
    pub fn bytes(&mut self, field: &str, bytes: i64) -> Option<u64> {
        let checked = u64::try_from(bytes).ok();
        if checked.is_none() {
            self.reject(field, "must be 0 or more");
        }
        checked
    }

    /// A generation: 1 or more.
    pub fn generation(&mut self, field: &str, generation: i64) -> Option<u64> {
        let checked = u64::try_from(generation).ok().filter(|g| *g > 0);
        if checked.is_none() {
            self.reject(field, "must be 1 or more");
        }
        checked
    }

    /// A duration between two bounds; unset gives `default`.
    pub fn duration(
        &mut self,
        field: &str,
        value: Option<prost_types::Duration>,
        bounds: std::ops::RangeInclusive<Duration>,
        default: Duration,
    ) -> Option<Duration> {
        let Some(value) = value else {
            return Some(default);
        };
        let checked = Duration::try_from(value)
            .ok()
            .filter(|d| bounds.contains(d));
        if checked.is_none() {
            let (least, most) = (bounds.start(), bounds.end());
            self.reject(
                field,
                format_args!("must be between {least:?} and {most:?}"),
            );
        }
        checked
    }

    /// Ends the checks.
    ///
    /// # Errors
    /// `FIELD_INVALID` naming every violation.
    pub fn check(self) -> Result<(), Problem> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(Problem::fields(self.violations))
        }
    }

    /// Ends the checks and gives the values, which are all there when nothing was rejected.
    ///
    /// # Errors
    /// `FIELD_INVALID` naming every violation.
    pub fn finish<T>(self, values: Option<T>) -> Result<T, Problem> {
        self.check()?;
        Ok(values.expect("a check that gave no value has noted a violation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DiskTarget, VmId};

    #[test]
    fn every_bad_field_is_named_once() {
        let mut fields = Fields::new();
        let vm = fields.parse::<VmId>("vm_id", "nope");
        let disk = fields.parse::<DiskTarget>("disk", "");
        let size = fields.page_size("page_size", -1);
        let problem = fields.finish(vm.zip(disk).zip(size)).unwrap_err();
        let named: Vec<_> = problem
            .violations
            .iter()
            .map(|(field, _)| field.as_str())
            .collect();
        assert_eq!(named, ["vm_id", "disk", "page_size"]);
    }

    #[test]
    fn bounds_are_inclusive() {
        let bounds = Duration::from_millis(50)..=Duration::from_secs(15);
        let mut fields = Fields::new();
        let given = Some(prost_types::Duration {
            seconds: 15,
            nanos: 0,
        });
        let unset = Duration::from_secs(5);
        assert_eq!(
            fields.duration("d", given, bounds.clone(), unset),
            Some(Duration::from_secs(15))
        );
        let negative = Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        });
        assert_eq!(fields.duration("d", negative, bounds, unset), None);
        assert!(fields.check().is_err());
    }
}
