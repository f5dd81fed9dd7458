//! Accepting connections without spinning, without exceeding a number, and with a way to cut
//! all of them off at the end of a drain.
//!
//! The number that a connection counts against may be another one later: see [`Connection::settle`].

use super::severable::Severable;
use futures::{Stream, stream};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Rest after an accept that failed for want of resources (EMFILE, ENOBUFS, ..): such a socket
/// stays readable, and a loop without a rest would take a whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A bound socket that yields connections.
pub(crate) trait Accept: Send + Sync + 'static {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;

    /// Waits for the next connection; dropping the future loses none.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Who is at the other end, where that can be told.
    fn remote(_io: &Self::Io) -> Option<SocketAddr> {
        None
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Small frames would wait for the peer's delayed acknowledgement.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn remote(stream: &TcpStream) -> Option<SocketAddr> {
        stream.peer_addr().ok()
    }
}

/// Connections for as long as it is polled. It never ends; each takes one of the `permits`, and
/// all of them break when `cut` is cancelled.
pub(crate) fn incoming<L: Accept>(
    listener: L,
    permits: Arc<Semaphore>,
    cut: CancellationToken,
) -> impl Stream<Item = Connection<L::Io>> {
    stream::unfold(
        (listener, permits, cut),
        async |(listener, permits, cut)| {
            let permit = permits.clone().acquire_owned().await.ok()?;
            let io = accept_one(&listener).await;
            let remote = L::remote(&io);
            let own = cut.child_token();
            let admission = Admission {
                remote,
                cut: own.clone(),
                _permit: permit,
            };
            let connection = Severable::new(io, &own, admission);
            Some((connection, (listener, permits, cut)))
        },
    )
}

async fn accept_one<L: Accept>(listener: &L) -> L::Io {
    loop {
        match listener.accept().await {
            Ok(io) => return io,
            Err(error) if concerns_one_connection(error.kind()) => {
                tracing::debug!(%error, "a connection was lost while it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, resting");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn concerns_one_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// A connection that counts against a limit while it is open and can be cut off.
pub(crate) type Connection<IO> = Severable<IO, Admission>;

/// What is known of a connection from its acceptance.
pub(crate) struct Admission {
    remote: Option<SocketAddr>,
    cut: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl<IO> Connection<IO> {
    /// Who is at the other end, where that can be told.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.held().remote
    }

    /// Breaks this connection when it is cancelled.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.held().cut.clone()
    }

    /// From now on it counts against another limit.
    pub(crate) fn settle(&mut self, permit: OwnedSemaphorePermit) {
        self.held_mut()._permit = permit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::Instant;

    /// Out of files for the first `failures` accepts.
    struct Exhausted {
        failures: usize,
        accepts: Arc<AtomicUsize>,
    }

    impl Accept for Exhausted {
        type Io = DuplexStream;

        async fn accept(&self) -> io::Result<DuplexStream> {
            if self.accepts.fetch_add(1, Ordering::SeqCst) < self.failures {
                return Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::MFILE.raw_os_error(),
                ));
            }
            Ok(duplex(1).0)
        }
    }

    fn exhausted(failures: usize) -> (Exhausted, Arc<AtomicUsize>) {
        let accepts = Arc::new(AtomicUsize::new(0));
        (
            Exhausted {
                failures,
                accepts: accepts.clone(),
            },
            accepts,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn want_of_files_delays_instead_of_spinning() {
        let (listener, accepts) = exhausted(4);
        let started = Instant::now();
        let mut incoming = Box::pin(incoming(
            listener,
            Arc::new(Semaphore::new(8)),
            CancellationToken::new(),
        ));
        assert!(incoming.next().await.is_some());
        assert_eq!(accepts.load(Ordering::SeqCst), 5);
        assert!(
            started.elapsed() >= 4 * ACCEPT_PAUSE,
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_than_permitted_are_open() {
        let (listener, accepts) = exhausted(0);
        let mut incoming = Box::pin(incoming(
            listener,
            Arc::new(Semaphore::new(2)),
            CancellationToken::new(),
        ));
        let first = incoming.next().await.unwrap();
        let _second = incoming.next().await.unwrap();
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, incoming.next()).await.is_err());
        assert_eq!(accepts.load(Ordering::SeqCst), 2);
        drop(first);
        assert!(tokio::time::timeout(wait, incoming.next()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_breaks_a_silent_connection() {
        let (near, _far) = duplex(1);
        let cut = CancellationToken::new();
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let admission = Admission {
            remote: None,
            cut: cut.clone(),
            _permit: permit,
        };
        let mut connection = Connection::new(near, &cut, admission);
        let read = tokio::spawn(async move { connection.read_u8().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!read.is_finished());
        cut.cancel();
        assert_eq!(
            read.await.unwrap().unwrap_err().kind(),
            ErrorKind::ConnectionAborted
        );
    }
}
