//! [`Retry`]: tries again while the server is away.

use crate::connect::Session;
use crate::failure::{Exit, Failure};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use livemerge_proto::reason::Reason;
use std::time::Duration;

/// The first pause, which doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pauses between tries, while the server does not answer.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    silence: Option<ExponentialBackoff>,
}

impl Retry {
    /// The server has answered; tells whether it had been away.
    pub(crate) fn answered(&mut self) -> bool {
        self.silence.take().is_some()
    }

    /// Pauses before the next try; `say` is told why the first time.
    ///
    /// # Errors
    /// The failure itself when another try cannot help; when the time is over.
    pub(crate) async fn pause(
        &mut self,
        session: &Session,
        failure: Failure,
        say: impl FnOnce(&str),
    ) -> Result<(), Failure> {
        let time_left = session.time_left()?;
        // A reader that stood still, as behind a pager, goes on where it was cut off.
        let was_slow = failure.has_reason(Reason::WatchConsumerTooSlow);
        if failure.exit() != Exit::Unavailable && !was_slow {
            return Err(failure);
        }
        if self.silence.is_none() {
            say(failure.message());
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
