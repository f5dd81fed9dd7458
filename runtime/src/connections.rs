//! HTTP on each accepted connection, from its first byte to its end: HTTP/2, and HTTP/1.1 where browsers
//! are served.
//!
//! ```text
//!   open ──server stops, or the connection is old──▶ GOAWAY: takes no new calls ──calls done──▶ closed
//!                                                      │ watches of an old one end: [`Retiring`]
//!                                                      └──old, and the grace over──▶ cut
//! ```
//!
//! The age of each connection differs by up to a tenth, so that those which were opened together do
//! not come back together. How long the end of the server may take is not known here.

use crate::layers::GrpcService;
use futures::{Stream, StreamExt as _};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::error::Error;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Bounds of each connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionBounds {
    pub(crate) http: auto::Builder<TokioExecutor>,
    /// None: it may grow as old as it likes.
    pub(crate) age: Option<Duration>,
    /// For the calls of an old one to end.
    pub(crate) grace: Duration,
}

/// Among a request's extensions: whether its connection is about to be closed for its age.
#[derive(Clone, Debug)]
pub(crate) struct Retiring(CancellationToken);

impl Retiring {
    pub(crate) fn retired(self) -> impl Future<Output = ()> + Send {
        self.0.cancelled_owned()
    }
}

/// Serves connections until `stop`, and those that are open then to their end. Dropped, it ends all of them.
pub(crate) async fn serve<IO, S>(
    incoming: impl Stream<Item = IO>,
    service: S,
    bounds: ConnectionBounds,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: GrpcService + Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    {
        let mut incoming = pin!(incoming);
        loop {
            let io = tokio::select! {
                () = stop.cancelled() => break,
                Some(_ended) = connections.join_next() => continue,
                io = incoming.next() => io,
            };
            let Some(io) = io else { break };
            connections.spawn(keep(io, service.clone(), bounds.clone(), stop.clone()));
        }
        // Here the socket is closed: nobody connects to a server that stops.
    }
    while connections.join_next().await.is_some() {}
}

async fn keep<IO, S>(io: IO, service: S, bounds: ConnectionBounds, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: GrpcService + Clone + Send + 'static,
{
    let retiring = Retiring(CancellationToken::new());
    let (info, told) = (io.connect_info(), retiring.clone());
    let calls = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        request.extensions_mut().insert(told.clone());
        service.clone().oneshot(request)
    });
    let mut connection = pin!(bounds.http.serve_connection(TokioIo::new(io), calls));
    let is_old = tokio::select! {
        ended = &mut connection => return log(ended),
        () = stop.cancelled() => false,
        () = old(bounds.age) => true,
    };
    connection.as_mut().graceful_shutdown();
    if !is_old {
        return log(connection.await);
    }
    retiring.0.cancel();
    match tokio::time::timeout(bounds.grace, connection).await {
        Ok(ended) => log(ended),
        Err(_elapsed) => tracing::info!("an old connection is closed although it has calls"),
    }
}

async fn old(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(spread(age, Uuid::new_v4().as_u128())).await,
        None => std::future::pending().await,
    }
}

/// From nine to eleven tenths of the age.
fn spread(age: Duration, drawn: u128) -> Duration {
    let most = age / 5;
    // 16 bits are enough to spread by.
    age - age / 10 + most * u32::from(drawn as u16) / u32::from(u16::MAX)
}

fn log(ended: Result<(), Box<dyn Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error = error.as_ref() as &dyn Error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_up_to_a_tenth() {
        let age = Duration::from_secs(100);
        assert_eq!(spread(age, 0), Duration::from_secs(90));
        assert_eq!(spread(age, u128::MAX), Duration::from_secs(110));
        assert_ne!(spread(age, 1000), spread(age, 2000));
    }
}
