//! The table `[client]`: how a server calls the other one.
//!
//! `https://` is called with TLS, `http://` and `unix:` without. A connection ends soon after a file
//! that it was made by has changed: the next one shows the new certificate, and believes no
//! authority that was taken out.

use super::address::{self, CallAddress};
use super::bound::{NamesOfHost, Proven};
use super::files::{LOOK, OfFiles, SecurityFileError};
use super::line::{BearerFile, Line};
use super::pem;
use super::tls::HTTP_2;
use crate::ConfigError;
use crate::listen::Severable;
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

/// The table `[client]`. All files are PEM but that of the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// The authorities whose server certificates are believed. With it nothing is called in
    /// plaintext but a unix socket.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show, followed by those between it and its authority's.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, if not the one in the address.
    pub server_name: Option<String>,
    /// A file that holds a bearer token and nothing else.
    pub token_file: Option<PathBuf>,
}

impl ClientConfig {
    /// Whether the keys fit together. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refused = if self.cert_file.is_some() && self.key_file.is_none() {
            ("client.cert_file", "needs client.key_file")
        } else if self.key_file.is_some() && self.cert_file.is_none() {
            ("client.key_file", "needs client.cert_file")
        } else if self.cert_file.is_some() && self.ca_file.is_none() {
            ("client.cert_file", "needs client.ca_file")
        } else if self.server_name.is_some() && self.ca_file.is_none() {
            ("client.server_name", "needs client.ca_file")
        } else if self.name().is_some_and(|name| name.is_err()) {
            (
                "client.server_name",
                "is neither a DNS name nor an IP address",
            )
        } else {
            return Ok(());
        };
        Err(ConfigError::conflict(refused.0, refused.1))
    }

    /// Whether that address may be called: neither in plaintext where TLS is configured, or across
    /// a network unless `insecure`, nor with a token that others could read.
    ///
    /// # Errors
    /// Says why not.
    pub fn admit(&self, address: &str, insecure: bool) -> Result<(), String> {
        self.admitted(address, insecure).map(drop)
    }

    fn admitted(&self, address: &str, insecure: bool) -> Result<CallAddress, String> {
        let parsed: CallAddress = address.parse()?;
        let refused = match &parsed {
            CallAddress::Unix(_) => None,
            CallAddress::Tls(_) if self.ca_file.is_none() => Some("needs client.ca_file"),
            CallAddress::Tls(_) => None,
            CallAddress::Plain(_) if self.ca_file.is_some() => {
                Some("is not https, and client.ca_file is set")
            }
            CallAddress::Plain(_) if parsed.is_near() => None,
            CallAddress::Plain(_) if self.token_file.is_some() => {
                Some("would be sent the token of client.token_file in plaintext")
            }
            CallAddress::Plain(_) if insecure => None,
            CallAddress::Plain(_) => {
                Some("is another machine's and not https; set client.ca_file, or pass --insecure")
            }
        };
        match refused {
            Some(why) => Err(format!("{address} {why}")),
            None => Ok(parsed),
        }
    }

    /// Loads the files. `insecure` as in [`admit`](Self::admit).
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`ConfigError::SecurityFile`].
    pub fn open(&self, insecure: bool) -> Result<Client, ConfigError> {
        self.check()?;
        Ok(Client {
            config: self.clone(),
            insecure,
            tls: self.tls()?.map(Arc::new),
            bearer: self
                .token_file
                .clone()
                .map(BearerFile::open)
                .transpose()?
                .map(Arc::new),
        })
    }

    fn name(&self) -> Option<Result<ServerName<'static>, ()>> {
        let name = self.server_name.clone()?;
        Some(ServerName::try_from(name).map_err(drop))
    }

    fn tls(&self) -> Result<Option<OfFiles<rustls::ClientConfig>>, SecurityFileError> {
        let Some(ca) = self.ca_file.clone() else {
            return Ok(None);
        };
        let own = self.cert_file.clone().zip(self.key_file.clone());
        let own = own.map(|(cert, key)| [cert, key]).into_iter().flatten();
        let paths: Vec<PathBuf> = std::iter::once(ca).chain(own).collect();
        let named = paths.clone();
        OfFiles::open(paths, move |contents| parse(&named, contents)).map(Some)
    }
}

