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
//! Off by default: then the only barrier is where the server listens. Where `[auth]` stands, a method
//! without a rule is refused, and so is whoever shows nothing. What a call or a connection was let in
//! by is proven again as long as it is open. Nothing here writes a key or a token into a log, an
//! error or an answer.

mod address;
mod auth;
mod bound;
mod client;
mod files;
mod gate;
mod guard;
mod jwt;
mod line;
mod peer;
mod pem;
mod role;
mod rules;
mod subjects;
mod tls;
mod tokens;

pub use address::CallAddress;
pub use auth::{AuthConfig, Reach};
pub use bound::{HostNames, NamesOfHost};
pub use client::{Client, ClientConfig};
pub use files::SecurityFileError;
pub(crate) use gate::{ConnectionInfo, Gate};
pub(crate) use guard::Guard;
pub use jwt::JwtConfig;
pub use line::Line;
pub(crate) use peer::Peer;
pub use role::{Caller, Role};
pub use rules::Rules;
pub use subjects::{BoundRole, Subject};
pub(crate) use tls::TlsFiles;
pub use tls::{ClientCertificate, TlsConfig};

use crate::ConfigError;
use files::{LOOK, Watched};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// From now on SIGHUP asks for a look at the files of a server, or for nothing: it does not end the
/// process.
///
/// # Errors
/// When the signal cannot be waited for.
pub fn hold_hangups() -> io::Result<()> {
    // A handler stays once there is one.
    signal(SignalKind::hangup()).map(drop)
}

/// What a server asks of its callers.
#[derive(Clone, Debug, Default)]
pub struct Security {
    pub(crate) tls: Option<Arc<TlsFiles>>,
    pub(crate) guard: Option<Arc<Guard>>,
}

impl Security {
    /// Whether both tables fit together. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub fn check(tls: &TlsConfig, auth: Option<&AuthConfig>) -> Result<(), ConfigError> {
        tls.check()?;
        match auth {
            Some(auth) => auth.check(tls),
            None if tls.client_ca_file.is_some() => Err(ConfigError::conflict(
                "tls.client_ca_file",
                "needs [auth], which says what those clients may do",
            )),
            None => Ok(()),
        }
    }

    /// Loads what is configured.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`ConfigError::SecurityFile`].
    pub fn open(
        tls: &TlsConfig,
        auth: Option<&AuthConfig>,
        rules: Rules,
    ) -> Result<Self, ConfigError> {
        Security::check(tls, auth)?;
        let guard = auth.map(|auth| Guard::open(auth, rules)).transpose()?;
        Ok(Security {
            tls: tls.open()?.map(Arc::new),
            guard: guard.map(Arc::new),
        })
    }

    /// The names that are bound to hosts; none where nobody is known.
    #[must_use]
    pub fn host_names(&self) -> Option<HostNames> {
        self.guard.clone().map(HostNames::new)
    }

    /// Looks at the files every few seconds, and at once on SIGHUP, and shuts out whoever is let in
    /// no more. It never ends.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub(crate) fn follow_files(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let security = self.clone();
        Ok(async move {
            loop {
                let asked = tokio::select! {
                    () = tokio::time::sleep(LOOK) => false,
                    _ = hangup.recv() => {
                        tracing::info!("asked to look at the security files");
                        true
                    }
                };
                let security = security.clone();
                let look = tokio::task::spawn_blocking(move || security.look(asked));
                if let Err(died) = look.await {
                    tracing::error!(error = %died, "the security files could not be looked at");
                }
            }
        })
    }

    fn look(&self, asked: bool) {
        let mut changed = false;
        for files in self.watched() {
            changed |= files.look(asked);
        }
        if let Some(tls) = &self.tls {
            tls.sweep();
        }
        if let Some(guard) = self.guard.as_ref().filter(|_| changed) {
            guard.something_changed();
        }
    }

    fn watched(&self) -> impl Iterator<Item = Arc<dyn Watched>> {
        let tls = self.tls.iter().flat_map(|tls| tls.watched());
        let guard = self.guard.iter().flat_map(|guard| guard.watched());
        tls.chain(guard)
    }
}

#[cfg(test)]
mod tests;
