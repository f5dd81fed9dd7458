//! One connection an endpoint, whoever calls there.

use crate::security::{Client, Line, NamesOfHost};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tonic::transport::Endpoint;

/// An address, and the host whose names are asked for there.
type Place = (String, Option<String>);

/// Lines by address. Each is connected when it is first needed, and closed when nobody has it any more.
pub struct Pool {
    client: Client,
    bounds: fn(Endpoint) -> Endpoint,
    lines: Mutex<HashMap<Place, Weak<Line>>>,
}

impl Pool {
    /// An empty one; `bounds` as in [`Client::line`], see [`Pool::alive`].
    #[must_use]
    pub fn new(client: Client, bounds: fn(Endpoint) -> Endpoint) -> Self {
        Pool {
            client,
            bounds,
            lines: Mutex::default(),
        }
    }

    /// A line to an address, over the connection that there is already, if there is one.
    ///
    /// # Errors
    /// As [`Client::line`].
    pub fn line(&self, address: &str) -> Result<Line, String> {
        self.line_to(address, None)
    }

    /// The same, as [`Client::line_to`].
    ///
    /// # Errors
    /// As [`Client::line_to`].
    pub fn line_to(&self, address: &str, names: Option<NamesOfHost>) -> Result<Line, String> {
        let host = names.as_ref().map(|names| names.host().to_owned());
        let place = (address.to_owned(), host);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&place).and_then(Weak::upgrade) {
            return Ok(Line::sharing(line));
        }
        let line = Arc::new(self.client.line_to(address, names, self.bounds)?);
        lines.retain(|_, line| line.strong_count() > 0);
        lines.insert(place, Arc::downgrade(&line));
        Ok(Line::sharing(line))
    }

    /// Bounds that notice within seconds that a server is gone, also while nothing is asked of it:
    /// it has so long to take a connection, and a quiet connection is asked for a sign of life.
    #[must_use]
    pub fn alive(endpoint: Endpoint) -> Endpoint {
        endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
    }
}

const CONNECT: Duration = Duration::from_secs(3);
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Pool")
            .field("addresses", &lines.keys())
            .finish_non_exhaustive()
    }
}
