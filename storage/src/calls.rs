//! Calls of the file system, off the async threads, so that a dead one holds up nobody else.
//!
//! A call to a file system that hangs cannot be taken back: its thread waits with it. So each domain
//! has only so many calls at once, far fewer than there are threads. When all of them hang, others
//! are told so after [`PATIENCE`]; a look is given up after [`LIMIT`], and its thread goes on.
//!
//! Not for `qemu-img`, which is a process and is killed.

use crate::{StorageError, StorageId};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Calls at once.
pub(crate) const MOST: usize = 32;
/// How long a call waits for the others.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The calls of one domain.
#[derive(Debug)]
pub(crate) struct Calls {
    free: Arc<Semaphore>,
    patience: Duration,
    limit: Duration,
}

impl Default for Calls {
    fn default() -> Self {
        Self::new(MOST, PATIENCE, LIMIT)
    }
}

impl Calls {
    fn new(most: usize, patience: Duration, limit: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            patience,
            limit,
        }
    }

    /// Does the work, to its end however long it takes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        domain: &StorageId,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let free = Arc::clone(&self.free).acquire_owned();
        let Ok(Ok(turn)) = timeout(self.patience, free).await else {
            return Err(hangs(domain, "too many calls have no end"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let _until_the_end = turn;
            work()
        });
        done.await.unwrap_or_else(|died| Err(lost(died)))
    }

    /// The same for work that changes nothing: nobody has to wait for its end.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        domain: &StorageId,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let looked = timeout(self.limit, self.run(domain, work)).await;
        looked.unwrap_or_else(|_| Err(hangs(domain, "a look has no end")))
    }
}

fn hangs(domain: &StorageId, text: &str) -> StorageError {
    StorageError::Unreachable {
        what: format!("storage domain {domain}"),
        source: io::Error::new(io::ErrorKind::TimedOut, text),
    }
}

/// Runs file system work off the async threads, before there is a domain.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(lost(died)))
}

/// Goes on to its end when the caller leaves.
pub(crate) async fn in_own_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|died| Err(lost(died)))
}

fn lost(died: tokio::task::JoinError) -> StorageError {
    let what = "the file system's worker".to_owned();
    StorageError::Unreachable {
        what,
        source: io::Error::other(died),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    fn id() -> StorageId {
        "default".parse().unwrap()
    }

    fn timed_out(result: Result<(), StorageError>) -> bool {
        matches!(result, Err(StorageError::Unreachable { source, .. })
            if source.kind() == io::ErrorKind::TimedOut)
    }

    /// Work that hangs until the sender is dropped.
    fn hanging() -> (
        mpsc::Sender<()>,
        impl FnOnce() -> Result<(), StorageError> + Send + 'static,
    ) {
        let (release, until) = mpsc::channel::<()>();
        let work = move || {
            let _released = until.recv();
            Ok(())
        };
        (release, work)
    }

    #[tokio::test]
    async fn calls_that_hang_take_no_more_than_their_share() {
        let calls = Arc::new(Calls::new(2, SHORT, LONG));
        let (releases, hung): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (release, work) = hanging();
                let calls = Arc::clone(&calls);
                let hung = tokio::spawn(async move { calls.run(&id(), work).await });
                (release, hung)
            })
            .unzip();
        while calls.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(timed_out(calls.run(&id(), || Ok(())).await));
        let other = Calls::new(2, SHORT, LONG);
        other.run(&id(), || Ok(())).await.unwrap();
        drop(releases);
        for hung in hung {
            hung.await.unwrap().unwrap();
        }
        calls.run(&id(), || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_look_is_given_up_and_its_share_is_not() {
        let calls = Calls::new(1, SHORT, SHORT);
        let (release, work) = hanging();
        assert!(timed_out(calls.look(&id(), work).await));
        assert_eq!(calls.free.available_permits(), 0);
        drop(release);
        while calls.free.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        // The limit is for what hangs; this only has to end.
        while calls.look(&id(), || Ok(())).await.is_err() {}
    }
}
