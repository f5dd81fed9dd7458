//! The client at the other end of a connection, as its certificate names it.
//!
//! A handshake proves the certificate once, and a connection may last for weeks. So it is proven
//! again now and then, and whenever the files of `[tls]` have changed; a connection whose
//! certificate has expired, was revoked, or is of an authority that was taken out, is told so at
//! its next call, and closed a moment later.

use super::files::OfFiles;
use super::tls::TlsMaterial;
use rustls::pki_types::{CertificateDer, UnixTime};
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
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<String>,
    tls: Arc<OfFiles<TlsMaterial>>,
    proof: Mutex<Proof>,
    connection: CancellationToken,
}

struct Proof {
    by: Arc<TlsMaterial>,
    at: Instant,
}

impl Peer {
    /// The client of a connection whose handshake is done by `by`; none if it showed no certificate.
    pub(crate) fn new(
        chain: Option<&[CertificateDer<'static>]>,
        tls: &Arc<OfFiles<TlsMaterial>>,
        by: Arc<TlsMaterial>,
        connection: CancellationToken,
    ) -> Option<Self> {
        let chain = chain?;
        Some(Peer {
            names: names(chain.first()?),
            chain: chain.to_vec(),
            tls: Arc::clone(tls),
            proof: Mutex::new(Proof {
                by,
                at: Instant::now(),
            }),
            connection,
        })
    }

    /// The alternative names of the certificate: URIs first, then DNS names in lower case.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the certificate is still good. If it is not, the connection is about to be closed.
    pub(crate) fn is_good(&self) -> bool {
        let by = self.tls.get();
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&proof.by, &by) && proof.at.elapsed() < PROOF {
            return true;
        }
        let good = self.proven(&by);
        if good {
            *proof = Proof {
                by,
                at: Instant::now(),
            };
        } else {
            self.close();
        }
        good
    }

    fn proven(&self, by: &TlsMaterial) -> bool {
        let (Some(clients), Some((own, between))) = (&by.clients, self.chain.split_first()) else {
            return false;
        };
        let proven = clients.verify_client_cert(own, between, UnixTime::now());
        if let Err(error) = &proven {
            tracing::info!(%error, names = ?self.names, "a client's certificate is good no more");
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

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris = parsed.valid_uri_names().map(str::to_owned);
    let dns = parsed.valid_dns_names().map(str::to_ascii_lowercase);
    // What goes into logs and the audit log is plain text.
    uris.chain(dns)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
        .collect()
}
