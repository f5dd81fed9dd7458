//! The program is asked to end while it opens a database that takes its time.

use crate::upgrade::{of_the_first_schema, schema};
use crate::{at_rest, by_hand};
use livemerge_api_server::store::SqliteStore;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// For what must come.
const SOON: Duration = Duration::from_secs(60);

/// The second migration adds a row to `meta`, and never comes to its end.
async fn never_migrated(path: &Path) {
    of_the_first_schema(path).await;
    let mut hand = by_hand(path).await;
    let endless = "CREATE VIEW endless AS
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS s FROM n;
         CREATE TRIGGER never AFTER INSERT ON meta BEGIN SELECT s FROM endless; END;";
    sqlx::raw_sql(endless).execute(&mut hand).await.unwrap();
    sqlx::Connection::close(hand).await.unwrap();
}

/// The program on a database, ended with the test.
fn program(dir: &Path, database: &Path) -> Child {
    let config = dir.join("server.toml");
    let text = format!(
        "[listen]\naddress = \"unix:{}\"\n[store]\npath = {database:?}\n",
        dir.join("api.sock").display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_livemerge-api-server"));
    command.arg("--config").arg(config).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn is_there(path: &Path) {
    let looks = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.unwrap();
}

/// It ends as it should when it is asked to, and the database is as before.
async fn ends(mut program: Child, database: &Path) {
    // The migrations follow the copy.
    is_there(&database.with_extension("db.schema-1")).await;
    let pid = Pid::from_raw(program.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(SOON, program.wait()).await;
    let ended = ended.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0), "{ended}");

    assert_eq!(schema(database).await, 1);
    let mut hand = by_hand(database).await;
    let relieved = sqlx::raw_sql("DROP TRIGGER never; DROP VIEW endless;");
    relieved.execute(&mut hand).await.unwrap();
    sqlx::Connection::close(hand).await.unwrap();
    drop(SqliteStore::open(database).await.unwrap());
    at_rest(database).await;
    assert!(schema(database).await > 1);
}

#[tokio::test]
async fn a_signal_ends_a_start_within_a_migration() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("record.db");
    never_migrated(&database).await;
    ends(program(dir.path(), &database), &database).await;
}

#[tokio::test]
async fn a_signal_ends_a_server_whose_database_came_late_and_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let (home, elsewhere) = (dir.path().join("home"), dir.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    never_migrated(&elsewhere.join("record.db")).await;
    let database = home.join("record.db");
    let program = program(dir.path(), &database);
    is_there(&dir.path().join("api.sock")).await;
    fs::rename(&elsewhere, &home).unwrap();
    ends(program, &database).await;
}
