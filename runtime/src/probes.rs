//! Health on an address of its own, in plaintext and to everybody: probes, such as kubelet's, have
//! no certificate. Nothing else is served there.

use crate::Readiness;
use crate::listen;
use futures::StreamExt as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

const CONNECTIONS: usize = 64;
const STREAMS: u32 = 8;
const REQUEST_BYTES: usize = 1 << 10;
const HEADER_BYTES: u32 = 4 << 10;
/// Strangers may connect: nobody keeps a place for longer.
const AGE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);

/// Answers until it is dropped.
pub(crate) fn serve(
    socket: TcpListener,
    readiness: &Readiness,
) -> impl Future<Output = ()> + Send + use<> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let cut = CancellationToken::new();
    let incoming = listen::incoming(socket, permits, cut.clone());
    // Connections are tasks of their own.
    let cut = cut.drop_guard();
    let health = readiness.service().max_decoding_message_size(REQUEST_BYTES);
    async move {
        let _cut = cut;
        let served = Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(HEADER_BYTES)
            .max_connection_age(AGE)
            .max_connection_age_grace(GRACE)
            .add_service(health)
            .serve_with_incoming(incoming.map(Ok::<_, Infallible>));
        if let Err(error) = served.await {
            tracing::error!(%error, "health is served on its own address no more");
        }
    }
}
