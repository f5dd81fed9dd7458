//! What somebody's hand can do to the rows, and what it cannot.

use crate::by_hand;
use livemerge_api_server::snapshot::{EventKind, NewEvent, Severity};
use livemerge_api_server::store::conformance::records::{
    event, everything, full_change, host, id, log, operation, request, snapshot, vm,
};
use livemerge_api_server::store::{
    EventFilter, OperationFilter, Page, SqliteStore, Store, StoreError, VmFilter,
};
use livemerge_proto::ids::{OperationId, SnapshotId, VmId};
use std::fmt::Debug;
use std::path::Path;

/// Machines 1 and 2, each with snapshot, operation, request, event, and a host.
async fn seeded(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.unwrap();
    for number in [1, 2] {
        store
            .put_host(&host(&format!("h{number}"), 1), None)
            .await
            .unwrap();
        store
            .put_vms(&[vm(number, "web", &format!("h{number}"))])
            .await
            .unwrap();
        let mut change = full_change(
            &operation(number, number),
            &snapshot(number, number, "a"),
            "",
        );
        change.events = vec![NewEvent {
            vm: Some(id(number)),
            ..event("whole")
        }];
        store.accept(&request(number), &change).await.unwrap();
    }
    store
}

async fn spoil(path: &Path, sql: &'static str) {
    let mut hand = by_hand(path).await;
    let key = id::<VmId>(1).to_string();
    let done = sqlx::query(sql).bind(key).execute(&mut hand).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{sql}");
}

/// It fails, and says which row is to blame.
fn blames<T: Debug>(outcome: Result<T, StoreError>, row: &str) {
    match outcome {
        Err(StoreError::Corrupt(text)) => assert!(text.starts_with(row), "{text:?}, not {row:?}"),
        other => panic!("{other:?}"),
    }
}

const DOCUMENTS: [&str; 5] = ["", "{", "null", "[1,2]", "{\"id\":\"no id\"}"];

#[tokio::test]
async fn a_spoilt_snapshot_is_named_and_hides_no_other() {
    for document in DOCUMENTS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.db");
        let store = seeded(&path).await;
        let mut hand = by_hand(&path).await;
        let update = sqlx::query("UPDATE snapshots SET record = ? WHERE id = ?");
        let update = update.bind(document).bind(id::<SnapshotId>(1).to_string());
        update.execute(&mut hand).await.unwrap();

        let row = format!("snapshot {}: ", id::<SnapshotId>(1));
        blames(store.snapshot(id(1)).await, &row);
        blames(store.snapshots(None, &everything()).await, &row);
        blames(store.snapshots(Some(id(1)), &everything()).await, &row);
        assert!(store.snapshot(id(2)).await.unwrap().is_some());
        assert_eq!(
            store
                .snapshots(Some(id(2)), &everything())
                .await
                .unwrap()
                .len(),
            1
        );
        let behind = Page {
            after: Some(id(1)),
            limit: 9,
        };
        assert_eq!(store.snapshots(None, &behind).await.unwrap().len(), 1);
        // And work goes on.
        let next = full_change(&operation(3, 2), &snapshot(3, 2, "b"), "goes on");
        store.apply(&next).await.unwrap();
    }
}

