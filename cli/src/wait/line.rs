//! [`Line`]: the line to a server that may go away and come back while an operation goes on.

use super::progress::Progress;
use crate::connect::Session;
use crate::failure::Failure;
use crate::retry::Retry;

/// Calls that are made again until the server answers or the time is over.
pub(super) struct Line<'a> {
    pub(super) session: &'a Session,
    pub(super) operation_id: &'a str,
    pub(super) progress: Progress,
    retry: Retry,
}

impl<'a> Line<'a> {
    pub(super) fn new(session: &'a Session, operation_id: &'a str, progress: Progress) -> Self {
        Self {
            session,
            operation_id,
            progress,
            retry: Retry::default(),
        }
    }

    /// The server has answered.
    pub(super) fn answered(&mut self) {
        if self.retry.answered() {
            self.progress.say("the server answers again");
        }
    }

    /// Pauses before the next try, and says so the first time.
    ///
    /// # Errors
    /// The failure itself when another try cannot help; when the time is over.
    pub(super) async fn lost(&mut self, failure: Failure) -> Result<(), Failure> {
        let progress = &self.progress;
        let say = |why: &str| {
            progress.say(&format!("{why}; the operation goes on, trying again"));
        };
        self.retry.pause(self.session, failure, say).await
    }
}
