//! The record in SQLite: the suite of every store, and what is only a file's matter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancel;
mod child;
mod crash;
mod faults;
mod full;
mod history;
mod open;
mod rows;
mod stop;
mod together;
mod upgrade;

use livemerge_api_server::store::{SqliteStore, Store, StoreError, conformance};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let made = AtomicU32::new(0);
    conformance::all(async || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let store = SqliteStore::open(&dir.path().join(format!("{number}.db"))).await;
        Arc::new(store.unwrap()) as Arc<dyn Store>
    })
    .await;
}

/// The file as another program's hand has it.
async fn by_hand(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap()
}

/// Why the database cannot be used, with all causes.
fn unavailable<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    let error = outcome.expect_err("it should be refused");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The names in a directory with what the files hold.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let named = files.map(|file| {
        (
            file.file_name().into_string().unwrap(),
            fs::read(file.path()).unwrap(),
        )
    });
    named.collect()
}

/// Waits until the store's threads are gone, and with them the log: nobody writes any more.
async fn at_rest(path: &Path) {
    let log = path.with_extension("db-wal");
    while log.exists() {
        let mut hand = by_hand(path).await;
        // Who has read is who takes the log into the database when it is the last to go.
        let look = sqlx::query("SELECT value FROM meta");
        look.execute(&mut hand).await.unwrap();
        hand.close().await.unwrap();
    }
}
