//! The table `[server]`: bounds on what clients may take.

use crate::Compression;
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;
use tonic::codec::CompressionEncoding;

/// Bounds of a server. Every one has a default that is safe to run with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Longest time a unary call may take, in seconds; a client may ask for less.
    pub unary_deadline_seconds: NonZeroU64,
    /// Time for running calls to finish after SIGTERM, in seconds; then they are cut off.
    pub drain_seconds: u64,
    /// Calls open at once on one connection.
    pub max_concurrent_streams: NonZeroU32,
    /// Largest request message in bytes. A service takes it from
    /// [`max_message_bytes`](Self::max_message_bytes).
    pub max_message_bytes: NonZeroU32,
    /// Largest header list of a request in bytes.
    pub max_header_list_bytes: NonZeroU32,
    /// Interval of HTTP/2 pings on a connection, in seconds.
    pub keepalive_interval_seconds: NonZeroU64,
    /// Whether clients may ask which services and messages there are.
    pub reflection: bool,
    /// How messages may be compressed, either way. A client that does not ask for it gets none.
    pub compression: Vec<Compression>,
    /// Time for a ping to be answered before the connection is closed, in seconds.
    pub keepalive_timeout_seconds: NonZeroU64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            unary_deadline_seconds: const { NonZeroU64::new(60).expect("not zero") },
            drain_seconds: 20,
            max_concurrent_streams: const { NonZeroU32::new(256).expect("not zero") },
            max_message_bytes: const { NonZeroU32::new(4 << 20).expect("not zero") },
            reflection: true,
            compression: vec![Compression::Gzip, Compression::Zstd],
            max_header_list_bytes: const { NonZeroU32::new(16 << 10).expect("not zero") },
            keepalive_interval_seconds: const { NonZeroU64::new(30).expect("not zero") },
            keepalive_timeout_seconds: const { NonZeroU64::new(10).expect("not zero") },
        }
    }
}

/// Resets that a peer may cause on one connection before it is closed; more is an attack (rapid
/// reset). Both are set because tonic, left alone, switches the second bound off.
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

impl ServerConfig {
    /// Largest request message in bytes, for the `max_decoding_message_size` of each generated
    /// service: tonic has no such bound for a server as a whole.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes.get() as usize
    }

    /// How messages may be compressed, for [`bounded!`](crate::bounded).
    pub fn encodings(&self) -> impl Iterator<Item = CompressionEncoding> + '_ {
        self.compression.iter().map(|each| (*each).into())
    }

    pub(crate) fn unary_deadline(&self) -> Duration {
        Duration::from_secs(self.unary_deadline_seconds.get())
    }

    /// Time for what is under way to finish after SIGTERM.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// tonic's transport within these bounds. Its own per-request timeout stays unset: the
    /// deadline layer does that.
    pub(crate) fn transport(&self) -> tonic::transport::Server {
        let interval = Duration::from_secs(self.keepalive_interval_seconds.get());
        let timeout = Duration::from_secs(self.keepalive_timeout_seconds.get());
        tonic::transport::Server::builder()
            .max_concurrent_streams(self.max_concurrent_streams.get())
            .http2_max_header_list_size(self.max_header_list_bytes.get())
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
            .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_ACCEPT_RESETS))
            .http2_max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
    }
}