#[tokio::test]
async fn a_spoilt_operation_is_named_and_hides_no_other() {
    for sql in [
        "UPDATE operations SET record = '{}' WHERE id = ?",
        "UPDATE operations SET record = replace(record, '\"queued\"', '\"lost\"') WHERE id = ?",
        "UPDATE operations SET revision = -1 WHERE id = ?",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.db");
        let store = seeded(&path).await;
        spoil(&path, sql).await;
        let row = format!("operation {}: ", id::<OperationId>(1));
        blames(store.operation(id(1)).await, &row);
        blames(store.open_operations().await, &row);
        blames(
            store
                .operations(&OperationFilter::default(), &everything())
                .await,
            &row,
        );
        blames(store.repeated(&request(1)).await, &row);
        let again = full_change(&operation(3, 1), &snapshot(3, 1, "b"), "never");
        blames(store.accept(&request(1), &again).await, &row);
        assert!(store.operation(id(2)).await.unwrap().is_some());
        let of_other = OperationFilter {
            vm: Some(id(2)),
            ..OperationFilter::default()
        };
        assert_eq!(
            store
                .operations(&of_other, &everything())
                .await
                .unwrap()
                .len(),
            1
        );
        assert!(store.repeated(&request(2)).await.unwrap().is_some());
        assert_eq!(store.operation(id(3)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_spoilt_host_machine_or_event_is_named_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = seeded(&path).await;
    spoil(&path, "UPDATE vms SET host_id = 'No Host' WHERE id = ?").await;
    let row = format!("virtual machine {}: host_id \"No Host\"", id::<VmId>(1));
    blames(store.vm(id(1)).await, &row);
    blames(store.vms(&VmFilter::default(), &everything()).await, &row);
    let of_host = VmFilter {
        host: Some("h2".parse().unwrap()),
        name: None,
    };
    assert_eq!(
        store.vms(&of_host, &everything()).await.unwrap(),
        [vm(2, "web", "h2")]
    );
    // What is seen anew is right again.
    store.put_vms(&[vm(1, "web", "h1")]).await.unwrap();
    assert_eq!(store.vm(id(1)).await.unwrap(), Some(vm(1, "web", "h1")));

    spoil(
        &path,
        "INSERT INTO events (vm_id, record) VALUES (?, '{\"kind\":\"tea\"}')",
    )
    .await;
    let filter = |number| EventFilter {
        vm: Some(id(number)),
        ..EventFilter::default()
    };
    blames(store.events(&filter(1), &everything()).await, "event 3: ");
    // What cannot be told is not left out as if it did not fit.
    let least = EventFilter {
        least: Some(Severity::Error),
        ..filter(1)
    };
    blames(store.events(&least, &everything()).await, "event 3: ");
    assert_eq!(
        store.events(&filter(2), &everything()).await.unwrap().len(),
        1
    );
    let first = Page {
        after: None,
        limit: 2,
    };
    assert_eq!(
        store
            .events(&EventFilter::default(), &first)
            .await
            .unwrap()
            .len(),
        2
    );

    spoil(&path, "INSERT INTO hosts VALUES ('UPPER', '', 0, ?)").await;
    blames(store.hosts().await, "host UPPER: ");
}

/// A document that is none at all does not stand in the way of the others.
#[tokio::test]
async fn a_spoilt_event_fails_a_search_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = seeded(&path).await;
    let sql = "INSERT INTO events (vm_id, record) VALUES (?, '{')";
    spoil(&path, sql).await;
    let wanted = EventFilter {
        kinds: vec![EventKind::HostUp],
        ..EventFilter::default()
    };
    blames(store.events(&wanted, &everything()).await, "event 3: ");
    let of_other = EventFilter {
        vm: Some(id(2)),
        ..wanted
    };
    assert_eq!(store.events(&of_other, &everything()).await.unwrap(), []);
}

/// Not even by hand, whole or in part.
#[tokio::test]
async fn the_audit_log_cannot_be_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = seeded(&path).await;
    let before = log(&store).await;
    let mut hand = by_hand(&path).await;
    for (sql, why) in [
        ("UPDATE events SET record = '{}'", "is not changed"),
        (
            "UPDATE events SET revision = 9 WHERE revision = 1",
            "is not changed",
        ),
        ("DELETE FROM events", "nothing is taken out"),
        (
            "DELETE FROM events WHERE revision = 2",
            "nothing is taken out",
        ),
        (
            "REPLACE INTO events (revision, record) VALUES (1, '{}')",
            "nothing is replaced",
        ),
        (
            "INSERT INTO events (revision, record) VALUES (1, '{}') ON CONFLICT DO UPDATE SET record = '{}'",
            "nothing is replaced",
        ),
    ] {
        let error = sqlx::query(sql).execute(&mut hand).await.expect_err(sql);
        assert!(error.to_string().contains(why), "{sql}: {error}");
    }
    assert_eq!(log(&store).await, before);
}
