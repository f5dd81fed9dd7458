//! A stream that is opened again behind what was seen of it last.
//!
//! ```text
//!               ┌────────────── pause ◀── Lost: UNAVAILABLE, no place for it, read too slowly, no
//!               ▼                           sign of life, a broken connection, the stream's end
//!   token ─▶ opening ─▶ open ─▶ Piece, and its token
//!               ▲
//!               └── Afresh, without a token ◀── RESUME_TOKEN_EXPIRED
//!
//!   any other error: to the caller
//! ```

use super::lost::Lost;
use crate::layers::status::is_any;
use crate::{Backoff, Tries};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

const TOKEN_EXPIRED: [&str; 1] = ["RESUME_TOKEN_EXPIRED"];
const TOO_SLOW: [&str; 1] = ["WATCH_CONSUMER_TOO_SLOW"];

/// When a watch is given up, and how soon it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPolicy {
    /// The time until the stream is open.
    pub open: Duration,
    /// A stream that was silent for so long is dead; more than its server's heartbeat.
    pub silence: Duration,
    /// The pauses before it is opened again; what `RetryInfo` says comes on top.
    pub backoff: Backoff,
}

/// What comes of a watch.
#[derive(Debug)]
pub enum Seen<P> {
    /// The next piece.
    Piece(P),
    /// The stream broke, or could not be opened; it is opened again behind the last piece.
    Lost(Status),
    /// The server cannot go on behind the last piece: what follows is a state of its own.
    Afresh(Status),
}

/// A watch that goes on. `T` tells a place in the stream, `P` is a piece of it.
pub struct Watch<'a, T, P> {
    policy: WatchPolicy,
    tries: Tries,
    token: Option<T>,
    open: Box<dyn FnMut(Option<T>) -> Opening<'a, P> + Send + 'a>,
    token_of: fn(&P) -> Option<T>,
    state: State<'a, P>,
}

type Pieces<'a, P> = BoxStream<'a, Result<P, Status>>;
type Opening<'a, P> = BoxFuture<'a, Result<Pieces<'a, P>, Status>>;

enum State<'a, P> {
    Resting {
        until: Instant,
    },
    Opening {
        stream: Opening<'a, P>,
        by: Instant,
    },
    Open {
        stream: Pieces<'a, P>,
        by: Instant,
        /// The last piece is of use as soon as another one is asked for.
        took: bool,
    },
}

impl<'a, T: Clone, P> Watch<'a, T, P> {
    /// A watch that begins behind `token`. `open` opens a stream behind a token, or at its
    /// beginning; `token_of` tells the place behind a piece, if it has one. Of the same `seed` the
    /// pauses are the same.
    pub fn new<F, S>(
        policy: WatchPolicy,
        seed: impl Hash,
        token: Option<T>,
        mut open: impl FnMut(Option<T>) -> F + Send + 'a,
        token_of: fn(&P) -> Option<T>,
    ) -> Self
    where
        F: Future<Output = Result<S, Status>> + Send + 'a,
        S: Stream<Item = Result<P, Status>> + Send + 'a,
    {
        let open = move |token| {
            let opening = open(token);
            async move { Ok(opening.await?.boxed()) }.boxed()
        };
        Watch {
            policy,
            tries: Tries::new(policy.backoff, seed),
            token,
            open: Box::new(open),
            token_of,
            state: State::Resting {
                until: Instant::now(),
            },
        }
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What another try as it is cannot help. Whoever asks again nevertheless makes it, after a
    /// pause.
    pub async fn next(&mut self) -> Result<Seen<P>, Status> {
        loop {
            match &mut self.state {
                State::Resting { until } => {
                    sleep_until(*until).await;
                    self.state = State::Opening {
                        stream: (self.open)(self.token.clone()),
                        by: Instant::now() + self.policy.open,
                    };
                }
                State::Opening { stream, by } => match timeout_at(*by, stream).await {
                    Ok(Ok(stream)) => {
                        let by = Instant::now() + self.policy.silence;
                        self.state = State::Open {
                            stream,
                            by,
                            took: false,
                        };
                    }
                    Ok(Err(status)) => return self.failed(status),
                    Err(_elapsed) => return self.failed(Status::unavailable("no answer")),
                },
                State::Open { stream, by, took } => {
                    if std::mem::take(took) {
                        self.tries.succeeded();
                    }
                    let status = match timeout_at(*by, stream.next()).await {
                        Ok(Some(Ok(piece))) => return Ok(self.took(piece)),
                        Ok(Some(Err(status))) => status,
                        Ok(None) => Status::unavailable("the server ended the watch"),
                        Err(_elapsed) => Status::unavailable("no sign of life"),
                    };
                    return self.failed(status);
                }
            }
        }
    }

    /// What came cannot be used: the stream is left, and opened again after a pause, which is longer
    /// each time.
    pub fn leave(&mut self) {
        self.rest(Duration::ZERO);
    }

    /// The place behind the last piece.
    pub fn token(&self) -> Option<&T> {
        self.token.as_ref()
    }

    fn took(&mut self, piece: P) -> Seen<P> {
        if let State::Open { by, took, .. } = &mut self.state {
            *by = Instant::now() + self.policy.silence;
            *took = true;
        }
        if let Some(token) = (self.token_of)(&piece) {
            self.token = Some(token);
        }
        Seen::Piece(piece)
    }

    fn failed(&mut self, status: Status) -> Result<Seen<P>, Status> {
        if self.token.is_some() && is_any(&status, &TOKEN_EXPIRED) {
            self.token = None;
            self.rest(Duration::ZERO);
            return Ok(Seen::Afresh(status));
        }
        let lost = Lost::of_status(&status);
        self.rest(lost.map_or(Duration::ZERO, |lost| lost.retry_after));
        match lost {
            Some(_) => Ok(Seen::Lost(status)),
            // A reader that stood still, as behind a pager, goes on where it was cut off.
            None if is_any(&status, &TOO_SLOW) => Ok(Seen::Lost(status)),
            None => Err(status),
        }
    }

    /// At least so long.
    fn rest(&mut self, least: Duration) {
        self.state = State::Resting {
            until: Instant::now() + least + self.tries.failed(),
        };
    }
}

impl<T: fmt::Debug, P> fmt::Debug for Watch<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("policy", &self.policy)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
