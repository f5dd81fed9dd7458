//! Bearer tokens that somebody else has signed (JWT), known by the public keys in a JWKS file.
//!
//! The keys, not the token, say how it must be signed: each key has one algorithm, and a token names
//! its key. Symmetric keys and `none` do not exist here. A token is good for this server's audience
//! and from its issuer alone, must say when it expires, and gives the roles in one of its claims.

mod verify;

use super::files::{OfFiles, SecurityFileError, Watched};
use super::role::Shown;
use super::{Caller, Role};
use crate::ConfigError;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const REQUIRED: [&str; 4] = ["exp", "iss", "aud", "sub"];
/// More would keep a token that has expired alive, rather than bear with a clock.
const MOST_LEEWAY: u32 = 300;

/// The table `[auth.jwt]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The public keys that tokens are signed with, a JSON Web Key Set. Read again when it changes.
    pub jwks_file: PathBuf,
    /// The `iss` that a token must have.
    pub issuer: String,
    /// What a token's `aud` must be, or hold.
    pub audience: String,
    /// The claim that has the roles, a list or a text of words. Dots lead into objects.
    #[serde(default = "roles")]
    pub roles_claim: String,
    /// The claim that has the id of the only host that an agent may speak for; dots as in `roles_claim`. With
    /// it a token without that claim is no agent's. Without it agents are bound to no host.
    #[serde(default)]
    pub host_claim: Option<String>,
    /// How far the issuer's clock may be off, in seconds, up to 300.
    #[serde(default = "leeway")]
    pub leeway_seconds: u32,
}

fn roles() -> String {
    "roles".to_owned()
}

fn leeway() -> u32 {
    30
}

impl JwtConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refused = if self.issuer.is_empty() {
            ("auth.jwt.issuer", "is empty")
        } else if self.audience.is_empty() {
            ("auth.jwt.audience", "is empty")
        } else if self.roles_claim.is_empty() {
            ("auth.jwt.roles_claim", "is empty")
        } else if self.host_claim.as_deref() == Some("") {
            ("auth.jwt.host_claim", "is empty")
        } else if self.leeway_seconds > MOST_LEEWAY {
            ("auth.jwt.leeway_seconds", "is more than 300")
        } else {
            return Ok(());
        };
        Err(ConfigError::conflict(refused.0, refused.1))
    }
}

/// Knows whose a signed token is.
#[derive(Debug)]
pub(super) struct Jwts {
    config: JwtConfig,
    keys: Arc<OfFiles<Keys>>,
}

/// What is read of a token's claims; the library looks at its times and its audience.
#[derive(Deserialize)]
struct Claims {
    /// One text, though the library would take a list.
    #[serde(rename = "iss")]
    _issuer: String,
    sub: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Jwts {
    pub(super) fn open(config: &JwtConfig) -> Result<Self, SecurityFileError> {
        verify::install();
        let path = config.jwks_file.clone();
        let keys = OfFiles::open(vec![path.clone()], move |contents| {
            Keys::parse(&path, &contents[0])
        });
        Ok(Jwts {
            config: config.clone(),
            keys: Arc::new(keys?),
        })
    }

    pub(super) fn watched(&self) -> Arc<dyn Watched> {
        Arc::clone(&self.keys) as _
    }

    pub(super) fn shown(&self, token: &str) -> Result<Shown, Refusal> {
        let header = decode_header(token).map_err(|error| Refusal::of(&error))?;
        if header.crit.is_some() {
            return Err(Refusal("it asks for extensions"));
        }
        let kid = header.kid.ok_or(Refusal("it names no key"))?;
        let keys = self.keys.get();
        let key = keys.0.iter().find(|key| key.id == kid);
        let key = key.ok_or(Refusal("its key is not known"))?;
        let mut wanted = Validation::new(key.algorithm);
        wanted.set_required_spec_claims(&REQUIRED);
        wanted.set_issuer(&[&self.config.issuer]);
        wanted.set_audience(&[&self.config.audience]);
        wanted.validate_nbf = true;
        wanted.leeway = u64::from(self.config.leeway_seconds);
        let claims = decode::<Claims>(token, &key.key, &wanted);
        let Claims { sub, others, .. } = claims.map_err(|error| Refusal::of(&error))?.claims;
        // It goes into logs and the audit log.
        if !is_plain(&sub) {
            return Err(Refusal("its subject is no plain name"));
        }
        let name = format!("jwt:{sub}");
        let roles = roles_in(&others, &self.config.roles_claim);
        let host = self.config.host_claim.as_deref();
        let named = |claim| named_in(&others, claim).and_then(Value::as_str);
        let host = host.map(|claim| named(claim).filter(|host| is_plain(host)));
        let grant = |role| match (role, host) {
            // It does not say whose agent it is.
            (Role::Agent, Some(None)) => None,
            (Role::Agent, Some(host)) => {
                Some(Caller::new(name.clone(), role, host.map(str::to_owned)))
            }
            _ => Some(Caller::new(name.clone(), role, None)),
        };
        Ok(Shown {
            grants: roles.into_iter().filter_map(grant).collect(),
            name,
        })
    }
}

fn is_plain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a claim holds, by its name or the way to it.
fn named_in<'a>(claims: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    let nested = || {
        let mut steps = claim.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    };
    // Some claims have dots in their names.
    claims.get(claim).or_else(nested)
}

