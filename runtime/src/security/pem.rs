//! Certificates and keys from PEM. What is wrong with a file is told without any of its text.

use super::files::SecurityFileError;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use tokio_rustls::rustls;

/// All certificates of a file; at least one.
pub(super) fn certificates(
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SecurityFileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| SecurityFileError::content(path, "holds no certificate in PEM"))
}

/// The first private key of a file.
pub(super) fn key(
    path: &Path,
    content: &[u8],
) -> Result<PrivateKeyDer<'static>, SecurityFileError> {
    PrivateKeyDer::from_pem_slice(content)
        .map_err(|_| SecurityFileError::content(path, "holds no private key in PEM"))
}

/// The authorities in a file.
pub(super) fn roots(path: &Path, content: &[u8]) -> Result<RootCertStore, SecurityFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, content)? {
        roots.add(certificate).map_err(|_| {
            SecurityFileError::content(path, "holds a certificate that is no authority's")
        })?;
    }
    Ok(roots)
}
