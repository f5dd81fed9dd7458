//! Connections with their TLS handshake done, or without TLS where there is none.
//!
//! Handshakes go on beside each other and beside the accepting: one that hangs delays nobody, and
//! is given up. They count by themselves, so that whoever says nothing takes no place of a
//! connection, and there are fewer of them. Each takes the certificate that is in use at its begin;
//! the connections before keep theirs.

use super::accept::{Accept, Connection, Doors, incoming};
use crate::limits::{Limit, Shares, Shed};
use crate::security::{ConnectionInfo, Peer, TlsFiles};
use futures::{Stream, StreamExt as _, future};
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

/// Handshakes at once.
const HANDSHAKES: u32 = 64;

/// What may be spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// gRPC, which is HTTP/2.
    Grpc,
    /// Also HTTP/1.1, as some browsers and proxies do.
    Web,
}

impl Protocols {
    fn names(self) -> &'static [&'static [u8]] {
        match self {
            Protocols::Grpc => &[b"h2"],
            Protocols::Web => &[b"h2", b"http/1.1"],
        }
    }
}

/// How many connections there may be, and how long one may take to be made.
pub(crate) struct Capacity {
    pub(crate) connections: NonZeroU32,
    pub(crate) handshake: Duration,
    pub(crate) shed: Shed,
}

/// The connections to a socket, once they can be used, at most so many at once; those whose
/// handshake fails are left out. All of them break when `cut` is cancelled.
pub(crate) fn secured<L: Accept>(
    socket: L,
    tls: Option<Arc<TlsFiles>>,
    protocols: Protocols,
    capacity: &Capacity,
    cut: CancellationToken,
) -> impl Stream<Item = Secured<L::Io>> + use<L> {
    let most = capacity.connections;
    let connections = Arc::new(Semaphore::new(most.get() as usize));
    let (permits, handshakes) = match &tls {
        None => (Arc::clone(&connections), 0),
        Some(_) => (Arc::new(Semaphore::new(HANDSHAKES as usize)), HANDSHAKES),
    };
    let places = most.saturating_add(handshakes);
    let doors = Doors {
        permits,
        shares: Shares::new(places, Limit::Connections, &capacity.shed),
        opening: capacity.handshake,
        cut,
    };
    let time = capacity.handshake;
    let ready = move |connection: Connection<L::Io>| {
        let (tls, connections) = (tls.clone(), Arc::clone(&connections));
        async move {
            match tls {
                None => Some(Secured::Plain(connection)),
                // A task, because a handshake costs time that the others need not wait for.
                Some(tls) => {
                    let made = handshake(connection, tls, protocols, time, connections);
                    let made = tokio::spawn(made);
                    AbortOnDropHandle::new(made).await.ok()?
                }
            }
        }
    };
    incoming(socket, doors)
        .map(ready)
        .buffer_unordered(handshakes.max(1) as usize)
        .filter_map(future::ready)
}

async fn handshake<IO>(
    connection: Connection<IO>,
    tls: Arc<TlsFiles>,
    protocols: Protocols,
    time: Duration,
    connections: Arc<Semaphore>,
) -> Option<Secured<IO>>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (remote, cut) = (connection.remote(), connection.cut());
    let (server, trust) = tls.handshake(protocols.names());
    let accept = TlsAcceptor::from(server).accept(connection);
    let mut stream = match tokio::time::timeout(time, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%error, ?remote, "a TLS handshake failed");
            return None;
        }
        Err(_elapsed) => {
            tracing::info!(?remote, "a TLS handshake was not done in time");
            return None;
        }
    };
    let permit = connections.acquire_owned().await.ok()?;
    stream.get_mut().0.settle(permit);
    let peer = Peer::new(stream.get_ref().1.peer_certificates(), &tls, trust, cut);
    Some(Secured::Tls(Box::new(stream), peer))
}

/// A connection that can be used.
pub(crate) enum Secured<IO> {
    Plain(Connection<IO>),
    Tls(Box<TlsStream<Connection<IO>>>, Option<Arc<Peer>>),
}

impl<IO: Connected> Connected for Secured<IO> {
    type ConnectInfo = ConnectionInfo<IO::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        match self {
            Secured::Plain(connection) => ConnectionInfo {
                transport: connection.connect_info(),
                peer: None,
            },
            Secured::Tls(stream, peer) => ConnectionInfo {
                transport: stream.get_ref().0.connect_info(),
                peer: peer.clone(),
            },
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Secured::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Secured::Tls(io, _) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Secured::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Secured::Tls(io, _) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Secured::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Secured::Tls(io, _) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Secured::Plain(io) => io.is_write_vectored(),
            Secured::Tls(io, _) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Secured::Plain(io) => Pin::new(io).poll_flush(cx),
            Secured::Tls(io, _) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Secured::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Secured::Tls(io, _) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