/// The roles among the words of a claim. Claims of other services' roles are of no matter here.
fn roles_in(claims: &Map<String, Value>, claim: &str) -> Vec<Role> {
    match named_in(claims, claim) {
        Some(Value::String(words)) => words.split_whitespace().filter_map(Role::named).collect(),
        Some(Value::Array(list)) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.filter_map(Role::named).collect()
        }
        _ => Vec::new(),
    }
}

/// Why a token is refused; nothing of it is part of this.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(&'static str);

impl Refusal {
    fn of(error: &jsonwebtoken::errors::Error) -> Self {
        Refusal(match error.kind() {
            ErrorKind::ExpiredSignature => "it has expired",
            ErrorKind::ImmatureSignature => "it is not good yet",
            ErrorKind::InvalidSignature => "its signature is wrong",
            ErrorKind::InvalidAudience => "it is for another audience",
            ErrorKind::InvalidIssuer => "it is from another issuer",
            ErrorKind::MissingRequiredClaim(_) => "it lacks a claim",
            ErrorKind::InvalidAlgorithm => "it is signed by another algorithm than its key's",
            _ => "it cannot be read",
        })
    }

    /// What the caller hears: no more than whether a new one would help.
    pub(super) fn told(&self) -> &'static str {
        match self.0 {
            "it has expired" => "the bearer token has expired",
            _ => "the bearer token is not known",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The keys that are known.
struct Keys(Vec<Key>);

struct Key {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct File {
    keys: Vec<Value>,
}

impl Keys {
    /// Keys of other kinds and for other uses are left out: an issuer publishes what it likes.
    fn parse(path: &Path, content: &[u8]) -> Result<Self, SecurityFileError> {
        let refused = |problem| SecurityFileError::content(path, problem);
        let file: File =
            serde_json::from_slice(content).map_err(|_| refused("is no JSON Web Key Set"))?;
        let mut keys: Vec<Key> = Vec::new();
        for key in file.keys.into_iter().filter_map(usable) {
            if keys.iter().any(|other| other.id == key.id) {
                return Err(refused("has two keys of one id"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(refused(
                "has no key with an id for RS256, ES256 or EdDSA (Ed25519)",
            ));
        }
        Ok(Keys(keys))
    }
}

fn usable(key: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let about = &jwk.common;
    let signs = about
        .public_key_use
        .as_ref()
        .is_none_or(|wanted| *wanted == PublicKeyUse::Signature);
    let verifies = about
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let same = about
        .key_algorithm
        .as_ref()
        .is_none_or(|other| *other == named);
    let id = about.key_id.clone().filter(|id| !id.is_empty())?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (signs && verifies && same).then_some(Key { id, algorithm, key })
}

#[cfg(test)]
mod tests;
