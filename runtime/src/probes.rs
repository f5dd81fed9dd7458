//! Health on an address of its own, in plaintext and to everybody: probes, such as kubelet's, have
//! no certificate. Nothing else is served there.

use crate::connections::{self, ConnectionBounds};
use crate::layers::{Methods, RetireLayer};
use crate::limits::{Limit, Shares, Shed};
use crate::listen::{self, Doors};
use crate::{Readiness, ServerConfig};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const CONNECTIONS: NonZeroU32 = NonZeroU32::new(64).expect("64 is not zero");
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
    config: &ServerConfig,
    shed: &Shed,
) -> impl Future<Output = ()> + Send + use<> {
    let never = CancellationToken::new();
    let doors = Doors {
        permits: Arc::new(Semaphore::new(CONNECTIONS.get() as usize)),
        shares: Shares::new(CONNECTIONS, Limit::Connections, shed),
        opening: config.handshake(),
        cut: never.clone(),
    };
    let incoming = listen::incoming(socket, doors);
    let health = readiness.service().max_decoding_message_size(REQUEST_BYTES);
    let health = RetireLayer::new(Routes::new(health).prepare(), Methods::default());
    let mut bounds = ConnectionBounds {
        age: Some(AGE),
        grace: GRACE,
        ..config.connection()
    };
    bounds
        .http
        .http2()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES);
    connections::serve(incoming, health, bounds, never)
}
