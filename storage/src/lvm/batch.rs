//! Removals that arrive together are done together: a change of the group costs as much for one
//! volume as for a hundred.
//!
//! ```text
//!   remove ─▶ waiting ─┐
//!   remove ─▶ waiting ─┼─▶ the first one leads: after a short pause it takes all that wait along
//!   remove ─▶ waiting ─┘
//! ```

use super::domain::{Domain, locked};
use super::removal::{Answer, Asked};
use crate::StorageError;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the first one waits for others.
const WINDOW: Duration = Duration::from_millis(20);

type Waiting = (Asked, oneshot::Sender<Result<Answer, StorageError>>);

/// What waits to be removed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: Mutex<Vec<Waiting>>,
    leading: tokio::sync::Mutex<()>,
}

impl Batch {
    /// Has it removed, with whatever else waits.
    pub(super) async fn ask(domain: &Arc<Domain>, asked: Asked) -> Result<Answer, StorageError> {
        let (answer, answered) = oneshot::channel();
        let batch = &domain.batch;
        locked(&batch.waiting).push((asked, answer));
        let lead = batch.leading.lock().await;
        // Whoever led before may have taken it along.
        if !locked(&batch.waiting).is_empty() {
            tokio::time::sleep(WINDOW).await;
            let (asked, answers): (Vec<_>, Vec<_>) = locked(&batch.waiting).drain(..).unzip();
            let done = domain.remove_all(&asked).await;
            for (answer, done) in answers.into_iter().zip(done) {
                // Who asked may have left.
                let _ = answer.send(done);
            }
        }
        drop(lead);
        answered.await.unwrap_or_else(|_| {
            let what = format!("storage domain {}", domain.id());
            let source = io::Error::other("whoever removed it together with others is gone");
            Err(StorageError::Unreachable { what, source })
        })
    }
}
