//! How the server is called: with TLS or without, and what it is shown.

use crate::args::AccessArgs;
use crate::connect::Server;
use crate::failure::{Exit, Failure};
use std::net::IpAddr;
use std::path::Path;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};

/// What the generated clients call through.
pub(crate) type Wire = InterceptedService<Channel, Bearer>;

/// Shows a token with each call, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// The wire to a server, connected by the first call.
///
/// # Errors
/// When a file cannot be used, or what is asked for would be less safe than it looks.
pub(crate) fn wire(
    endpoint: Endpoint,
    server: &Server,
    access: &AccessArgs,
) -> Result<Wire, Failure> {
    let uri = endpoint.uri().clone();
    check(&uri, server, access)?;
    let endpoint = match uri.scheme_str() {
        Some("https") => endpoint.tls_config(tls(&uri, access)?).map_err(|_| {
            usage("the files of --ca-file, --cert-file and --key-file do not go together")
        })?,
        _ => endpoint,
    };
    let bearer = access.token_file.as_deref().map(token).transpose()?;
    Ok(InterceptedService::new(
        endpoint.connect_lazy(),
        Bearer(bearer),
    ))
}

fn check(uri: &Uri, server: &Server, access: &AccessArgs) -> Result<(), Failure> {
    let unix = server.to_string().starts_with("unix:");
    let secure = uri.scheme_str() == Some("https");
    let with_tls = access.ca_file.is_some()
        || access.cert_file.is_some()
        || access.key_file.is_some()
        || access.server_name.is_some();
    if access.cert_file.is_some() != access.key_file.is_some() {
        return Err(usage("--cert-file and --key-file go together"));
    }
    if secure && access.ca_file.is_none() {
        return Err(usage("an https:// server needs --ca-file"));
    }
    if !secure && !unix && with_tls {
        return Err(usage("certificates are for an https:// server"));
    }
    if !secure && !unix && access.token_file.is_some() && !is_loopback(uri) {
        return Err(usage(
            "the token would be sent in plaintext: call the server by https://",
        ));
    }
    Ok(())
}

fn tls(uri: &Uri, access: &AccessArgs) -> Result<ClientTlsConfig, Failure> {
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &access.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    if let (Some(cert), Some(key)) = (&access.cert_file, &access.key_file) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    let name = access.server_name.as_deref().unwrap_or_else(|| host(uri));
    Ok(tls.domain_name(name))
}

fn token(path: &Path) -> Result<MetadataValue<Ascii>, Failure> {
    let refused = || {
        let path = path.display();
        usage(format!("{path} must hold one token and nothing else"))
    };
    let content = read(path)?;
    let token = content.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(refused());
    }
    let header = [b"Bearer ", token].concat();
    let mut value = MetadataValue::try_from(header).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_loopback(uri: &Uri) -> bool {
    let host = host(uri);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// The host of an address, without the brackets of IPv6.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())))
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(server: &str, access: &AccessArgs) -> Option<String> {
        let server: Server = server.parse().unwrap();
        let endpoint = Endpoint::from_shared(server.to_string()).unwrap();
        let checked = check(endpoint.uri(), &server, access);
        checked.err().map(|failure| failure.message().to_owned())
    }

    #[test]
    fn nothing_is_sent_less_safely_than_it_looks() {
        let file = || Some("/file".into());
        let with_ca = AccessArgs {
            ca_file: file(),
            ..AccessArgs::default()
        };
        let with_token = AccessArgs {
            token_file: file(),
            ..AccessArgs::default()
        };
        let half = AccessArgs {
            cert_file: file(),
            ..with_ca.clone()
        };
        for (server, none, ca, token) in [
            ("http://127.0.0.1:1", true, false, true),
            ("http://[::1]:1", true, false, true),
            ("http://192.0.2.1:1", true, false, false),
            ("https://192.0.2.1:1", false, true, false),
            ("unix:/run/a.sock", true, true, true),
        ] {
            assert_eq!(
                refused(server, &AccessArgs::default()).is_none(),
                none,
                "{server}"
            );
            assert_eq!(refused(server, &with_ca).is_none(), ca, "{server}");
            assert_eq!(refused(server, &with_token).is_none(), token, "{server}");
            assert!(refused(server, &half).is_some(), "{server}");
        }
    }

    #[tokio::test]
    async fn a_token_is_read_from_its_file_and_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hush-hush\n").unwrap();
        let value = token(&path).unwrap();
        assert_eq!(value.as_bytes(), b"Bearer hush-hush");
        assert!(!format!("{:?}", Bearer(Some(value))).contains("hush"));
        for bad in ["", "hush hush", "hush\nhush"] {
            std::fs::write(&path, bad).unwrap();
            let failure = token(&path).unwrap_err();
            assert!(!failure.to_string().contains("hush"), "{failure}");
        }
    }
}
