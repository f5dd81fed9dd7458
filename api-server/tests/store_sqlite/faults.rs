//! A file that may not be written, is locked, or was taken away.

use crate::{at_rest, by_hand, contents, history, unavailable};
use livemerge_api_server::store::SqliteStore;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

/// Makes permissions count for root too: in this thread and those that it begins, which are the
/// connections'.
fn as_anybody() {
    let mut own = capabilities(None).unwrap();
    own.effective
        .remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, own).unwrap();
}

#[tokio::test]
async fn what_may_not_be_written_is_refused_and_left_as_it_is() {
    as_anybody();
    for (what, mode) in [("", 0o500), ("record.db", 0o400), ("record.db.lock", 0o400)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.db");
        let store = SqliteStore::open(&path).await.unwrap();
        history::step(&store, 0).await.unwrap();
        drop(store);
        at_rest(&path).await;
        let before = contents(dir.path());
        let object = dir.path().join(what);
        let writable = fs::metadata(&object).unwrap().permissions();
        fs::set_permissions(&object, Permissions::from_mode(mode)).unwrap();
        let text = unavailable(SqliteStore::open(&path).await);
        fs::set_permissions(&object, writable).unwrap();
        assert!(contents(dir.path()) == before, "{what}: {text}");
        assert_eq!(
            history::steps(&SqliteStore::open(&path).await.unwrap()).await,
            1
        );
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let text = unavailable(SqliteStore::open(&dir.path().join("record.db")).await);
    assert!(text.contains("Permission denied"), "{text}");
    assert!(contents(dir.path()).is_empty());
}

/// Somebody's shell holds the write lock: changes are refused, reading goes on.
#[tokio::test]
async fn a_lock_of_another_program_is_waited_for_and_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    history::step(&store, 0).await.unwrap();
    let mut hand = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut hand)
        .await
        .unwrap();
    let text = unavailable(history::step(&store, 1).await);
    assert!(text.contains("locked"), "{text}");
    assert_eq!(history::steps(&store).await, 1);
    // One that is let go of in time is no error.
    let (step, _) = futures::join!(
        history::step(&store, 1),
        sqlx::query("ROLLBACK").execute(&mut hand)
    );
    step.unwrap();
    assert_eq!(history::steps(&store).await, 2);
}

/// SQLite itself would go on writing into what no name leads to any more.
#[tokio::test]
async fn a_file_that_was_taken_away_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    history::step(&store, 0).await.unwrap();
    let aside = dir.path().join("aside.db");
    fs::rename(&path, &aside).unwrap();
    unavailable(history::step(&store, 1).await);
    fs::copy(&aside, &path).unwrap();
    let text = unavailable(history::step(&store, 1).await);
    assert!(text.contains("no longer the file"), "{text}");
    fs::rename(&aside, &path).unwrap();
    history::step(&store, 1).await.unwrap();
    assert_eq!(history::steps(&store).await, 2);
}