/// Authorities, then perhaps certificate and key.
fn parse(
    paths: &[PathBuf],
    contents: &[Vec<u8>],
) -> Result<rustls::ClientConfig, SecurityFileError> {
    let roots = pem::roots(&paths[0], &contents[0])?;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match (&paths[1..], &contents[1..]) {
        ([cert_path, key_path], [cert, key]) => builder
            .with_client_auth_cert(
                pem::certificates(cert_path, cert)?,
                pem::key(key_path, key)?,
            )
            .map_err(|error| {
                let place = cert_path.display();
                let problem = format!("is no key for the certificate in {place}: {error}");
                SecurityFileError::content(key_path, problem)
            })?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

/// Calls others as a `[client]` table says. Clones share what they have loaded.
#[derive(Clone, Debug, Default)]
pub struct Client {
    config: ClientConfig,
    insecure: bool,
    tls: Option<Arc<OfFiles<rustls::ClientConfig>>>,
    bearer: Option<Arc<BearerFile>>,
}

impl Client {
    /// A line to an address (`http://…`, `https://…` or `unix:/…`), connected when it is first
    /// needed. `bounds` sets time-outs and the like.
    ///
    /// # Errors
    /// As [`ClientConfig::admit`], or the address is none.
    pub fn line(
        &self,
        address: &str,
        bounds: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Line, String> {
        self.line_to(address, None, bounds)
    }

    /// The same, to a server whose certificate has to have one of these names, too. A unix socket has none:
    /// whoever listens there is of this machine.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn line_to(
        &self,
        address: &str,
        names: Option<NamesOfHost>,
        bounds: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Line, String> {
        let endpoint = |address: String| {
            Endpoint::from_shared(address)
                .map(bounds)
                .map_err(|error| error.to_string())
        };
        let channel = match self.config.admitted(address, self.insecure)? {
            CallAddress::Unix(path) => endpoint(format!("unix:{path}"))?.connect_lazy(),
            CallAddress::Plain(_) if names.is_some() => {
                return Err(format!("{address} is not https, and shows no certificate"));
            }
            CallAddress::Plain(authority) => {
                endpoint(format!("http://{authority}"))?.connect_lazy()
            }
            CallAddress::Tls(authority) => {
                // tonic does TLS of its own for `https`, with files that it reads once: to it, the
                // connection is plain, and only what requests call themselves is `https`.
                let origin: Uri = format!("https://{authority}")
                    .parse()
                    .map_err(|_| format!("{address:?} is no address"))?;
                let reached = self.secure(&authority, names)?;
                endpoint(format!("http://{authority}"))?
                    .origin(origin)
                    .connect_with_connector_lazy(service_fn(move |_: Uri| {
                        let reached = reached.clone();
                        async move { reached.connect().await.map(TokioIo::new) }
                    }))
            }
        };
        Ok(Line::new(channel, self.bearer.clone()))
    }

    fn secure(&self, authority: &Authority, names: Option<NamesOfHost>) -> Result<Secure, String> {
        let host = address::host(authority).to_owned();
        let name = self
            .config
            .name()
            .unwrap_or_else(|| ServerName::try_from(host.clone()).map_err(drop));
        Ok(Secure {
            port: authority.port_u16().unwrap_or(443),
            name: name.map_err(|()| format!("{host:?} is no name of a server"))?,
            tls: self
                .tls
                .clone()
                .ok_or_else(|| format!("{host} needs client.ca_file"))?,
            host,
            names,
        })
    }
}

/// An address that is called with TLS.
#[derive(Clone)]
struct Secure {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<OfFiles<rustls::ClientConfig>>,
    names: Option<NamesOfHost>,
}

/// A connection, and the watch over the files that it was made by.
type Watched = Severable<TlsStream<TcpStream>, AbortOnDropHandle<()>>;

impl Secure {
    async fn connect(self) -> io::Result<Watched> {
        let tls = Arc::clone(&self.tls);
        let fresh = tokio::task::spawn_blocking(move || tls.fresh());
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let config = fresh.await.map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(self.name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let proven = self.names.map(|names| names.prove(shown)).transpose()?;
        let cut = CancellationToken::new();
        let watch = outdated(self.tls, config, proven, cut.clone());
        let watch = AbortOnDropHandle::new(tokio::spawn(watch));
        Ok(Severable::new(stream, &cut, watch))
    }
}

/// Cuts a connection once files have changed that it was made by, or the server's names are bound to its
/// host no more.
async fn outdated(
    tls: Arc<OfFiles<rustls::ClientConfig>>,
    made_by: Arc<rustls::ClientConfig>,
    proven: Option<Proven>,
    cut: CancellationToken,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        let tls = Arc::clone(&tls);
        match tokio::task::spawn_blocking(move || tls.fresh()).await {
            Ok(fresh)
                if Arc::ptr_eq(&fresh, &made_by) && proven.as_ref().is_none_or(Proven::holds) => {}
            _ => return cut.cancel(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> ClientConfig {
        toml::from_str(keys).unwrap()
    }

    #[test]
    fn no_address_is_called_with_less_than_is_configured() {
        let plain = config("");
        let tls = config("ca_file = '/ca'");
        let token = config("token_file = '/token'");
        let both = config("ca_file = '/ca'\ntoken_file = '/token'");
        for (address, with_plain, with_tls, with_token) in [
            ("unix:/run/a.sock", true, true, true),
            ("http://127.0.0.1:1", true, false, true),
            ("http://[::1]:1", true, false, true),
            ("http://localhost:1", true, false, true),
            ("http://192.0.2.1:1", false, false, false),
            ("http://127.0.0.1.example.org:1", false, false, false),
            ("https://192.0.2.1:1", false, true, false),
            ("HTTPS://192.0.2.1:1", false, true, false),
            ("hTTpS://a.example.org", false, true, false),
            ("HTTP://127.0.0.1:1", true, false, true),
            ("ftp://127.0.0.1:1", false, false, false),
            ("127.0.0.1:1", false, false, false),
            ("UNIX:/run/a.sock", false, false, false),
        ] {
            let admitted = |client: &ClientConfig| client.admit(address, false).is_ok();
            assert_eq!(admitted(&plain), with_plain, "{address}");
            assert_eq!(admitted(&tls), with_tls, "{address}");
            assert_eq!(admitted(&token), with_token, "{address}");
            assert_eq!(admitted(&both), with_tls, "{address}");
        }
        let far = "http://192.0.2.1:1";
        assert!(plain.admit(far, true).is_ok());
        assert!(token.admit(far, true).is_err(), "not even then");
        assert!(tls.admit(far, true).is_err(), "not even then");
    }

    #[test]
    fn keys_that_need_others_are_refused_without_them() {
        for (keys, named) in [
            ("cert_file = '/c'\nca_file = '/a'", "client.cert_file"),
            ("key_file = '/k'\nca_file = '/a'", "client.key_file"),
            ("cert_file = '/c'\nkey_file = '/k'", "client.cert_file"),
            ("server_name = 'a'", "client.server_name"),
            ("ca_file = '/a'\nserver_name = 'a b'", "client.server_name"),
        ] {
            let refused = config(keys).check().unwrap_err().to_string();
            assert!(refused.starts_with(named), "{refused}");
        }
        assert!(
            config("ca_file = '/a'\ncert_file = '/c'\nkey_file = '/k'")
                .check()
                .is_ok()
        );
    }
}
