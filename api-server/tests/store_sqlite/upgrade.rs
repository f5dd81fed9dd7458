//! A database of an older program: a copy first, then the migrations, and every row is still there.

use crate::{at_rest, by_hand, unavailable};
use livemerge_api_server::store::conformance::records::{
    everything, full_change, host, id, log, operation, request, snapshot, vm,
};
use livemerge_api_server::store::{SqliteStore, Store as _};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const FIRST: &str = include_str!("../../migrations/0001_initial.sql");

/// A file as the program of the first schema left it, with something of each kind.
pub(crate) async fn of_the_first_schema(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    store.put_host(&host("a", 3), None).await.unwrap();
    store.put_vms(&[vm(1, "web", "a")]).await.unwrap();
    let change = full_change(&operation(1, 1), &snapshot(1, 1, "a"), "told");
    store.accept(&request(1), &change).await.unwrap();
    drop(store);
    at_rest(path).await;
    // The rows that such a program writes are the same; what came later is taken away.
    let kept = path.with_extension("rows");
    fs::rename(path, &kept).unwrap();
    let mut hand = by_hand_new(path).await;
    sqlx::raw_sql(FIRST).execute(&mut hand).await.unwrap();
    let rows = format!(
        "ATTACH '{}' AS new;
         DELETE FROM meta;
         INSERT INTO meta SELECT key, value FROM new.meta WHERE key = 'generation';
         INSERT INTO hosts SELECT * FROM new.hosts;
         INSERT INTO vms SELECT * FROM new.vms;
         INSERT INTO snapshots SELECT * FROM new.snapshots;
         INSERT INTO operations SELECT * FROM new.operations;
         INSERT INTO requests SELECT * FROM new.requests;
         INSERT INTO events SELECT revision, vm_id, operation_id, record FROM new.events;
         CREATE TABLE _sqlx_migrations AS SELECT * FROM new._sqlx_migrations WHERE version = 1;
         DETACH new;",
        kept.display()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows))
        .execute(&mut hand)
        .await
        .unwrap();
    sqlx::Connection::close(hand).await.unwrap();
    fs::remove_file(kept).unwrap();
}

async fn by_hand_new(path: &Path) -> sqlx::sqlite::SqliteConnection {
    fs::File::create_new(path).unwrap();
    by_hand(path).await
}

/// How many rows a table has, in the words of another program.
async fn count(path: &Path, sql: &'static str) -> i64 {
    let mut hand = by_hand(path).await;
    sqlx::query_scalar(sql).fetch_one(&mut hand).await.unwrap()
}

pub(crate) async fn schema(path: &Path) -> i64 {
    count(path, "SELECT max(version) FROM _sqlx_migrations").await
}

#[tokio::test]
async fn an_older_database_is_copied_and_then_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    of_the_first_schema(&path).await;
    assert_eq!(schema(&path).await, 1);

    // What an earlier try that was killed has left is in nobody's way.
    let copy = dir.path().join("record.db.schema-1");
    fs::write(dir.path().join("record.db.schema-1.new"), "half a copy").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.hosts().await.unwrap(), [host("a", 3)]);
    assert_eq!(store.vm(id(1)).await.unwrap(), Some(vm(1, "web", "a")));
    let snapshots = store.snapshots(None, &everything()).await.unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(
        store.repeated(&request(1)).await.unwrap().unwrap().id,
        id(1)
    );
    assert_eq!(log(&store).await[0].entry.message, "told");
    assert!(store.maintenance().await.unwrap().is_empty());
    drop(store);
    at_rest(&path).await;
    assert!(schema(&path).await > 1);

    let mode = copy.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join("record.db.schema-1.new").exists());
    assert_eq!(schema(&copy).await, 1);
    assert_eq!(count(&copy, "SELECT count(*) FROM events").await, 1);
    let later = "SELECT count(*) FROM sqlite_schema WHERE name = 'maintenance'";
    assert_eq!(count(&copy, later).await, 0, "as it was");

    // The older program's way back, and this one's way forth again.
    fs::copy(&copy, &path).unwrap();
    drop(SqliteStore::open(&path).await.unwrap());
}

#[tokio::test]
async fn what_is_new_or_up_to_date_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    for _round in 0..2 {
        drop(SqliteStore::open(&path).await.unwrap());
        let names = fs::read_dir(dir.path())
            .unwrap()
            .map(|it| it.unwrap().file_name());
        let copies = names.filter(|name| name.to_string_lossy().contains("schema-"));
        assert_eq!(copies.count(), 0);
    }
}

#[tokio::test]
async fn without_a_copy_nothing_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    of_the_first_schema(&path).await;
    // Nothing can be renamed onto it.
    fs::create_dir_all(dir.path().join("record.db.schema-1/in-the-way")).unwrap();
    let text = unavailable(SqliteStore::open(&path).await);
    assert!(
        text.contains("record.db.schema-1 cannot be written"),
        "{text}"
    );
    assert_eq!(schema(&path).await, 1);
}

/// The program itself: one line that says what to do, and a status that is none of success.
#[tokio::test]
async fn the_program_refuses_a_newer_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let mut hand = by_hand(&path).await;
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (7000, 'of tomorrow', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut hand).await.unwrap();
    sqlx::Connection::close(hand).await.unwrap();
    at_rest(&path).await;
    let known = count(
        &path,
        "SELECT max(version) FROM _sqlx_migrations WHERE version < 7000",
    );
    let copy = format!("record.db.schema-{}", known.await);
    fs::write(dir.path().join(&copy), "").unwrap();

    let config = dir.path().join("server.toml");
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[console]\nlisten = \"\"\n[store]\npath = {:?}\n",
        path.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_livemerge-api-server"))
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let line = said.lines().last().unwrap();
    for part in ["error: ", "schema 7000", "start the newer", &copy] {
        assert!(line.contains(part), "{said}");
    }
}
