//! [`Fields`]: reads a request and names *every* bad field, not only the first.
//!
//! The rules that the contracts declare come first ([`crate::rules`]). What they cannot say is added
//! while the request is read; [`Fields::finish`] turns all violations into one [`Problem`], after which
//! every value is there.

use crate::problem::Problem;
use crate::rules::{self, MOST_VIOLATIONS, Violation};
use std::{fmt::Display, str::FromStr, time::Duration};

/// The page size of a list that names none.
pub const DEFAULT_PAGE_SIZE: usize = 100;

/// Collects the violations of one request.
#[derive(Debug)]
pub struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Starts with what the declared rules say of a request.
    pub fn of<M: prost::Name>(request: &M) -> Self {
        Self {
            violations: rules::violations(request),
        }
    }

    /// Notes a violation: the field, and what it must be. A field that is named already keeps its text,
    /// and beyond [`MOST_VIOLATIONS`] none is noted: each is compared with all before it.
    pub fn reject(&mut self, field: &str, must: impl Display) {
        if self.violations.len() >= MOST_VIOLATIONS {
            return;
        }
        if !self.violations.iter().any(|(named, _)| named == field) {
            self.violations.push((field.to_owned(), must.to_string()));
        }
    }

    /// A required text that must parse.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
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

/// A page size whose rule holds: 0 means [`DEFAULT_PAGE_SIZE`].
pub fn page_size(size: i32) -> usize {
    match usize::try_from(size) {
        Ok(0) | Err(_) => DEFAULT_PAGE_SIZE,
        Ok(size) => size,
    }
}

/// A number whose rule holds, which is 0 or more.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A duration whose rule holds; unset gives `default`.
pub fn duration(value: Option<prost_types::Duration>, default: Duration) -> Duration {
    let given = value.and_then(|value| Duration::try_from(value).ok());
    given.unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VmId;
    use crate::v1;

    #[test]
    fn every_bad_field_is_named_once() {
        let request = v1::ListVmsRequest {
            host_id: "Host".to_owned(),
            page_size: -1,
            ..v1::ListVmsRequest::default()
        };
        let mut fields = Fields::of(&request);
        let host = fields.parse::<crate::ids::HostId>("host_id", &request.host_id);
        let vm = fields.parse::<VmId>("vm", "nope");
        let problem = fields.finish(host.zip(vm)).unwrap_err();
        let named = problem.violations.iter().map(|(field, _)| field.as_str());
        assert_eq!(named.collect::<Vec<_>>(), ["host_id", "page_size", "vm"]);
    }
}
