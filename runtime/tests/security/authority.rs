//! An authority of the test's own, and the files of its certificates.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use std::path::{Path, PathBuf};

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) serial: u64,
}

/// When a certificate is good.
#[derive(Clone, Copy)]
pub(crate) enum When {
    Now,
    Expired,
    NotYet,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these alternative names: IP addresses, URIs and DNS names.
    pub(crate) fn issue(&self, names: &[&str], when: When) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        let (from, to) = match when {
            When::Now => (2020, 4000),
            When::Expired => (2020, 2021),
            When::NotYet => (3999, 4000),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let serial = u64::from_be_bytes(key.public_key_raw()[8..16].try_into().unwrap()) >> 1;
        params.serial_number = Some(SerialNumber::from(serial));
        Issued {
            cert: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// The list of what it has revoked.
    pub(crate) fn revoked(&self, issued: &[&Issued]) -> String {
        let revoked = issued.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn alternative(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if name.contains(':') => SanType::URI(name.try_into().unwrap()),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    }
}

/// A directory of PEM files.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file anew and gives its path.
    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        let fresh = self.path(&format!("{name}.fresh"));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// Certificate and key as `NAME.pem` and `NAME.key`.
    pub(crate) fn put_issued(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        let cert = self.put(&format!("{name}.pem"), &issued.cert);
        (cert, self.put(&format!("{name}.key"), &issued.key))
    }
}

impl AsRef<Path> for Files {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}
