//! The table `[server]`: bounds on what clients may take.

use crate::connections::ConnectionBounds;
use crate::layers::Times;
use crate::{Compression, ConfigError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;
use tonic::codec::CompressionEncoding;

/// Bounds of a server. Every one has a default that is safe to run with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Time of a unary call whose client names none, in seconds.
    pub unary_deadline_seconds: NonZeroU64,
    /// Longest time of a unary call, in seconds; a client that asks for more has so much.
    pub max_deadline_seconds: NonZeroU64,
    /// Time for running calls to finish after SIGTERM, in seconds; then they are cut off.
    pub drain_seconds: u64,
    /// Calls served at once, watches and waits apart. No client holds more of them than it leaves
    /// free; what agents and servers ask of each other has as many places beside.
    pub max_concurrent_calls: NonZeroU32,
    /// Watches and waits open at once; of them the same holds.
    pub max_watches: NonZeroU32,
    /// Time a client may leave an answer untaken, in seconds; then it is cut off.
    pub watch_stall_seconds: NonZeroU64,
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
    /// Time for a new connection's TLS handshake, in seconds, and as long for the begin of HTTP/2.
    pub handshake_seconds: NonZeroU64,
    /// Age at which a connection takes no new calls and its watches end, in seconds, a tenth more or
    /// less; 0 for no such age.
    pub max_connection_age_seconds: u64,
    /// Time for the calls of an old connection to end, in seconds; then it is closed.
    pub connection_grace_seconds: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            unary_deadline_seconds: const { NonZeroU64::new(60).expect("not zero") },
            max_deadline_seconds: const { NonZeroU64::new(600).expect("not zero") },
            max_concurrent_calls: const { NonZeroU32::new(512).expect("not zero") },
            max_watches: const { NonZeroU32::new(1024).expect("not zero") },
            watch_stall_seconds: const { NonZeroU64::new(30).expect("not zero") },
            drain_seconds: 20,
            max_concurrent_streams: const { NonZeroU32::new(256).expect("not zero") },
            max_message_bytes: const { NonZeroU32::new(4 << 20).expect("not zero") },
            reflection: true,
            compression: vec![Compression::Gzip, Compression::Zstd],
            max_header_list_bytes: const { NonZeroU32::new(16 << 10).expect("not zero") },
            keepalive_interval_seconds: const { NonZeroU64::new(30).expect("not zero") },
            keepalive_timeout_seconds: const { NonZeroU64::new(10).expect("not zero") },
            handshake_seconds: const { NonZeroU64::new(3).expect("not zero") },
            max_connection_age_seconds: 3600,
            connection_grace_seconds: 30,
        }
    }
}

/// Resets that a peer may cause on one connection before it is closed; more is an attack (rapid
/// reset).
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

/// hyper takes no smaller one.
const LEAST_HTTP1_BUFFER: usize = 8 << 10;

/// A wait may take an hour by its contract, and a little to be answered.
const LONGEST_WAIT: Duration = Duration::from_secs(3660);

/// A year. Whoever sets a time that is longer has set another one than was meant, and one that is much
/// longer lies behind the end of the process's clock.
const LONGEST_SECONDS: u64 = 365 * 24 * 3600;

impl ServerConfig {
    /// Whether each time can be waited for.
    ///
    /// # Errors
    /// [`ConfigError::Setting`], which names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("unary_deadline", self.unary_deadline_seconds),
            ("max_deadline", self.max_deadline_seconds),
            ("watch_stall", self.watch_stall_seconds),
            ("keepalive_interval", self.keepalive_interval_seconds),
            ("keepalive_timeout", self.keepalive_timeout_seconds),
            ("handshake", self.handshake_seconds),
        ];
        let any = [
            ("drain", self.drain_seconds),
            ("max_connection_age", self.max_connection_age_seconds),
            ("connection_grace", self.connection_grace_seconds),
        ];
        let positive = positive.map(|(key, seconds)| (key, 1, seconds.get()));
        let mut all = positive
            .into_iter()
            .chain(any.map(|(key, seconds)| (key, 0, seconds)));
        match all.find(|(_, _, seconds)| *seconds > LONGEST_SECONDS) {
            None => Ok(()),
            Some((key, least, seconds)) => Err(ConfigError::conflict(
                &format!("server.{key}_seconds"),
                &format!("is {seconds}, not within {least} to {LONGEST_SECONDS}"),
            )),
        }
    }

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

    pub(crate) fn times(&self) -> Times {
        Times {
            unset: Duration::from_secs(self.unary_deadline_seconds.get()),
            most: Duration::from_secs(self.max_deadline_seconds.get()),
            wait: LONGEST_WAIT,
        }
    }

    pub(crate) fn watch_stall(&self) -> Duration {
        Duration::from_secs(self.watch_stall_seconds.get())
    }

    pub(crate) fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds.get())
    }

    /// Time for what is under way to finish after SIGTERM.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// For connections of HTTP/2 alone.
    pub(crate) fn connection(&self) -> ConnectionBounds {
        self.bounds(auto::Builder::new(TokioExecutor::new()).http2_only())
    }

    /// As [`connection`](Self::connection), for HTTP/1.1, too.
    pub(crate) fn with_http1(&self) -> ConnectionBounds {
        let mut http = auto::Builder::new(TokioExecutor::new());
        let headers = self.max_header_list_bytes.get() as usize;
        http.http1()
            .timer(TokioTimer::new())
            // Also for a connection that waits for its next request: nothing else notices that its
            // client is gone.
            .header_read_timeout(Duration::from_secs(self.keepalive_interval_seconds.get()))
            .max_buf_size(headers.max(LEAST_HTTP1_BUFFER));
        self.bounds(http)
    }

    fn bounds(&self, mut http: auto::Builder<TokioExecutor>) -> ConnectionBounds {
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_concurrent_streams.get())
            .max_header_list_size(self.max_header_list_bytes.get())
            .keep_alive_interval(Duration::from_secs(self.keepalive_interval_seconds.get()))
            .keep_alive_timeout(Duration::from_secs(self.keepalive_timeout_seconds.get()))
            .max_pending_accept_reset_streams(MAX_PENDING_ACCEPT_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS);
        let age = self.max_connection_age_seconds;
        ConnectionBounds {
            http,
            age: (age > 0).then(|| Duration::from_secs(age)),
            grace: Duration::from_secs(self.connection_grace_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn with(key: &str, seconds: u64) -> ServerConfig {
        toml::from_str(&format!("{key} = {seconds}")).unwrap()
    }

    #[test]
    fn a_time_behind_the_end_of_the_clock_is_refused_by_its_key() {
        ServerConfig::default().check().unwrap();
        let defaults = toml::Table::try_from(ServerConfig::default()).unwrap();
        let keys: Vec<_> = defaults
            .keys()
            .filter(|key| key.ends_with("_seconds"))
            .collect();
        assert_eq!(keys.len(), 9);
        // TOML has no larger number.
        let most = i64::MAX.unsigned_abs();
        for key in keys {
            with(key, LONGEST_SECONDS).check().unwrap();
            for seconds in [LONGEST_SECONDS + 1, most] {
                let refused = with(key, seconds).check().unwrap_err().to_string();
                let said = format!("server.{key}: is {seconds}, not within ");
                assert!(refused.starts_with(&said), "{refused}");
            }
        }
        let longest = Duration::from_secs(LONGEST_SECONDS);
        assert!(Instant::now().checked_add(longest).is_some());
    }
}
