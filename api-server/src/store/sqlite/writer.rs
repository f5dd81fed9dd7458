//! The one connection that writes, and the transactions on it.
//!
//! A transaction that is not committed (an error, a caller that went away) is rolled back. If even
//! that fails (SQLite ends a transaction by itself when the disk is full or breaks) the connection
//! is given up and the next change opens another, so that a fault lasts no longer than its cause.

use super::open::unavailable;
use crate::store::StoreError;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, Transaction};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// A change under way.
pub(super) type Tx = Transaction<'static, Sqlite>;

/// So long a change waits for those before it.
const TURN: Duration = Duration::from_secs(30);

/// Changes come one after the other, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Writer {
    pool: SqlitePool,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    grows: watch::Sender<()>,
}

impl Writer {
    pub(super) async fn open(
        path: PathBuf,
        options: SqliteConnectOptions,
    ) -> Result<Self, StoreError> {
        let file = identity(&std::fs::metadata(&path).map_err(unavailable)?);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(TURN)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
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
        let tx = self
            .pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(unavailable)?;
        self.still_there()?;
        Ok(tx)
    }

    /// Makes a change durable that may have added to the audit log, and wakes those who follow it.
    pub(super) async fn commit_log(&self, tx: Tx) -> Result<(), StoreError> {
        let done = commit(tx).await;
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

/// Makes the change durable. A commit that fails may have been made.
pub(super) async fn commit(tx: Tx) -> Result<(), StoreError> {
    tx.commit()
        .await
        .map_err(|error| StoreError::Unknown(error.into()))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
