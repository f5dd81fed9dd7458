//! The table `[web]`: gRPC-Web for browsers, on an address of its own. Off by default.
//!
//! ```text
//!   browser ─▶ TLS ─▶ origin ─▶ CORS ─┬─ application/grpc-web ─▶ the layers of every call ─▶ service
//!                       │             └─ anything else: 404
//!                       └─ foreign: 403
//! ```
//!
//! What is served, and to whom, is the same as on the address of `[listen]`: the same services
//! behind the same gate. A request of a page from elsewhere is refused before it is looked at, so
//! that no page can make a browser send what a user has not asked for.

mod browser;
mod origin;

pub use origin::Origin;

use crate::layers::GrpcService;
use crate::listen::{self, Listener, Socket};
use crate::security::TlsFiles;
use crate::{ConfigError, ListenAddress, ListenConfig, Reach, ServeError};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::transport;

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
        let Some(address) = self.listen else {
            return Ok(());
        };
        let admitted = Self::at(address, &ListenConfig::default()).admit(reach);
        admitted.map_err(|_| ConfigError::InsecureWeb { address })
    }

    fn at(address: SocketAddr, like: &ListenConfig) -> ListenConfig {
        ListenConfig {
            address: ListenAddress::Tcp(address),
            health_address: None,
            max_connections: like.max_connections,
        }
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
        let listener = Self::at(address, like).bind(reach).await?;
        let origins = self.allowed_origins.clone();
        Ok(Some(Web { listener, origins }))
    }
}

/// An address for browsers that was bound, to be handed to [`Server::web`](crate::Server::web).
#[derive(Debug)]
pub struct Web {
    listener: Listener,
    origins: Vec<Origin>,
}

impl Web {
    /// The address in effect, with the port the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<ListenAddress> {
        self.listener.address()
    }

    /// Serves until `stop`; all connections break when `cut` is cancelled.
    pub(crate) async fn serve(
        self,
        transport: transport::Server,
        service: impl GrpcService + Clone + Send + 'static,
        tls: Option<Arc<TlsFiles>>,
        [stop, cut]: [CancellationToken; 2],
    ) -> Result<(), transport::Error> {
        let Socket::Tcp(socket) = self.listener.socket else {
            return Ok(());
        };
        let max = self.listener.max_connections;
        let incoming = listen::secured(socket, tls, listen::Protocols::Web, max, cut);
        let service = browser::service(service, &self.origins);
        let transport = transport.accept_http1(true);
        transport
            .serve_with_incoming_shutdown(service, incoming, stop.cancelled_owned())
            .await
    }
}
