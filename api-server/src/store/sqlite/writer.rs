//! The one connection that writes, and the transactions on it.
//!
//! A transaction that is not committed (an error, a caller that went away) is rolled back. If even
//! that fails (SQLite ends a transaction by itself when the disk is full or breaks) the connection
//! is given up and the next change opens another, so that a fault lasts no longer than its cause. So
//! is one on which no change can begin: SQLite opens a file read-only when it may not write it, and
//! stays so.

use super::open::unavailable;
use crate::store::StoreError;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, Executor as _, Transaction};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A change under way.
pub(super) type Tx = Transaction<'static, Sqlite>;

/// So long a change waits for those before it.
pub(super) const TURN: Duration = Duration::from_secs(30);

/// Changes come one after the other, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Writer {
    pool: SqlitePool,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    /// No change could begin on the connection: the next one opens another.
    given_up: Arc<AtomicBool>,
    /// A change could not begin or be made durable, and none that writes was since.
    failing: AtomicBool,
    /// How many changes have begun that may write, and which of them was the last to be made: another
    /// one, as long as one is under way, was undone, or may be made yet.
    begun: AtomicU64,
    made: AtomicU64,
    grows: watch::Sender<()>,
}

impl Writer {
    pub(super) async fn open(
        path: PathBuf,
        options: SqliteConnectOptions,
    ) -> Result<Self, StoreError> {
        let file = identity(&std::fs::metadata(&path).map_err(unavailable)?);
        let given_up = Arc::<AtomicBool>::default();
        let gives_up = Arc::clone(&given_up);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(TURN)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .before_acquire(move |_, _| {
                let keeps = !gives_up.swap(false, Ordering::Relaxed);
                Box::pin(async move { Ok(keeps) })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    // Behind the rollback, if one is under way.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            });
        let pool = pool.connect_with(options).await.map_err(unavailable)?;
        let grows = watch::Sender::default();
        Ok(Self {
            pool,
            path,
            file,
            given_up,
            failing: AtomicBool::new(false),
            begun: AtomicU64::default(),
            made: AtomicU64::default(),
            grows,
        })
    }

    /// Changes after each commit that may have added to the audit log.
    pub(super) fn log_grows(&self) -> watch::Receiver<()> {
        self.grows.subscribe()
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Begins a change that no other can come between.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let tx = self.begin_uncounted().await?;
        // Whatever was in doubt is over: this one could not have begun beside it.
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(tx)
    }

    async fn begin_uncounted(&self) -> Result<Tx, StoreError> {
        let tx = self
            .pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|error| {
                self.given_up.store(true, Ordering::Relaxed);
                self.failing.store(true, Ordering::Relaxed);
                unavailable(error)
            })?;
        self.still_there()?;
        Ok(tx)
    }

    /// What tells one state of the record from the next; `None` while it changes, or may.
    pub(super) fn changes(&self) -> Option<u64> {
        let made = self.made.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) == made).then_some(made)
    }

    /// An empty change, which tells whether changes are taken. A full disk takes one that writes
    /// nothing: after a failure this one writes.
    pub(super) async fn try_change(&self) -> Result<(), StoreError> {
        let mut tx = self.begin_uncounted().await?;
        let failing = self.failing.load(Ordering::Relaxed);
        // One that writes nothing is no change, but an end of doubt about the last one.
        if failing || self.changes().is_none() {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        if failing {
            // SQLite does not write what has not changed: a row comes, and goes.
            let page = "INSERT INTO meta (key, value) VALUES ('tried', 1);
                DELETE FROM meta WHERE key = 'tried'";
            tx.execute(page).await.map_err(unavailable)?;
        }
        self.commit(tx).await?;
        if failing {
            self.failing.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the change durable. A commit that fails may have been made.
    pub(super) async fn commit(&self, tx: Tx) -> Result<(), StoreError> {
        // The next one may begin before this one goes on here.
        let this = self.begun.load(Ordering::SeqCst);
        tx.commit().await.map_err(|error| {
            self.failing.store(true, Ordering::Relaxed);
            StoreError::Unknown(error.into())
        })?;
        self.made.fetch_max(this, Ordering::SeqCst);
        Ok(())
    }

    /// Makes a change durable that may have added to the audit log, and wakes those who follow it.
    pub(super) async fn commit_log(&self, tx: Tx) -> Result<(), StoreError> {
        let done = self.commit(tx).await;
        self.grows.send_replace(());
        done
    }

    /// SQLite goes on writing into a file that was taken away; nobody would find it again.
    fn still_there(&self) -> Result<(), StoreError> {
        let found = std::fs::metadata(&self.path).map_err(unavailable)?;
        if identity(&found) == self.file {
            return Ok(());
        }
        let text = format!(
            "{} is no longer the file that was opened",
            self.path.display()
        );
        Err(unavailable(io::Error::other(text)))
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
