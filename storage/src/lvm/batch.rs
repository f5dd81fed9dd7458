//! Removals that arrive together are done together: a change of the group costs as much for one
//! volume as for a hundred.
//!
//! ```text
//!   remove ─▶ waiting ─┐
//!   remove ─▶ waiting ─┼─▶ the first one leads: when no more come it takes all that wait along
//!   remove ─▶ waiting ─┘
//! ```

use super::domain::{Domain, locked};
use super::removal::{Answer, Asked};
use crate::StorageError;
use futures::future::join_all;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Volumes of one change: their identities are one argument.
const MOST: usize = 256;
/// Volumes among them that take several changes each, one after the other in one turn: others wait for
/// theirs.
const MOST_LONG: usize = 32;

/// The first one waits until for so long none has come. It does not sleep: a timer may be ten times as coarse.
const QUIET: Duration = Duration::from_millis(1);

type Waiting = (Asked, oneshot::Sender<Result<Answer, StorageError>>);

/// What waits to be removed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: Mutex<Vec<Waiting>>,
    leading: tokio::sync::Mutex<()>,
}

impl Batch {
    /// Those that are next. `shared`: all of them go the long way.
    fn next(&self, shared: bool) -> Vec<Waiting> {
        let mut waiting = locked(&self.waiting);
        let mut long = 0;
        let fits = |(asked, _): &&Waiting| {
            long += usize::from(shared || !asked.order.ends_at_once());
            long <= MOST_LONG
        };
        let most = waiting.iter().take(MOST).take_while(fits).count();
        waiting.drain(..most).collect()
    }

    /// Until those have come that were about to. Who comes later waits for the next change, with others.
    async fn gather(&self) {
        let (mut before, mut since) = (0, Instant::now());
        while since.elapsed() < QUIET {
            let count = locked(&self.waiting).len();
            if count != before {
                (before, since) = (count, Instant::now());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Has them removed, with whatever else waits.
    pub(super) async fn ask(
        domain: &Arc<Domain>,
        asked: Vec<Asked>,
    ) -> Vec<Result<Answer, StorageError>> {
        if asked.is_empty() {
            return Vec::new();
        }
        let alone = asked.len() == 1;
        let (answers, answered): (Vec<_>, Vec<_>) =
            asked.iter().map(|_| oneshot::channel()).unzip();
        let batch = &domain.batch;
        locked(&batch.waiting).extend(asked.into_iter().zip(answers));
        let lead = batch.leading.lock().await;
        // Whoever led before may have taken it along. Those that come together wait for nobody.
        if alone && !locked(&batch.waiting).is_empty() {
            batch.gather().await;
        }
        loop {
            let (asked, answers): (Vec<_>, Vec<_>) = {
                let shared = domain.config().shared;
                batch.next(shared).into_iter().unzip()
            };
            if asked.is_empty() {
                break;
            }
            let done = domain.remove_all(&asked).await;
            for (answer, done) in answers.into_iter().zip(done) {
                // Who asked may have left.
                let _ = answer.send(done);
            }
        }
        drop(lead);
        let answered = join_all(answered).await.into_iter();
        let answered = answered.map(|answer| {
            answer.unwrap_or_else(|_| {
                let what = format!("storage domain {}", domain.id());
                let source = io::Error::other("whoever removed it together with others is gone");
                Err(StorageError::Unreachable { what, source })
            })
        });
        answered.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RemovalOrder;
    use uuid::Uuid;

    fn waiting(number: u128) -> Waiting {
        let order = RemovalOrder {
            // The last ones go the long way.
            wipe: number >= 500,
            ..RemovalOrder::new(
                Uuid::from_u128(number).into(),
                "a".parse().unwrap(),
                "QXmD1g-naBe-VPvu-N26X-k2b6-eKm0-NPvbL2".parse().unwrap(),
            )
        };
        let emptied = false;
        (Asked { order, emptied }, oneshot::channel().0)
    }

    #[test]
    fn all_that_wait_are_taken_as_they_came_and_not_too_many_at_once() {
        let batch = Batch::default();
        locked(&batch.waiting).extend((0..600).map(waiting));
        let mut seen = Vec::new();
        for taken in [256, 256, 32, 32, 24, 0] {
            let next = batch.next(false);
            assert_eq!(next.len(), taken);
            seen.extend(next.into_iter().map(|(asked, _)| asked.order.id));
        }
        let all = (0..600).map(|number| Uuid::from_u128(number).into());
        assert_eq!(seen, all.collect::<Vec<_>>());
        locked(&batch.waiting).extend((0..40).map(waiting));
        assert_eq!(batch.next(true).len(), 32);
    }
}
