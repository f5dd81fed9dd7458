//! Changes that are asked for at the same time.

use crate::{by_hand, history};
use futures::future::{join, join_all};
use futures::poll;
use livemerge_api_server::snapshot::OperationState;
use livemerge_api_server::store::conformance::records::{
    change, everything, full_change, id, operation, request, snapshot, state,
};
use livemerge_api_server::store::{
    Accepted, Change, RequestRecord, SqliteStore, StateName, Store as _, StoreError,
};
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

/// So many commits are in the write-ahead log: each frame that ends one has the size of the file then.
fn commits(path: &Path) -> usize {
    let log = fs::read(path.with_extension("db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let page = usize::try_from(number(8)).unwrap();
    let frames = (32..log.len()).step_by(24 + page);
    frames.filter(|at| number(at + 4) > 0).count()
}

#[tokio::test]
async fn they_wait_for_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let before = commits(&path);
    let asked: Vec<_> = (1..=200)
        .map(|of| {
            let name = format!("snapshot {of}");
            full_change(&operation(of, of), &snapshot(of, of, &name), "asked for")
        })
        .collect();
    let requests: Vec<_> = (1..=200).map(request).collect();
    let accept = |(request, change)| store.accept(request, change);
    let accepted = join_all(requests.iter().zip(&asked).map(accept)).await;
    for (number, accepted) in (1..).zip(accepted) {
        let Ok(Accepted::New(operation)) = accepted else {
            panic!("{number}: {accepted:?}");
        };
        assert_eq!((operation.id, operation.revision), (id(number), 1));
    }
    // The first one begins alone; 64 at most go into one.
    let made = commits(&path) - before;
    assert_eq!(made, 1 + 199_usize.div_ceil(64));
    drop(store);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(again.open_operations().await.unwrap().len(), 200);
}

#[tokio::test]
async fn each_is_refused_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let before = commits(&path);
    let of = |number, name| {
        let snapshot = snapshot(number, 1, name);
        full_change(&operation(number, 1), &snapshot, "asked for")
    };
    let [first, named] = [of(1, "one"), of(2, "two")];
    let [same_name, last] = [of(3, "two"), of(4, "four")];
    let [one, two, three, four] = [1, 2, 3, 4].map(request);
    let other = RequestRecord {
        fingerprint: "another payload".to_owned(),
        ..two.clone()
    };
    let stale = change(&operation(2, 1));
    let (head, tail) = join(
        store.accept(&one, &first),
        join(
            join_all([
                store.accept(&two, &named),
                store.accept(&two, &named),
                store.accept(&other, &last),
                store.accept(&three, &same_name),
                store.accept(&four, &last),
            ]),
            store.apply(&stale),
        ),
    )
    .await;
    let (tail, stale) = tail;
    assert!(matches!(head, Ok(Accepted::New(_))), "{head:?}");
    assert!(matches!(tail[0], Ok(Accepted::New(_))), "{tail:?}");
    assert!(matches!(tail[1], Ok(Accepted::Repeated(_))), "{tail:?}");
    assert!(
        matches!(tail[2], Err(StoreError::RequestIdReused)),
        "{tail:?}"
    );
    assert!(matches!(tail[3], Err(StoreError::NameTaken)), "{tail:?}");
    assert!(matches!(tail[4], Ok(Accepted::New(_))), "{tail:?}");
    assert!(matches!(stale, Err(StoreError::Conflict(_))), "{stale:?}");
    assert_eq!(commits(&path) - before, 2);
    let left = store.open_operations().await.unwrap();
    let left: Vec<_> = left.iter().map(|operation| operation.id).collect();
    assert_eq!(
        left,
        [id(1), id(2), id(4)],
        "nothing of the one that was refused"
    );
    assert_eq!(store.snapshots(None, &everything()).await.unwrap().len(), 3);
    assert_eq!(store.repeated(&three).await.unwrap(), None);
}

/// One builds on the other, as two that write the same record do: the later one is told.
#[tokio::test]
async fn later_ones_see_the_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("record.db"))
        .await
        .unwrap();
    let made = store.apply(&change(&operation(1, 1))).await.unwrap();
    let to = |name| {
        let mut next = made.clone();
        next.state = state(name);
        change(&next)
    };
    let (other, running, cancelled) = (
        change(&operation(2, 2)),
        to(StateName::Running),
        to(StateName::Cancelled),
    );
    let (_, first, second) = futures::join!(
        store.apply(&other),
        store.apply(&running),
        store.apply(&cancelled)
    );
    assert_eq!(first.unwrap().state, OperationState::Running);
    assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    let now = store.operation(made.id).await.unwrap().unwrap();
    assert_eq!((now.state, now.revision), (OperationState::Running, 2));
}

/// Nobody is told of a change that another's failure took away.
#[tokio::test]
async fn what_cannot_be_written_is_none_of_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    history::step(&store, 0).await.unwrap();
    let mut hand = by_hand(&path).await;
    let held = sqlx::query("BEGIN IMMEDIATE").execute(&mut hand).await;
    held.unwrap();
    let all: Vec<_> = (10..14).map(|of| change(&operation(of, of))).collect();
    let refused = join_all(all.iter().map(|change| store.apply(change))).await;
    for refused in refused {
        assert!(crate::unavailable(refused).contains("locked"));
    }
    let freed = sqlx::query("ROLLBACK").execute(&mut hand).await;
    freed.unwrap();
    for made in join_all(all.iter().map(|change| store.apply(change))).await {
        made.unwrap();
    }
}

/// Who does the work for the others goes away at any moment: they hear of it, and what they asked for is
/// made whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let is_there = async |change: &Change| {
        let found = store.operation(change.operation.id).await.unwrap();
        found.is_some()
    };
    let mut unknown = 0;
    for round in 0..120_u64 {
        let of_round = (1 + round * 4..).take(4);
        let all: Vec<_> = of_round.map(|of| change(&operation(of, of))).collect();
        let mut alone = pin!(store.apply(&all[0]));
        if poll!(&mut alone).is_ready() {
            // On a busy machine it is over before it is looked at.
            continue;
        }
        let mut leads = Box::pin(store.apply(&all[1]));
        assert!(poll!(&mut leads).is_pending());
        let mut others = pin!(join_all(all[2..].iter().map(|change| store.apply(change))));
        assert!(poll!(&mut others).is_pending());
        alone.await.unwrap();
        // Each poll is further in the work for three, or at the same place.
        for _ in 0..round % 40 {
            if poll!(&mut leads).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(round % 7 * 20)).await;
        }
        drop(leads);
        let made = tokio::time::timeout(Duration::from_secs(60), others).await;
        // What was under way has ended when nothing more is written.
        store.add_events(&[]).await.unwrap();
        for (change, made) in all[2..].iter().zip(made.expect("an answer")) {
            match made {
                Ok(_) => assert!(is_there(change).await, "round {round}"),
                Err(StoreError::Unknown(_)) => unknown += 1,
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        assert_eq!(
            is_there(&all[2]).await,
            is_there(&all[3]).await,
            "round {round}"
        );
    }
    assert!(unknown > 0, "nobody has gone away in the midst of it");
}
