//! The client at the other end of a connection, as its certificate names it.
//!
//! A handshake proves the certificate once, and a connection may last for weeks. So it is proven
//! again now and then, and whenever the files of `[tls]` have changed: at each call, and by a sweep
//! for those that make none. A connection whose certificate has expired, was revoked, or is of an
//! authority that was taken out, is closed a moment later.

use super::subjects::SubjectName;
use super::tls::{TlsFiles, Trust};
use rustls::pki_types::CertificateDer;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use webpki::EndEntityCert;

/// How long a proof is good while the files stay as they are.
const PROOF: Duration = Duration::from_secs(10);
/// For the answer to reach the client before its connection is closed.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// A client that has shown a certificate.
#[derive(Debug)]
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<SubjectName>,
    tls: Arc<TlsFiles>,
    proof: Mutex<Proof>,
    connection: CancellationToken,
}

#[derive(Debug)]
struct Proof {
    by: Arc<Trust>,
    at: Instant,
    refuted: bool,
}

impl Peer {
    /// The client of a connection whose handshake trusted `by`; none if it showed no certificate.
    pub(crate) fn new(
        chain: Option<&[CertificateDer<'static>]>,
        tls: &Arc<TlsFiles>,
        by: Option<Arc<Trust>>,
        connection: CancellationToken,
    ) -> Option<Arc<Self>> {
        let chain = chain?;
        let peer = Arc::new(Peer {
            names: names(chain.first()?),
            chain: chain.to_vec(),
            tls: Arc::clone(tls),
            proof: Mutex::new(Proof {
                by: by?,
                at: Instant::now(),
                refuted: false,
            }),
            connection,
        });
        tls.remember(&peer);
        Some(peer)
    }

    /// The alternative names of the certificate: URIs first, then DNS names.
    pub(crate) fn names(&self) -> &[SubjectName] {
        &self.names
    }

    /// Whether the certificate is still good. If it is not, the connection is about to be closed.
    pub(crate) fn is_good(&self) -> bool {
        let Some(by) = self.tls.trust() else {
            return false;
        };
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        if proof.refuted {
            return false;
        }
        if !Arc::ptr_eq(&proof.by, &by) || proof.at.elapsed() >= PROOF {
            proof.refuted = !self.proven(&by);
            proof.at = Instant::now();
            proof.by = by;
            if proof.refuted {
                self.close();
            }
        }
        !proof.refuted
    }

    fn proven(&self, by: &Trust) -> bool {
        let Some((own, between)) = self.chain.split_first() else {
            return false;
        };
        let proven = by.proves(own, between);
        if let Err(error) = &proven {
            let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
            tracing::info!(%error, ?names, "a client's certificate is good no more");
        }
        proven.is_ok()
    }

    fn close(&self) {
        let connection = self.connection.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_ANSWER).await;
            connection.cancel();
        });
    }
}

pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<SubjectName> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris = parsed.valid_uri_names().filter_map(SubjectName::uri);
    let dns = parsed.valid_dns_names().filter_map(SubjectName::dns);
    uris.chain(dns).collect()
}
