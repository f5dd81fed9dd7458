//! Bearer tokens that callers show, known here by their SHA-256 alone.
//!
//! ```toml
//! [tokens.backup-console]
//! sha256 = "<64 hexadecimal digits>"
//! role = "operator"
//! ```
//!
//! A token of the role `agent` may have a `host`, the only one that it speaks for. `[tokens]` alone
//! strikes all of them off; a file without it is taken for one that was cut off.

use super::Role;
use super::files::SecurityFileError;
use super::role::Shown;
use super::subjects::{BoundRole, Subject};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use subtle::ConstantTimeEq as _;

const FORM: &str = "must hold tables `[tokens.NAME]`, each with `sha256`, 64 hexadecimal digits \
                    that no other name has, and `role`, perhaps `host` for the role agent, and nothing \
                    else; `[tokens]` alone for none";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sha256: String,
    role: Role,
    host: Option<String>,
}

/// The tokens that are known.
pub(crate) struct Tokens(Vec<Known>);

struct Known {
    name: String,
    digest: [u8; 32],
    gives: Subject,
}

impl Tokens {
    /// Reads the file of tokens. What it refuses is told by the line alone: by mistake the file may
    /// hold a token itself.
    pub(crate) fn parse(path: &Path, content: &[u8]) -> Result<Self, SecurityFileError> {
        let refused = |line: Option<usize>| {
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            SecurityFileError::content(path, format!("{place}{FORM}"))
        };
        let text = std::str::from_utf8(content).map_err(|_| refused(None))?;
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            refused(before.map(|before| before.matches('\n').count() + 1))
        })?;
        let mut known: Vec<Known> = Vec::new();
        for (name, entry) in file.tokens {
            let digest = digits(&entry.sha256).ok_or_else(|| refused(None))?;
            let twice = known.iter().any(|other| other.digest == digest);
            let gives = Subject::Bound(BoundRole {
                role: entry.role,
                host: entry.host,
            });
            if twice || !is_name(&name) || gives.check().is_err() {
                return Err(refused(None));
            }
            known.push(Known {
                name,
                digest,
                gives,
            });
        }
        Ok(Tokens(known))
    }

    /// Whose token it is. The time that takes does not tell how much of a guess was right.
    pub(crate) fn shown(&self, token: &str) -> Option<Shown> {
        let shown: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&shown)) {
                found = Some(known);
            }
        }
        found.map(|known| {
            let name = format!("token:{}", known.name);
            Shown {
                grants: vec![known.gives.grant(name.clone())],
                name,
            }
        })
    }
}

/// A name goes into logs and the audit log.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

fn digits(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(&text[2 * pair..2 * pair + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tokens, String> {
        let parsed = Tokens::parse(Path::new("tokens.toml"), text.as_bytes());
        parsed.map_err(|error| error.to_string())
    }

    fn entry(name: &str, token: &str) -> String {
        let digest: String = Sha256::digest(token)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        format!("[tokens.{name}]\nsha256 = \"{digest}\"\nrole = \"operator\"\n")
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let tokens = parse(&(entry("a", "one") + &entry("b", "two"))).unwrap();
        let shown = tokens.shown("two").unwrap();
        assert_eq!(shown.name, "token:b");
        assert_eq!(shown.grants[0].role(), Role::Operator);
        for wrong in ["", "tw", "two ", "Two", "three"] {
            assert!(tokens.shown(wrong).is_none(), "{wrong:?}");
        }
        assert!(parse("[tokens]").unwrap().shown("").is_none());
    }

    #[test]
    fn a_token_of_an_agent_may_be_bound_to_a_host() {
        let bound = entry("h1", "one").replace("operator", "agent") + "host = \"h1\"\n";
        let shown = parse(&bound).unwrap().shown("one").unwrap();
        assert_eq!(shown.grants[0].host(), Some("h1"));
        assert!(parse(&bound.replace("agent", "operator")).is_err());
    }

    #[test]
    fn a_file_that_was_cut_off_strikes_nobody_off() {
        for text in ["", "\n", "# none"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bad_file_is_refused_and_its_text_is_not_told() {
        let good = entry("a", "one");
        let bad = [
            "[tokens]\na = \"hush-hush\"".to_owned(),
            "tokens = \"hush-hush\"".to_owned(),
            "hush-hush".to_owned(),
            "[tokens.a]\nsha256 = \"hush-hush\"\nrole = \"viewer\"".to_owned(),
            "[tokens.a]\ntoken = \"hush-hush\"\nrole = \"viewer\"".to_owned(),
            good.replace("operator", "hush-hush"),
            good.clone() + "hush-hush = 1",
            good.clone() + &entry("b", "one"),
            entry("\"a b\"", "one"),
            entry("\"\"", "one"),
        ];
        for text in bad {
            let refused = parse(&text).map(drop).unwrap_err();
            assert!(refused.starts_with("tokens.toml: "), "{refused}");
            assert!(!refused.contains("hush"), "{refused}");
        }
        let refused = parse(&(good + "x = 1")).map(drop).unwrap_err();
        assert!(refused.starts_with("tokens.toml: line 4: "), "{refused}");
    }
}
