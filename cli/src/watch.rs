//! [`Watching`]: a watch over restarts of the server, within the command's time.
//!
//! ```text
//!   open ─▶ each piece ─▶ the command
//!    ▲          │
//!    └─ pause ◀─┴─ UNAVAILABLE, silence, the stream's end: said once, as is that it comes again
//!
//!   any other error: the end          --timeout: exit 5
//! ```

use crate::connect::Session;
use crate::failure::Failure;
use futures::Stream;
use livemerge_runtime::Backoff;
use livemerge_runtime::client::{Seen, Watch, WatchPolicy};
use std::time::Duration;
use tonic::Status;

const POLICY: WatchPolicy = WatchPolicy {
    open: Duration::from_secs(30),
    // A watch says something at least every 15 s, and a wait answers after 20 s.
    silence: Duration::from_secs(45),
    backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
};

/// A watch of pieces `P`. What it is opened with is the token of the last piece.
pub(crate) struct Watching<'a, P> {
    session: &'a Session,
    watch: Watch<'a, String, P>,
    /// What is said to happen while the server is away.
    meanwhile: &'static str,
    is_away: bool,
}

impl<'a, P> Watching<'a, P> {
    /// Begins behind `token`; otherwise as [`Watch::new`].
    pub(crate) fn new<F, S>(
        session: &'a Session,
        meanwhile: &'static str,
        token: Option<String>,
        open: impl FnMut(Option<String>) -> F + Send + 'a,
        token_of: fn(&P) -> Option<String>,
    ) -> Self
    where
        F: Future<Output = Result<S, Status>> + Send + 'a,
        S: Stream<Item = Result<P, Status>> + Send + 'a,
    {
        Self {
            session,
            watch: Watch::new(POLICY, session.request_id(), token, open, token_of),
            meanwhile,
            is_away: false,
        }
    }

    /// Waits for the next piece. A token that has expired ends the watch: what would follow is not
    /// what was asked for.
    ///
    /// # Errors
    /// What another try cannot help; the end of the time.
    pub(crate) async fn next(&mut self, say: impl Fn(&str)) -> Result<P, Failure> {
        loop {
            let seen = self.session.in_time(self.watch.next()).await?;
            let failed = |status| Failure::of_call(&status, self.session.server());
            match seen.map_err(failed)? {
                Seen::Piece(piece) => {
                    if std::mem::take(&mut self.is_away) {
                        say("the server answers again");
                    }
                    return Ok(piece);
                }
                Seen::Lost(status) => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        let meanwhile = self.meanwhile;
                        say(&format!("{}; {meanwhile}", failed(status).message()));
                    }
                }
                Seen::Afresh(status) => return Err(failed(status)),
            }
        }
    }
}
