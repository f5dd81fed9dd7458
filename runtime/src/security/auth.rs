//! The table `[auth]`: who is known, and by what.

use super::jwt::JwtConfig;
use super::subjects::{Subject, Subjects};
use super::tls::TlsConfig;
use crate::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The table `[auth]`. Where it stands, every method but health needs a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of bearer tokens; it holds their hashes. Read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// A file with more of `subjects`. Read again when it changes.
    pub subjects_file: Option<PathBuf>,
    /// Tokens that others have signed.
    pub jwt: Option<JwtConfig>,
    /// The role of each client certificate, by one of its alternative names: a URI, such as a
    /// SPIFFE id, or a DNS name.
    pub subjects: BTreeMap<String, Subject>,
}

impl AuthConfig {
    /// Whether this fits together with `[tls]`. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub(super) fn check(&self, tls: &TlsConfig) -> Result<(), ConfigError> {
        let certificates = !self.subjects.is_empty() || self.subjects_file.is_some();
        if !certificates && self.tokens_file.is_none() && self.jwt.is_none() {
            return Err(ConfigError::conflict(
                "auth",
                "knows nobody: set auth.tokens_file, auth.subjects, auth.subjects_file or auth.jwt",
            ));
        }
        if certificates && tls.client_ca_file.is_none() {
            let key = match self.subjects_file {
                Some(_) => "auth.subjects_file",
                None => "auth.subjects",
            };
            return Err(ConfigError::conflict(key, "needs tls.client_ca_file"));
        }
        if let Some(jwt) = &self.jwt {
            jwt.check()?;
        }
        Subjects::new(&self.subjects)
            .map(drop)
            .map_err(|problem| ConfigError::conflict("auth.subjects", &problem))
    }
}

/// How far a server may be heard. It decides for every address that it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On this machine alone.
    Near,
    /// By other machines too.
    Far,
}

impl Reach {
    /// Other machines may hear a server that has TLS and knows its callers, or whose operator says
    /// that something else guards the way. TLS alone keeps no caller out.
    #[must_use]
    pub fn of(tls: &TlsConfig, auth: Option<&AuthConfig>, insecure: bool) -> Self {
        if insecure || (tls.is_on() && auth.is_some()) {
            Reach::Far
        } else {
            Reach::Near
        }
    }
}
