//! Accepting connections without spinning, without exceeding a number, and with a way to cut
//! all of them off at the end of a drain.
//!
//! The number that a connection counts against may be another one later: see [`Connection::settle`].
//! Of all of them no address of another machine has more than it leaves free; what comes over
//! loopback speaks for everybody, as a sidecar does, and whoever is refused is closed at once. A
//! connection that says nothing is given up.

use super::severable::Severable;
use crate::limits::{Holder, Place, Shares};
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

/// What a connection needs to come in.
pub(crate) struct Doors {
    /// Each takes one; without one it is not accepted yet.
    pub(crate) permits: Arc<Semaphore>,
    /// How many of them come from one address.
    pub(crate) shares: Shares,
    /// How long a connection may take to say something.
    pub(crate) opening: Duration,
    /// Breaks all of them.
    pub(crate) cut: CancellationToken,
}

/// Connections for as long as it is polled. It never ends.
pub(crate) fn incoming<L: Accept>(
    listener: L,
    doors: Doors,
) -> impl Stream<Item = Connection<L::Io>> {
    stream::unfold((listener, doors), async |(listener, doors)| {
        let permit = doors.permits.clone().acquire_owned().await.ok()?;
        let (io, remote, share) = loop {
            let io = accept_one(&listener).await;
            let remote = L::remote(&io);
            match share(&doors.shares, remote) {
                Ok(share) => break (io, remote, share),
                Err(Refused) => tracing::debug!(?remote, "too many connections of one address"),
            }
        };
        let own = doors.cut.child_token();
        let admission = Admission {
            remote,
            cut: own.clone(),
            opening: doors.opening,
            _share: share,
            _permit: permit,
        };
        let mut connection = Severable::new(io, &own, admission);
        connection.hear_within(doors.opening);
        Some((connection, (listener, doors)))
    })
}

struct Refused;

fn share(shares: &Shares, remote: Option<SocketAddr>) -> Result<Option<Place>, Refused> {
    let far = remote.map(|remote| remote.ip().to_canonical());
    let far = far.filter(|address| !address.is_loopback());
    let taken = far.map(|address| shares.take(Holder::at(address)));
    taken.transpose().map_err(|_| Refused)
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
    opening: Duration,
    _share: Option<Place>,
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

    /// From now on it counts against another limit, and has to say something once more.
    pub(crate) fn settle(&mut self, permit: OwnedSemaphorePermit) {
        self.held_mut()._permit = permit;
        self.hear_within(self.held().opening);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;
    use crate::limits::{Limit, Shed};
    use futures::StreamExt;
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    fn doors(connections: u32) -> Doors {
        let shed = Shed::new(&Metrics::default());
        let places = NonZeroU32::new(connections).unwrap();
        Doors {
            permits: Arc::new(Semaphore::new(connections as usize)),
            shares: Shares::new(places, Limit::Connections, &shed),
            opening: Duration::from_secs(3),
            cut: CancellationToken::new(),
        }
    }

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
        let mut incoming = Box::pin(incoming(listener, doors(8)));
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
        let mut incoming = Box::pin(incoming(listener, doors(2)));
        let first = incoming.next().await.unwrap();
        let _second = incoming.next().await.unwrap();
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, incoming.next()).await.is_err());
        assert_eq!(accepts.load(Ordering::SeqCst), 2);
        drop(first);
        assert!(tokio::time::timeout(wait, incoming.next()).await.is_ok());
    }

    #[test]
    fn an_address_has_no_more_connections_than_it_leaves_free() {
        let shares = doors(8).shares;
        let from = |address: &str, port| share(&shares, Some((ip(address), port).into()));
        let flood: Vec<_> = (1..)
            .map_while(|port| from("192.0.2.1", port).ok())
            .collect();
        assert_eq!(flood.len(), 4);
        assert!(from("192.0.2.2", 1).is_ok());
        for near in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let all: Vec<_> = (1..100).map(|port| from(near, port)).collect();
            assert!(all.iter().all(|one| matches!(one, Ok(None))), "{near}");
        }
        assert!(matches!(share(&shares, None), Ok(None)));
    }

    fn ip(address: &str) -> std::net::IpAddr {
        address.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_given_up() {
        let said = [vec![], vec![0; 3], vec![0; 64]];
        let ended = said.map(async |bytes| {
            let (near, mut far) = duplex(64);
            let held = Severable::new(near, &CancellationToken::new(), ());
            let mut connection = held;
            connection.hear_within(Duration::from_secs(3));
            far.write_all(&bytes).await.unwrap();
            let mut all = Vec::new();
            let read = connection.read_to_end(&mut all);
            tokio::time::timeout(Duration::from_secs(60), read).await
        });
        let [nothing, little, enough] = ended;
        for ended in [nothing.await, little.await] {
            assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        assert!(enough.await.is_err(), "it may be silent from then on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_breaks_a_connection_whose_other_end_takes_nothing() {
        let (near, _far) = duplex(1);
        let cut = CancellationToken::new();
        let mut connection = Severable::new(near, &cut, ());
        let write = tokio::spawn(async move { connection.write_all(&[0; 64]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!write.is_finished());
        cut.cancel();
        assert_eq!(
            write.await.unwrap().unwrap_err().kind(),
            ErrorKind::ConnectionAborted
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_breaks_a_silent_connection() {
        let (near, _far) = duplex(1);
        let cut = CancellationToken::new();
        let mut connection = Severable::new(near, &cut, ());
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
