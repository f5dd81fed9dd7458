//! Opens the file: lock, settings, migrations.

use super::SqliteStore;
use crate::store::StoreError;
use rustix::fs::{FlockOperation, flock};
use sqlx::ConnectOptions as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::Mutex;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");
const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);

pub(super) async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    let lock = lock(path)?;
    // The record names volumes and callers: it is the owner's alone.
    let mut create = OpenOptions::new();
    create
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(unavailable)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY);
    let mut writer = options.connect().await.map_err(unavailable)?;
    MIGRATIONS
        .run(&mut writer)
        .await
        .map_err(|error| match error {
            MigrateError::VersionMissing(version) => {
                let text = format!("its schema {version} is newer than this program knows");
                unavailable(io::Error::other(text))
            }
            other => unavailable(other),
        })?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY);
    let readers = readers
        .connect_with(options.read_only(true))
        .await
        .map_err(unavailable)?;
    Ok(SqliteStore {
        writer: Mutex::new(writer),
        readers,
        _lock: lock,
    })
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
        let why = if errno == rustix::io::Errno::WOULDBLOCK {
            "another server has it open".to_owned()
        } else {
            errno.to_string()
        };
        unavailable(io::Error::other(format!(
            "{}: {why}",
            Path::new(&beside).display()
        )))
    })?;
    Ok(file)
}

/// Nothing was written.
pub(super) fn unavailable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable(error.into())
}
