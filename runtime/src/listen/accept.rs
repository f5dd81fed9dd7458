//! Accepting connections without spinning, without exceeding a number, and with a way to cut
//! all of them off at the end of a drain.

use futures::{Stream, stream};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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

/// Connections for as long as it is polled. It never ends; at most
/// `max_connections` are open at once, and all of them break when `cut` is cancelled.
pub(crate) fn incoming<L: Accept>(
    listener: L,
    max_connections: usize,
    cut: CancellationToken,
) -> impl Stream<Item = Connection<L::Io>> {
    let permits = Arc::new(Semaphore::new(max_connections));
    stream::unfold(
        (listener, permits, cut),
        async |(listener, permits, cut)| {
            let permit = permits.clone().acquire_owned().await.ok()?;
            let io = accept_one(&listener).await;
            let remote = L::remote(&io);
            let connection = Connection::new(io, remote, cut.child_token(), permit);
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

/// A connection that counts against the limit while it is open and can be cut off.
pub(crate) struct Connection<IO> {
    io: IO,
    remote: Option<SocketAddr>,
    cut: CancellationToken,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl<IO> Connection<IO> {
    fn new(
        io: IO,
        remote: Option<SocketAddr>,
        cut: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Connection {
            io,
            remote,
            severed: Box::pin(cut.clone().cancelled_owned()),
            cut,
            _permit: permit,
        }
    }

    /// Who is at the other end, where that can be told.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Breaks this connection when it is cancelled.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl<IO: Connected> Connected for Connection<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    // HTTP/2 always has a read pending, so the cut wakes every connection here.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.severed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
        let mut incoming = Box::pin(incoming(listener, 8, CancellationToken::new()));
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
        let mut incoming = Box::pin(incoming(listener, 2, CancellationToken::new()));
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
        let mut connection = Connection::new(near, None, cut.child_token(), permit);
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
