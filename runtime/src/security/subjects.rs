//! Names of client certificates, and what they give.
//!
//! A certificate names its bearer by URIs and by DNS names, and the two never stand for each other:
//! a URI without a scheme, which could be read as a DNS name, is no name at all.

use super::files::SecurityFileError;
use super::{Caller, Role};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a subject or a token gives: a role, or the role `agent` of one host alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Subject {
    /// The role.
    Role(Role),
    /// The role, for one host.
    Bound(BoundRole),
}

/// A role that is bound to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundRole {
    /// `agent`.
    pub role: Role,
    /// The id of the only host that it may speak for.
    pub host: Option<String>,
}

impl Subject {
    /// The same as what a caller of that name is let in by.
    pub(super) fn grant(&self, name: String) -> Caller {
        match self {
            Subject::Role(role) => Caller::new(name, *role, None),
            Subject::Bound(bound) => Caller::new(name, bound.role, bound.host.clone()),
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Subject::Bound(bound) if bound.host.is_some() && bound.role != Role::Agent => {
                Err("binds another role than agent to a host")
            }
            Subject::Bound(bound) if bound.host.as_deref() == Some("") => Err("has an empty host"),
            _ => Ok(()),
        }
    }
}

impl From<Role> for Subject {
    fn from(role: Role) -> Self {
        Subject::Role(role)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Subject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a role, or a table of `role` and `host`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Subject, E> {
                Role::deserialize(text.into_deserializer()).map(Subject::Role)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Subject, A::Error> {
                BoundRole::deserialize(MapAccessDeserializer::new(map)).map(Subject::Bound)
            }
        }
        input.deserialize_any(Form)
    }
}

/// A name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SubjectName {
    /// Compared letter by letter.
    Uri(String),
    /// In lower case.
    Dns(String),
}

impl SubjectName {
    /// None for a URI that has no scheme, or holds what is no plain text: names go into logs and
    /// the audit log.
    pub(super) fn uri(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        (begins && scheme.bytes().all(letter) && !rest.is_empty() && plain)
            .then(|| SubjectName::Uri(text.to_owned()))
    }

    /// None for what is no name of a host.
    pub(super) fn dns(text: &str) -> Option<Self> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let label = |label: &str| !label.is_empty() && label.bytes().all(letter);
        (text.len() <= 253 && text.split('.').all(label))
            .then(|| SubjectName::Dns(text.to_ascii_lowercase()))
    }

    /// As a configuration writes it. An IP address, a wildcard, or a name in other letters than a
    /// certificate has, would never be found.
    fn configured(text: &str) -> Option<Self> {
        if text.contains(':') {
            return SubjectName::uri(text);
        }
        let number = text.rsplit('.').next().unwrap_or_default();
        let address = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        SubjectName::dns(text).filter(|_| !address)
    }

    pub(super) fn is_spiffe(&self) -> bool {
        matches!(self, SubjectName::Uri(uri) if uri.starts_with("spiffe://"))
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectName::Uri(name) | SubjectName::Dns(name) => f.write_str(name),
        }
    }
}

/// The subjects that are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subjects(BTreeMap<SubjectName, Subject>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    subjects: BTreeMap<String, Subject>,
}

impl Subjects {
    /// # Errors
    /// Says which of them cannot stand.
    pub(super) fn new(subjects: &BTreeMap<String, Subject>) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for (text, subject) in subjects {
            let name = SubjectName::configured(text);
            let name = name.ok_or_else(|| {
                format!("has {text:?}, which is neither a URI with a scheme nor a DNS name")
            })?;
            subject
                .check()
                .map_err(|problem| format!("{text:?} {problem}"))?;
            if known.insert(name, subject.clone()).is_some() {
                return Err(format!("has {text:?} twice, in other letters"));
            }
        }
        Ok(Subjects(known))
    }

    /// Reads a file that is `[subjects]`, for the names that those `beside` it do not have.
    pub(super) fn parse(
        path: &Path,
        content: &[u8],
        beside: &Subjects,
    ) -> Result<Self, SecurityFileError> {
        let refused = |problem: String| SecurityFileError::content(path, problem);
        let text = std::str::from_utf8(content).map_err(|_| refused("is not UTF-8".to_owned()))?;
        let file: File =
            toml::from_str(text).map_err(|error| refused(error.message().to_owned()))?;
        let read = Subjects::new(&file.subjects)
            .map_err(|problem| refused(format!("subjects {problem}")))?;
        match read.0.keys().find(|name| beside.0.contains_key(name)) {
            Some(name) => Err(refused(format!("has {name}, as auth.subjects has"))),
            None => Ok(read),
        }
    }

    /// What that name gives.
    pub(super) fn grant(&self, name: &SubjectName) -> Option<Caller> {
        self.0
            .get(name)
            .map(|subject| subject.grant(name.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(text: &str) -> Result<Subjects, String> {
        Subjects::parse(Path::new("s.toml"), text.as_bytes(), &Subjects::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn uris_and_dns_names_are_told_apart() {
        let known = subjects("[subjects]\n'ops.example.ORG' = 'operator'").unwrap();
        let dns = SubjectName::dns("OPS.example.org").unwrap();
        assert_eq!(known.grant(&dns).unwrap().role(), Role::Operator);
        let uri = SubjectName::Uri("ops.example.org".to_owned());
        assert_eq!(known.grant(&uri), None);
        for bad in [
            "ops.example.org",
            "//a/b",
            ":a",
            "1a:b",
            "a b:c",
            "a:",
            "a:b c",
            "",
        ] {
            assert_eq!(SubjectName::uri(bad), None, "{bad:?}");
        }
        for good in ["spiffe://a/b", "urn:uuid:1", "https://a"] {
            assert!(SubjectName::uri(good).is_some(), "{good}");
        }
    }

    #[test]
    fn what_no_certificate_could_show_is_refused() {
        for bad in [
            "",
            "*.example.org",
            "a b",
            "m\u{fc}ller.de",
            "10.0.0.1",
            "a..b",
            "a.",
            ":",
        ] {
            let text = format!("[subjects]\n\"{bad}\" = 'viewer'");
            assert!(subjects(&text).unwrap_err().contains("neither"), "{bad:?}");
        }
        let twice = "[subjects]\n'a.org' = 'viewer'\n'A.org' = 'operator'";
        assert!(subjects(twice).unwrap_err().contains("twice"));
        assert!(
            subjects("").is_err(),
            "a file that was cut off takes no one's role"
        );
    }

    #[test]
    fn an_agent_may_be_bound_to_a_host_and_nobody_else() {
        let text = "[subjects]\n'spiffe://a/h1' = { role = 'agent', host = 'h1' }";
        let name = SubjectName::uri("spiffe://a/h1").unwrap();
        let caller = subjects(text).unwrap().grant(&name).unwrap();
        assert_eq!((caller.role(), caller.host()), (Role::Agent, Some("h1")));
        for bad in [
            text.replace("agent", "operator"),
            text.replace("'h1' }", "'' }"),
            text.replace("host", "hosts"),
            text.replace("'agent'", "'admin'"),
        ] {
            assert!(subjects(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_in_one_place() {
        let one = subjects("[subjects]\n'a.org' = 'viewer'").unwrap();
        let text = "[subjects]\n'A.org' = 'operator'";
        let refused = Subjects::parse(Path::new("s.toml"), text.as_bytes(), &one).unwrap_err();
        assert!(refused.to_string().contains("auth.subjects"), "{refused}");
    }
}
