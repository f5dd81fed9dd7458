//! An authority of the test's own, and the files of its certificates.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// For so long from now on.
    For(Duration),
    Expired,
    NotYet,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(authority(name), key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these alternative names: IP addresses, URIs and DNS names.
    pub(crate) fn issue(&self, names: &[&str], when: When) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        let (from, to) = match when {
            When::Now | When::For(_) => (2020, 4000),
            When::Expired => (2020, 2021),
            When::NotYet => (3999, 4000),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        if let When::For(time) = when {
            params.not_after = date_time_ymd(1970, 1, 1) + since_1970() + time;
        }
        let key = KeyPair::generate().unwrap();
        let serial = u64::from_be_bytes(key.public_key_raw()[8..16].try_into().unwrap()) >> 1;
        params.serial_number = Some(SerialNumber::from(serial));
        Issued {
            cert: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Another one that signs for it, and what both give to show.
    pub(crate) fn below(&self, name: &str) -> (Authority, u64) {
        let mut params = authority(name);
        let key = KeyPair::generate().unwrap();
        let serial = 7_u64;
        params.serial_number = Some(SerialNumber::from(serial));
        (
            Authority(CertifiedIssuer::signed_by(params, key, &self.0).unwrap()),
            serial,
        )
    }

    /// The list of what it has revoked.
    pub(crate) fn revoked(&self, issued: &[&Issued]) -> String {
        let serials: Vec<u64> = issued.iter().map(|issued| issued.serial).collect();
        self.revoked_until(&serials, 4000)
    }

    /// The same, which is good until the year `until`.
    pub(crate) fn revoked_until(&self, serials: &[u64], until: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[allow(
    clippy::disallowed_methods,
    reason = "certificates are compared with the machine's clock"
)]
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
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
