//! The binary against a server with TLS and roles: by certificate, by token, and without.

use crate::data::site;
use crate::program::{Ran, client, run};
use crate::server::Server;
use livemerge_runtime::{AuthConfig, ClientCertificate, Role, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const OPERATOR: &str = "spiffe://example.org/operator";
/// The SHA-256 of `hush-hush`.
const DIGEST: &str = "fbdc077454d782ba39d400e06e741b56c14b0a8cf122348c98fe1e91634c5a81";

/// A directory with an authority's certificates.
struct Files {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let files = Files {
            dir: tempfile::tempdir().unwrap(),
            authority: CertifiedIssuer::self_signed(params, key).unwrap(),
        };
        files.put("ca.pem", &files.authority.pem());
        files
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, alternative: SanType) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![alternative];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        self.put(&format!("{name}.pem"), &cert.pem());
        self.put(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Lists the hosts, with these flags that name files.
    fn list(&self, server: &Server, flags: &[(&str, &str)]) -> Ran {
        let mut command = client(server);
        command.args(["host", "list"]);
        for (flag, file) in flags {
            command.arg(flag).arg(self.path(file));
        }
        run(&mut command)
    }
}

fn serve(files: &Files) -> Server {
    files.issue("server", SanType::IpAddress([127, 0, 0, 1].into()));
    files.issue("operator", SanType::URI(OPERATOR.try_into().unwrap()));
    files.issue(
        "nobody",
        SanType::URI("spiffe://example.org/nobody".try_into().unwrap()),
    );
    let tls = TlsConfig {
        cert_file: Some(files.path("server.pem")),
        key_file: Some(files.path("server.key")),
        client_ca_file: Some(files.path("ca.pem")),
        client_certificate: ClientCertificate::Optional,
        ..TlsConfig::default()
    };
    let tokens = format!("[tokens.console]\nsha256 = '{DIGEST}'\nrole = 'viewer'\n");
    files.put("token", "hush-hush\n");
    files.put("wrong", "hush\n");
    let auth = AuthConfig {
        tokens_file: Some(files.put("tokens.toml", &tokens)),
        subjects: [(OPERATOR.to_owned(), Role::Operator.into())].into(),
        ..AuthConfig::default()
    };
    Server::secured(site(), &tls, &auth)
}

#[test]
fn hosts_are_listed_by_https_with_a_certificate_or_a_token() {
    let files = Files::new();
    let server = serve(&files);
    let ca = ("--ca-file", "ca.pem");
    let own = [
        ca,
        ("--cert-file", "operator.pem"),
        ("--key-file", "operator.key"),
    ];
    let by_certificate = files.list(&server, &own).shown();
    let by_token = files
        .list(&server, &[ca, ("--token-file", "token")])
        .shown();
    assert_eq!(by_certificate, by_token);
    assert!(by_token.contains("host"), "{by_token}");
    for (flags, text) in [
        (&[ca][..], "CREDENTIALS_MISSING"),
        (&[ca, ("--token-file", "wrong")], "CREDENTIALS_INVALID"),
        (
            &[
                ca,
                ("--cert-file", "nobody.pem"),
                ("--key-file", "nobody.key"),
            ],
            "METHOD_NOT_PERMITTED",
        ),
    ] {
        let ran = files.list(&server, flags);
        assert_eq!(
            (ran.exit, ran.stdout.as_str()),
            (4, ""),
            "{flags:?} {ran:?}"
        );
        assert!(
            ran.stderr.contains(text) && !ran.stderr.contains("hush"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_server_of_another_authority_is_shown_nothing() {
    let files = Files::new();
    let server = serve(&files);
    let other = Files::new();
    files.put("other.pem", &other.authority.pem());
    let flags = [("--ca-file", "other.pem"), ("--token-file", "token")];
    let ran = files.list(&server, &flags);
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert!(server.seen().is_empty());
    let ran = files.list(&server, &[]);
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(ran.stderr.contains("needs --ca-file"), "{ran:?}");
}
