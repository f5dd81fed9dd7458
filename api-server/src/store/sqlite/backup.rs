//! A copy of the database as it is, before a newer program changes its schema.
//!
//! ```text
//!   api-server.db               schema 2, and the program knows 3
//!   api-server.db.schema-2.new  the copy that is being made
//!   api-server.db.schema-2      the copy, whole and on disk; then the migrations run
//! ```
//!
//! It is what the older program is started on if one goes back. There is one for each schema: a later
//! migration from the same one replaces it. Nothing here removes it.

use super::open::unavailable;
use crate::store::StoreError;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqlitePool;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Copies a database that has a schema and lacks some of these migrations. One that is empty, up to
/// date or newer is left alone.
///
/// # Errors
/// When the copy cannot be made durable. Nothing was changed then.
pub(super) async fn before(
    migrations: &Migrator,
    pool: &SqlitePool,
    path: &Path,
) -> Result<(), StoreError> {
    let Some(schema) = schema(pool).await? else {
        return Ok(());
    };
    let known = migrations.iter().map(|migration| migration.version).max();
    if known.is_none_or(|known| schema >= known) {
        return Ok(());
    }
    let copy = beside(path, &format!("schema-{schema}"));
    write(pool, &copy).await.map_err(|error| {
        let text = format!("{} cannot be written: {error}", copy.display());
        unavailable(io::Error::other(text))
    })?;
    tracing::info!(copy = %copy.display(), schema, "the database was copied, and is migrated now");
    Ok(())
}

/// The copy of the database as an older program left it, if there is one.
pub(super) fn of_schema(path: &Path, schema: i64) -> Option<PathBuf> {
    let copy = beside(path, &format!("schema-{schema}"));
    copy.exists().then_some(copy)
}

/// The last migration that was applied; `None` for an empty database.
async fn schema(pool: &SqlitePool) -> Result<Option<i64>, StoreError> {
    let history = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let found: i64 = sqlx::query_scalar(history)
        .fetch_one(pool)
        .await
        .map_err(unavailable)?;
    if found == 0 {
        return Ok(None);
    }
    let last = "SELECT max(version) FROM _sqlx_migrations";
    sqlx::query_scalar(last)
        .fetch_one(pool)
        .await
        .map_err(unavailable)
}

async fn write(pool: &SqlitePool, copy: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut new = copy.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // SQLite takes an empty file, which is the owner's alone.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let name = new.to_str().ok_or("its name is no text")?;
    sqlx::query("VACUUM INTO ?")
        .bind(name)
        .execute(pool)
        .await?;
    file.sync_all()?;
    fs::rename(&new, copy)?;
    let dir = copy.parent().ok_or("it lies nowhere")?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
