//! Servers that are bound to a host: whose certificate has to have a name that `[auth]` gives to the agent of
//! that host alone, beside the one of its address.
//!
//! The same names let the host's agent in when it calls. They may come and go with their file, so that an
//! open connection is asked about again as well.

use super::guard::Guard;
use super::peer;
use super::subjects::SubjectName;
use rustls::pki_types::CertificateDer;
use std::io;
use std::sync::Arc;
use tokio_rustls::rustls;

/// Which names are bound to which host.
#[derive(Clone, Debug)]
pub struct HostNames(Arc<Guard>);

impl HostNames {
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        HostNames(guard)
    }

    /// Those of one host.
    #[must_use]
    pub fn of(&self, host: &str) -> NamesOfHost {
        NamesOfHost {
            guard: Arc::clone(&self.0),
            host: host.to_owned(),
        }
    }
}

/// The names that are bound to one host.
#[derive(Clone, Debug)]
pub struct NamesOfHost {
    guard: Arc<Guard>,
    host: String,
}

impl NamesOfHost {
    /// The host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What a server shows by its certificates, if it is one of the host.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn prove(&self, chain: Option<&[CertificateDer<'static>]>) -> io::Result<Proven> {
        let names = chain.and_then(<[_]>::first).map(peer::names);
        let proven = Proven {
            of: self.clone(),
            names: names.unwrap_or_default(),
        };
        if proven.holds() {
            return Ok(proven);
        }
        let shown: Vec<String> = proven.names.iter().map(ToString::to_string).collect();
        tracing::warn!(
            host = self.host,
            ?shown,
            "the certificate is not of the host's agent"
        );
        let text = format!("the certificate is not of the agent of host {}", self.host);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

/// What a server has shown.
pub(super) struct Proven {
    of: NamesOfHost,
    names: Vec<SubjectName>,
}

impl Proven {
    /// Whether it is of the host, or still so.
    pub(super) fn holds(&self) -> bool {
        self.of.guard.binds(&self.names, &self.of.host)
    }
}
