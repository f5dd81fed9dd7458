//! The tables `[web]` and `[console]`: gRPC-Web for browsers, on addresses of its own. The first is for pages
//! from elsewhere and off by default; the second has pages of its own.
//!
//! ```text
//!   browser ─▶ TLS ─▶ origin ─▶ CORS ─┬─ application/grpc-web ─▶ the layers of every call ─▶ service
//!                       │             └─ anything else ─▶ a file of the console, or 404
//!                       └─ foreign: 403
//! ```
//!
//! What is served, and to whom, is the same as on the address of `[listen]`: the same services
//! behind the same gate. A request of a page from elsewhere is refused before it is looked at, so
//! that no page can make a browser send what a user has not asked for. The console's own pages are those
//! whose origin is the address itself: a name that somebody else has pointed there is not.

mod address;
mod browser;
mod origin;
mod pages;

pub use address::ConsoleAddress;
pub use origin::Origin;
pub use pages::{Page, Pages};

use crate::connections::{self, ConnectionBounds};
use crate::layers::GrpcService;
use crate::listen::{self, Capacity, Listener, Protocols, Socket};
use crate::security::TlsFiles;
use crate::{ConfigError, ListenAddress, ListenConfig, Reach, ServeError};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The table `[web]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Where browsers are served; `None`, in a file the empty text: nowhere.
    #[serde(with = "listen::optional")]
    pub listen: Option<SocketAddr>,
    /// The pages that may call, by their exact origin. A request without an origin is no page's.
    pub allowed_origins: Vec<Origin>,
}

impl WebConfig {
    /// Whether the address may be listened on.
    ///
    /// # Errors
    /// Names `web.listen` for one that is out of `reach`.
    pub fn admit(&self, reach: Reach) -> Result<(), ConfigError> {
        admit("web", self.listen, reach)
    }

    /// Binds the address, if there is one. So many connections as `like` has are open at once.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), and [`ServeError::Bind`].
    pub async fn bind(&self, like: &ListenConfig, reach: Reach) -> Result<Option<Web>, ServeError> {
        self.admit(reach)?;
        let Some(address) = self.listen else {
            return Ok(None);
        };
        Ok(Some(Web {
            listener: at(address, like).bind(reach).await?,
            origins: self.allowed_origins.clone(),
            pages: None,
        }))
    }
}

/// The table `[console]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Where the console is served.
    pub listen: ConsoleAddress,
    /// What its pages may also be called, as behind a proxy, by their exact origin. The address itself, and
    /// `localhost` for one on loopback, need not be named.
    pub allowed_origins: Vec<Origin>,
}

impl ConsoleConfig {
    /// Whether the address may be listened on.
    ///
    /// # Errors
    /// Names `console.listen` for one that is out of `reach`.
    pub fn admit(&self, reach: Reach) -> Result<(), ConfigError> {
        match self.listen {
            ConsoleAddress::At(address) => admit("console", Some(address), reach),
            ConsoleAddress::Loopback | ConsoleAddress::Nowhere => Ok(()),
        }
    }

    /// Binds the address, if there is one, for these pages, beside the address of gRPC. So many connections
    /// as that has are open at once.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), and [`ServeError::Bind`] for an address that was named.
    pub async fn bind(
        &self,
        pages: Pages,
        beside: &ListenConfig,
        reach: Reach,
    ) -> Result<Option<Web>, ServeError> {
        self.admit(reach)?;
        let Some(address) = self.listen.beside(&beside.address) else {
            return Ok(None);
        };
        let listener = match at(address, beside).bind(reach).await {
            Ok(listener) => listener,
            Err(error) if self.listen == ConsoleAddress::Loopback => {
                // Nobody has asked for it, and another server on this host may have it.
                tracing::warn!(%error, "the console is not served");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut origins = self.allowed_origins.clone();
        if let Ok(ListenAddress::Tcp(bound)) = listener.address() {
            origins.extend(Origin::of(bound));
        }
        Ok(Some(Web {
            listener,
            origins,
            pages: Some(pages),
        }))
    }
}

fn admit(table: &'static str, listen: Option<SocketAddr>, reach: Reach) -> Result<(), ConfigError> {
    let Some(address) = listen else {
        return Ok(());
    };
    let admitted = at(address, &ListenConfig::default()).admit(reach);
    admitted.map_err(|_| ConfigError::InsecureWeb { table, address })
}

fn at(address: SocketAddr, like: &ListenConfig) -> ListenConfig {
    ListenConfig {
        address: ListenAddress::Tcp(address),
        health_address: None,
        max_connections: like.max_connections,
    }
}

/// An address for browsers that was bound, to be handed to [`Server::web`](crate::Server::web).
#[derive(Debug)]
pub struct Web {
    listener: Listener,
    origins: Vec<Origin>,
    pages: Option<Pages>,
}

impl Web {
    /// The address in effect, with the port the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<ListenAddress> {
        self.listener.address()
    }

    pub(crate) fn max_connections(&self) -> NonZeroU32 {
        self.listener.max_connections
    }

    /// Serves until `stop`; all connections break when `cut` is cancelled.
    pub(crate) async fn serve(
        self,
        service: impl GrpcService + Clone + Send + 'static,
        bounds: ConnectionBounds,
        tls: Option<Arc<TlsFiles>>,
        capacity: Capacity,
        [stop, cut]: [CancellationToken; 2],
    ) {
        // No configuration has another one.
        let Socket::Tcp(socket) = self.listener.socket else {
            return;
        };
        let incoming = listen::secured(socket, tls, Protocols::Web, &capacity, cut);
        let service = browser::service(service, &self.origins, self.pages);
        connections::serve(incoming, service, bounds, stop).await;
    }
}
