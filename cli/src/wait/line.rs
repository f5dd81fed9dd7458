//! [`Line`]: the line to a server that may go away and come back while an operation goes on.

use super::progress::Progress;
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// The first pause, which doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Calls that are made again until the server answers or the time is over.
pub(super) struct Line<'a> {
    pub(super) session: &'a Session,
    pub(super) operation_id: &'a str,
    pub(super) progress: Progress,
    /// The pauses between tries, while the server does not answer.
    silence: Option<ExponentialBackoff>,
}

impl<'a> Line<'a> {
    pub(super) fn new(session: &'a Session, operation_id: &'a str, progress: Progress) -> Self {
        Self {
            session,
            operation_id,
            progress,
            silence: None,
        }
    }

    /// The server has answered.
    pub(super) fn answered(&mut self) {
        if self.silence.take().is_some() {
            self.progress.say("the server answers again");
        }
    }

    /// Pauses before the next try, and says so the first time.
    ///
    /// # Errors
    /// The failure itself when another try cannot help; when the time is over.
    pub(super) async fn lost(&mut self, failure: Failure) -> Result<(), Failure> {
        let time_left = self.session.time_left()?;
        if failure.exit() != Exit::Unavailable {
            return Err(failure);
        }
        if self.silence.is_none() {
            let why = failure.message();
            self.progress
                .say(&format!("{why}; the operation goes on, trying again"));
        }
        let pauses = self.silence.get_or_insert_with(pauses);
        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
        tokio::time::sleep(time_left.map_or(pause, |left| left.min(pause))).await;
        Ok(())
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}
