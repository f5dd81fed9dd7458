//! The table `[tls]`: the certificate that a server shows, and whose client certificates it takes.

use super::files::{OfFiles, SecurityFileError, Watched};
use super::{Peer, pem};
use crate::ConfigError;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    /// Lists of certificates that those authorities have revoked, one for each of them and for each
    /// that stands between. One that is out of date counts as missing.
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
    pub(super) fn open(&self) -> Result<Option<TlsFiles>, SecurityFileError> {
        let (Some(cert), Some(key)) = (self.cert_file.clone(), self.key_file.clone()) else {
            return Ok(None);
        };
        let trust = self.client_ca_file.clone().map(|authorities| {
            let crl = self.client_crl_file.clone();
            Trust::open(authorities, crl, self.client_certificate)
        });
        Ok(Some(TlsFiles {
            identity: Arc::new(identity(cert, key)?),
            trust: trust.transpose()?.map(Arc::new),
            peers: Mutex::default(),
        }))
    }
}

/// A certificate and its key, as something to show.
pub(super) fn identity(
    cert: PathBuf,
    key: PathBuf,
) -> Result<OfFiles<CertifiedKey>, SecurityFileError> {
    let paths = vec![cert.clone(), key.clone()];
    OfFiles::open(paths, move |contents| {
        let chain = pem::certificates(&cert, &contents[0])?;
        let secret = pem::key(&key, &contents[1])?;
        CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|error| {
            let problem = format!(
                "is no key for the certificate in {}: {error}",
                cert.display()
            );
            SecurityFileError::content(&key, problem)
        })
    })
}

/// What the files of `[tls]` give. Whom to trust changes by itself: a key that is not usable must
/// not keep a revocation from counting.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    identity: Arc<OfFiles<CertifiedKey>>,
    trust: Option<Arc<OfFiles<Trust>>>,
    peers: Mutex<Vec<Weak<Peer>>>,
}

impl TlsFiles {
    /// For the next handshake, of which one of these protocols comes: how it goes, and whom it
    /// trusts.
    pub(crate) fn handshake(&self, protocols: &[&[u8]]) -> (Arc<ServerConfig>, Option<Arc<Trust>>) {
        let trust = self.trust();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3");
        let builder = match &trust {
            Some(trust) => builder.with_client_cert_verifier(Arc::clone(&trust.0)),
            None => builder.with_no_client_auth(),
        };
        let shown = SingleCertAndKey::from(self.identity.get());
        let mut server = builder.with_cert_resolver(Arc::new(shown));
        server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Each connection proves anew who it is: what a former one was taken for may be revoked.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        (Arc::new(server), trust)
    }

    /// Whom to trust now; none where clients are asked for no certificate.
    pub(super) fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.as_ref().map(|trust| trust.get())
    }

    /// The files, to be looked at.
    pub(super) fn watched(&self) -> impl Iterator<Item = Arc<dyn Watched>> {
        let trust = self.trust.clone().map(|trust| trust as Arc<dyn Watched>);
        let identity: Arc<dyn Watched> = Arc::clone(&self.identity) as _;
        std::iter::once(identity).chain(trust)
    }

    /// Remembers a client for as long as its connection is open.
    pub(super) fn remember(&self, peer: &Arc<Peer>) {
        self.peers().push(Arc::downgrade(peer));
    }

    /// Closes the connections of clients whose certificates are good no more, and of which no call
    /// may ever ask.
    pub(super) fn sweep(&self) {
        let mut peers = self.peers();
        peers.retain(|peer| peer.strong_count() > 0);
        let open: Vec<Arc<Peer>> = peers.iter().filter_map(Weak::upgrade).collect();
        drop(peers);
        for peer in open {
            peer.is_good();
        }
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Weak<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which client certificates are taken.
#[derive(Debug)]
pub(crate) struct Trust(Arc<dyn ClientCertVerifier>);

impl Trust {
    fn open(
        authorities: PathBuf,
        crl: Option<PathBuf>,
        wanted: ClientCertificate,
    ) -> Result<OfFiles<Trust>, SecurityFileError> {
        let paths = std::iter::once(authorities.clone()).chain(crl.clone());
        OfFiles::open(paths.collect(), move |contents| {
            let revoked = crl.as_deref().zip(contents.get(1).map(Vec::as_slice));
            verifier((&authorities, &contents[0]), revoked, wanted).map(Trust)
        })
    }

    /// Whether a certificate, with those between it and an authority, is good now.
    pub(super) fn proves(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let proven = self.0.verify_client_cert(own, between, UnixTime::now());
        proven.map(drop)
    }
}

fn verifier(
    authorities: (&Path, &[u8]),
    revoked: Option<(&Path, &[u8])>,
    wanted: ClientCertificate,
) -> Result<Arc<dyn ClientCertVerifier>, SecurityFileError> {
    let (path, content) = authorities;
    let roots = Arc::new(pem::roots(path, content)?);
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    if let Some((path, content)) = revoked {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(content).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty());
        let none = || SecurityFileError::content(path, "holds no revocation list in PEM");
        // The whole way up, and no list that is out of date: a certificate of which it cannot be
        // told whether it was revoked is not taken.
        builder = builder
            .with_crls(lists.ok_or_else(none)?)
            .enforce_revocation_expiration();
    }
    if wanted == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|error| SecurityFileError::content(path, format!("is not usable: {error}")))
}
