//! Who may call a server: TLS, certificates of clients, bearer tokens, and the roles that they give.
//!
//! ```text
//!  accept ─▶ handshake (tls) ─▶ Peer: names of the certificate ─┐
//!                                                               ▼
//!  request ─▶ span ─▶ panic ─▶ deadline ─▶ Gate ─ Guard: token or certificate ─▶ Caller, roles
//!                                                  │     rule of the method ────▶ pass or refuse
//!                                                  └ files: read again every 5 s and on SIGHUP
//! ```
//!
//! Off by default: then the only barrier is where the server listens. Once `[auth]` is set, a method
//! without a rule is refused, and so is whoever shows nothing. Nothing here writes a key or a token
//! into a log, an error or an answer.

mod client;
mod files;
mod gate;
mod guard;
mod line;
mod peer;
mod pem;
mod role;
mod rules;
mod tls;
mod tokens;

pub use client::{Client, ClientConfig};
pub(crate) use files::OfFiles;
pub use files::SecurityFileError;
pub(crate) use gate::{ConnectionInfo, Gate};
pub(crate) use guard::Guard;
pub use line::Line;
pub(crate) use peer::Peer;
pub use role::{Caller, Role};
pub use rules::Rules;
pub(crate) use tls::TlsMaterial;
pub use tls::{ClientCertificate, TlsConfig};

use crate::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the files are looked at. They are few and small.
const LOOK: Duration = Duration::from_secs(5);

/// The table `[auth]`. With either key set, every method but health needs a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of bearer tokens; it holds their hashes. Read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// The role of each client certificate, by one of its alternative names: a URI, such as a
    /// SPIFFE id, or a DNS name.
    pub subjects: BTreeMap<String, Role>,
}

impl AuthConfig {
    /// Whether callers need a role.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tokens_file.is_some() || !self.subjects.is_empty()
    }

    /// Whether this fits together with `[tls]`. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub fn check(&self, tls: &TlsConfig) -> Result<(), ConfigError> {
        tls.check()?;
        if tls.client_ca_file.is_some() && !self.is_on() {
            return Err(ConfigError::conflict(
                "tls.client_ca_file",
                "needs [auth], which says what those clients may do",
            ));
        }
        if !self.subjects.is_empty() && tls.client_ca_file.is_none() {
            return Err(ConfigError::conflict(
                "auth.subjects",
                "needs tls.client_ca_file",
            ));
        }
        if self.subjects.keys().any(String::is_empty) {
            return Err(ConfigError::conflict("auth.subjects", "has an empty name"));
        }
        Ok(())
    }
}

/// What a server asks of its callers.
#[derive(Clone, Debug, Default)]
pub struct Security {
    pub(crate) tls: Option<Arc<OfFiles<TlsMaterial>>>,
    pub(crate) guard: Option<Arc<Guard>>,
}

impl Security {
    /// Loads what is configured.
    ///
    /// # Errors
    /// As [`AuthConfig::check`], and [`ConfigError::SecurityFile`].
    pub fn open(tls: &TlsConfig, auth: &AuthConfig, rules: Rules) -> Result<Self, ConfigError> {
        auth.check(tls)?;
        Ok(Security {
            tls: tls.open()?.map(Arc::new),
            guard: Guard::open(auth, rules)?.map(Arc::new),
        })
    }

    /// Looks at the files every few seconds, and at once on SIGHUP. It never ends.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub(crate) fn follow_files(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let tls = self.tls.clone();
        let tokens = self
            .guard
            .as_ref()
            .and_then(|guard| guard.tokens())
            .cloned();
        let files = tls.is_some() || tokens.is_some();
        // Only where there are files is SIGHUP anything but the end of the process.
        let mut hangup = files.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(async move {
            let Some(hangup) = &mut hangup else {
                return std::future::pending().await;
            };
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = hangup.recv() => tracing::info!("asked to look at the security files"),
                }
                let (tls, tokens) = (tls.clone(), tokens.clone());
                let look = move || {
                    tls.inspect(|files| files.look());
                    tokens.inspect(|files| files.look());
                };
                if let Err(died) = tokio::task::spawn_blocking(look).await {
                    tracing::error!(error = %died, "the security files could not be looked at");
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
