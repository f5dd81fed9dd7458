//! Opening: what is found again, and what is refused.

use crate::{at_rest, by_hand, contents, unavailable};
use livemerge_api_server::snapshot::{Operation, OperationState, VmRecord};
use livemerge_api_server::store::conformance::records::{
    change, event, everything, full_change, host, id, log, operation, request, snapshot, vm,
};
use livemerge_api_server::store::{Accepted, SqliteStore, Store as _, VmFilter};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

#[tokio::test]
async fn reopening_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let mut first = None;
    let mut events = vec![];
    for round in 1..=5_u64 {
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.next_generation().await.unwrap(), round);
        assert_eq!(log(&store).await, events);
        if let Some(first) = first.take() {
            assert_eq!(store.operation(id(1)).await.unwrap(), Some(first));
        }
        for number in 1..round {
            assert_eq!(
                store.vm(id(number)).await.unwrap(),
                Some(vm(number, "web", "a"))
            );
            let kept = store.snapshot(id(number)).await.unwrap().unwrap();
            assert_eq!((kept.revision, kept.vm), (1, id(number)));
            let known = store.repeated(&request(number)).await.unwrap().unwrap();
            assert_eq!(known.id, id(number));
        }
        store
            .put_host(&host("a", round), Some(&event("host")))
            .await
            .unwrap();
        store.put_vms(&[vm(round, "web", "a")]).await.unwrap();
        let of_round = full_change(
            &operation(round, round),
            &snapshot(round, round, "a"),
            "round",
        );
        let accepted = store.accept(&request(round), &of_round).await.unwrap();
        assert!(matches!(accepted, Accepted::New(_)));
        let running = Operation {
            state: OperationState::Running,
            ..store.operation(id(1)).await.unwrap().unwrap()
        };
        first = Some(store.apply(&change(&running)).await.unwrap());
        events = log(&store).await;
        // Dropped without a word, as a killed server does.
    }
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.hosts().await.unwrap(), [host("a", 5)]);
    let vms: Vec<VmRecord> = (1..=5).map(|number| vm(number, "web", "a")).collect();
    assert_eq!(
        store
            .vms(&VmFilter::default(), &everything())
            .await
            .unwrap(),
        vms
    );
}

#[tokio::test]
async fn a_log_keeps_its_number_and_no_other_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = vec![];
    for name in ["a.db", "a.db", "b.db"] {
        let store = SqliteStore::open(&dir.path().join(name)).await.unwrap();
        numbers.push(store.log_end().await.unwrap().log);
    }
    assert_eq!(numbers[0], numbers[1]);
    assert_ne!(numbers[0], numbers[2]);
}

#[tokio::test]
async fn a_second_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let alias = dir.path().join("alias.db");
    symlink(&path, &alias).unwrap();
    let first = SqliteStore::open(&path).await.unwrap();
    for name in [&path, &alias, &dir.path().join("./record.db")] {
        let refused = SqliteStore::open(name).await;
        assert!(refused.as_ref().is_err_and(|error| !error.may_pass()));
        let text = unavailable(refused);
        assert!(text.contains("another server has it open"), "{text}");
    }
    first.add_events(&[event("still mine")]).await.unwrap();
    drop(first);
    let second = SqliteStore::open(&alias).await.unwrap();
    assert_eq!(log(&second).await.len(), 1);
    unavailable(SqliteStore::open(&path).await);
}

#[tokio::test]
async fn only_the_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("record.db"))
        .await
        .unwrap();
    store.add_events(&[event("secret")]).await.unwrap();
    let files: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(files.len(), 4, "database, log, its index, lock: {files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

/// Names that SQLite or a URI would take for something else.
#[tokio::test]
async fn a_name_is_a_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        ":memory:",
        "a b.db",
        "a?mode=memory",
        "a#b%20c&d.db",
        "file:x",
        "日本.db",
    ] {
        let path = dir.path().join(name);
        let store = SqliteStore::open(&path).await.unwrap();
        store.add_events(&[event(name)]).await.unwrap();
        drop(store);
        assert!(fs::metadata(&path).unwrap().len() > 0, "{name}");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(log(&store).await[0].entry.message, name);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let change_history = async |sql: &'static str| {
        let mut hand = by_hand(&path).await;
        sqlx::query(sql).execute(&mut hand).await.unwrap();
    };
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (7, 'of tomorrow', TRUE, x'00', 0)";
    change_history(newer).await;
    at_rest(&path).await;
    let before = contents(dir.path());
    let text = unavailable(SqliteStore::open(&path).await);
    assert!(
        text.contains("its schema 7 is newer than this program knows"),
        "{text}"
    );
    at_rest(&path).await;
    assert!(contents(dir.path()) == before, "it is as it was");

    change_history("DELETE FROM _sqlx_migrations WHERE version = 7").await;
    drop(SqliteStore::open(&path).await.unwrap());
    change_history("UPDATE _sqlx_migrations SET checksum = x'00'").await;
    let text = unavailable(SqliteStore::open(&path).await);
    assert!(text.contains("migration 1"), "{text}");
}

/// What lies there is no database, or there is no there: it stays as it is.
#[tokio::test]
async fn what_is_no_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    let text = "not a database, but somebody's notes\n".repeat(300);
    fs::write(&file, &text).unwrap();
    let refused = unavailable(SqliteStore::open(&file).await);
    assert!(refused.contains("not a database"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let cases = [
        (dir.path().to_owned(), "directory"),
        (dir.path().join("missing/record.db"), "No such file"),
        (file.join("record.db"), "Not a directory"),
    ];
    for (path, why) in cases {
        let refused = unavailable(SqliteStore::open(&path).await);
        assert!(refused.contains(why), "{}: {refused}", path.display());
    }
    assert!(!dir.path().join("missing").exists());
}
