//! The table `[tls]`: the certificate that a server shows, and whose client certificates it takes.

use super::files::{OfFiles, SecurityFileError};
use super::pem;
use crate::ConfigError;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls;

/// The only protocol that is spoken here.
pub(super) const HTTP_2: &[u8] = b"h2";

/// The table `[tls]`. Without `cert_file` there is no TLS. All files are PEM, and are read again
/// when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, followed by those between it and its authority's.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    pub key_file: Option<PathBuf>,
    /// The authorities whose client certificates are taken. Without it clients are asked for none.
    pub client_ca_file: Option<PathBuf>,
    /// Lists of client certificates that their authority has revoked.
    pub client_crl_file: Option<PathBuf>,
    /// Whether a client must have a certificate.
    pub client_certificate: ClientCertificate,
}

/// Whether a client must have a certificate, where `client_ca_file` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// A client without one is not connected, not even to ask for health.
    #[default]
    Required,
    /// A client without one may ask for health, and for the rest with a token.
    Optional,
}

impl TlsConfig {
    /// Whether the server speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let with =
            |key: &Option<PathBuf>, needed: &Option<PathBuf>| key.is_none() || needed.is_some();
        let optional = self.client_certificate == ClientCertificate::Optional;
        let refused = if !with(&self.cert_file, &self.key_file) {
            ("tls.cert_file", "needs tls.key_file")
        } else if !with(&self.key_file, &self.cert_file) {
            ("tls.key_file", "needs tls.cert_file")
        } else if !with(&self.client_ca_file, &self.cert_file) {
            ("tls.client_ca_file", "needs tls.cert_file")
        } else if !with(&self.client_crl_file, &self.client_ca_file) {
            ("tls.client_crl_file", "needs tls.client_ca_file")
        } else if optional && self.client_ca_file.is_none() {
            ("tls.client_certificate", "needs tls.client_ca_file")
        } else {
            return Ok(());
        };
        Err(ConfigError::conflict(refused.0, refused.1))
    }

    /// Loads the files; none without TLS.
    pub(super) fn open(&self) -> Result<Option<OfFiles<TlsMaterial>>, SecurityFileError> {
        let (Some(cert), Some(key)) = (self.cert_file.clone(), self.key_file.clone()) else {
            return Ok(None);
        };
        let optional = [self.client_ca_file.clone(), self.client_crl_file.clone()];
        let paths: Vec<PathBuf> = [cert, key]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .collect();
        let required = self.client_certificate == ClientCertificate::Required;
        let named = paths.clone();
        let make = move |contents: &[Vec<u8>]| {
            let files: Vec<(&Path, &[u8])> = named
                .iter()
                .map(PathBuf::as_path)
                .zip(contents.iter().map(Vec::as_slice))
                .collect();
            TlsMaterial::parse(&files, required)
        };
        OfFiles::open(paths, make).map(Some)
    }
}

/// What the files of `[tls]` give.
pub(crate) struct TlsMaterial {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsMaterial {
    /// Certificate, key, then perhaps the clients' authorities, then perhaps what they revoked.
    fn parse(files: &[(&Path, &[u8])], required: bool) -> Result<Self, SecurityFileError> {
        let provider = Arc::new(ring::default_provider());
        let clients = match files.get(2) {
            None => None,
            Some(authorities) => Some(verifier(&provider, *authorities, files.get(3), required)?),
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3");
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let (cert_path, cert) = files[0];
        let (key_path, key) = files[1];
        let mut server = builder
            .with_single_cert(
                pem::certificates(cert_path, cert)?,
                pem::key(key_path, key)?,
            )
            .map_err(|error| {
                let place = cert_path.display();
                let problem = format!("is no key for the certificate in {place}: {error}");
                SecurityFileError::content(key_path, problem)
            })?;
        server.alpn_protocols = vec![HTTP_2.to_vec()];
        // Each connection proves anew who it is: what a former one was taken for may be revoked.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(TlsMaterial {
            server: Arc::new(server),
            clients,
        })
    }
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    authorities: (&Path, &[u8]),
    revoked: Option<&(&Path, &[u8])>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, SecurityFileError> {
    let (path, content) = authorities;
    let roots = Arc::new(pem::roots(path, content)?);
    let provider = Arc::clone(provider);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    if let Some((path, content)) = revoked {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(content).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty());
        let none = || SecurityFileError::content(path, "holds no revocation list in PEM");
        builder = builder
            .with_crls(lists.ok_or_else(none)?)
            .only_check_end_entity_revocation();
    }
    if !required {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|error| SecurityFileError::content(path, format!("is not usable: {error}")))
}
