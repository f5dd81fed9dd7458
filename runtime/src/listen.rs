//! Where a server listens: a TCP address or a unix socket.
//!
//! Without TLS and callers that are known only loopback and unix sockets are admitted, unless the
//! operator says `--insecure`: a port that other machines reach is never opened by omission. The
//! health address may be anywhere, since there is nothing else to be had.

mod accept;
pub(crate) mod optional;
mod secured;
mod severable;
mod unix;

pub(crate) use accept::{Accept, Doors, incoming};
pub(crate) use secured::{Capacity, Protocols, Secured, secured};
pub(crate) use severable::Severable;
pub(crate) use unix::UnixSocketListener;

use crate::{ConfigError, Reach, ServeError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::net::TcpListener;

/// An address to listen on: `127.0.0.1:50051`, `[::1]:50051` or `unix:/run/livemerge/agent.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddress {
    /// IP address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// Absolute path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(ListenAddress::Unix(path.into())),
            Some(_) => Err(format!("`{text}` needs an absolute path after `unix:`")),
            None => text.parse().map(ListenAddress::Tcp).map_err(|_| {
                format!("`{text}` is neither an IP address with a port nor `unix:/path`")
            }),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The table `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Where to listen.
    pub address: ListenAddress,
    /// Where health is served beside, in plaintext and to everybody: for probes that can show no
    /// certificate.
    pub health_address: Option<SocketAddr>,
    /// Connections open at once; more wait in the system's backlog. Keep it below the limit of
    /// open files.
    pub max_connections: NonZeroU32,
}

impl Default for ListenConfig {
    fn default() -> Self {
        ListenConfig::loopback(0)
    }
}

impl ListenConfig {
    const DEFAULT_CONNECTIONS: NonZeroU32 = NonZeroU32::new(512).expect("512 is not zero");

    /// Listens on this port of 127.0.0.1.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        ListenConfig {
            address: ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into()),
            health_address: None,
            max_connections: Self::DEFAULT_CONNECTIONS,
        }
    }

    /// Whether the address may be listened on.
    ///
    /// # Errors
    /// [`ConfigError::Insecure`] for an address that is out of `reach`.
    pub fn admit(&self, reach: Reach) -> Result<(), ConfigError> {
        match self.address {
            ListenAddress::Tcp(address)
                if reach == Reach::Near && !address.ip().to_canonical().is_loopback() =>
            {
                Err(ConfigError::Insecure { address })
            }
            _ => Ok(()),
        }
    }

    /// Binds the addresses; clients may connect from now on, and wait until the server serves.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), and [`ServeError::Bind`].
    pub async fn bind(&self, reach: Reach) -> Result<Listener, ServeError> {
        self.admit(reach)?;
        let failed = |address: String| |source| ServeError::Bind { address, source };
        let socket = match &self.address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
            ListenAddress::Unix(path) => UnixSocketListener::bind(path).await.map(Socket::Unix),
        };
        let socket = socket.map_err(failed(self.address.to_string()))?;
        let health = match self.health_address {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(failed(address.to_string()))?)
            }
        };
        Ok(Listener {
            socket,
            health,
            max_connections: self.max_connections,
        })
    }
}

/// A bound address, to be handed to [`Server::serve`](crate::Server::serve).
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
    pub(crate) health: Option<TcpListener>,
    pub(crate) max_connections: NonZeroU32,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocketListener),
}

impl Listener {
    /// The health address in effect, if there is one.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref()?.local_addr().ok()
    }

    /// The address in effect, with the port the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<ListenAddress> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Socket::Unix(listener) => Ok(ListenAddress::Unix(listener.path().to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> ListenConfig {
        ListenConfig {
            address: address.parse().unwrap(),
            ..ListenConfig::default()
        }
    }

    #[test]
    fn addresses_are_read_and_printed_alike() {
        for text in [
            "127.0.0.1:50051",
            "[::1]:0",
            "unix:/run/livemerge/agent.sock",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "localhost:50051",
            "127.0.0.1",
            ":50051",
            "unix:agent.sock",
            "unix:",
            "",
        ] {
            let refused = text.parse::<ListenAddress>().unwrap_err();
            assert!(refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn only_loopback_and_unix_are_admitted_nearby() {
        let near = [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "unix:/x",
        ];
        let far = ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"];
        for text in near {
            assert!(at(text).admit(Reach::Near).is_ok(), "{text}");
        }
        for text in far {
            let refused = at(text).admit(Reach::Near).unwrap_err();
            assert!(
                matches!(refused, ConfigError::Insecure { .. }),
                "{text}: {refused}"
            );
            assert!(at(text).admit(Reach::Far).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_refused_address_is_not_bound() {
        let refused = at("0.0.0.0:0").bind(Reach::Near).await.unwrap_err();
        assert!(
            matches!(refused, ServeError::Config(ConfigError::Insecure { .. })),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = at("127.0.0.1:0").bind(Reach::Near).await.unwrap();
        let taken = first.address().unwrap().to_string();
        let refused = at(&taken).bind(Reach::Near).await.unwrap_err();
        assert!(matches!(refused, ServeError::Bind { .. }), "{refused}");
    }
}
