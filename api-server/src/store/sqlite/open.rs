//! Opens the file: lock, settings, a copy if it is to be migrated, migrations.

use super::SqliteStore;
use super::backup;
use super::recent::Recent;
use super::together::Together;
use super::writer::Writer;
use crate::store::StoreError;
use rustix::fs::{FlockOperation, flock};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");
const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);

pub(super) async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    // The record names volumes and callers: it is the owner's alone.
    let mut create = OpenOptions::new();
    create
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(unavailable)?;
    // One file has one lock, by whatever name it is opened.
    let path = path.canonicalize().map_err(unavailable)?;
    let lock = lock(&path)?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY);
    let writer = Writer::open(path.clone(), options.clone()).await?;
    backup::before(&MIGRATIONS, writer.pool(), &path).await?;
    MIGRATIONS
        .run(writer.pool())
        .await
        .map_err(|error| match error {
            MigrateError::VersionMissing(version) => newer(&path, version),
            other => unavailable(other),
        })?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        // A file does not hang up.
        .test_before_acquire(false)
        .acquire_timeout(BUSY);
    let readers = readers
        .connect_with(options.read_only(true))
        .await
        .map_err(unavailable)?;
    Ok(SqliteStore {
        writer,
        together: Together::default(),
        readers,
        recent: Recent::default(),
        _lock: lock,
    })
}

/// Refuses what a newer program has made.
fn newer(path: &Path, version: i64) -> StoreError {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max();
    let known = known.unwrap_or_default();
    let copy = match backup::of_schema(path, known) {
        Some(copy) => format!(
            ", or put {} in its place, which lacks what happened since",
            copy.display()
        ),
        None => String::new(),
    };
    let text = format!(
        "its schema {version} is newer than this program knows, which is {known}: start the newer \
         livemerge-api-server{copy}"
    );
    unavailable(io::Error::new(ErrorKind::Unsupported, text))
}

/// Held as long as the file is open; the kernel lets go of it when the process ends, however.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&beside)
        .map_err(unavailable)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        let (kind, why) = if errno == rustix::io::Errno::WOULDBLOCK {
            let why = "another server has it open".to_owned();
            (ErrorKind::ResourceBusy, why)
        } else {
            (ErrorKind::Other, errno.to_string())
        };
        let text = format!("{}: {why}", Path::new(&beside).display());
        unavailable(io::Error::new(kind, text))
    })?;
    Ok(file)
}

/// Nothing was written.
pub(super) fn unavailable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Sqlite, pool::Pool};

    async fn setting(pool: &Pool<Sqlite>, name: &'static str) -> i64 {
        sqlx::query_scalar(name).fetch_one(pool).await.unwrap()
    }

    /// What a loss of power leaves rests on these; no test can take the power away.
    #[tokio::test]
    async fn every_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("record.db")).await.unwrap();
        let writer = store.writer.pool();
        assert_eq!(setting(writer, "PRAGMA synchronous").await, 2, "FULL");
        assert_eq!(setting(writer, "PRAGMA foreign_keys").await, 1);
        let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
        assert_eq!(mode.fetch_one(writer).await.unwrap(), "wal");
        // Readers cannot write, whatever they are asked.
        let write = sqlx::query("UPDATE meta SET value = 9")
            .execute(&store.readers)
            .await;
        assert!(write.unwrap_err().to_string().contains("readonly"));
    }
}
