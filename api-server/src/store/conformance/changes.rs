//! What a change makes durable, and when it is refused.

use super::records::{
    change, event, full_change, id, log, messages, operation, request, snapshot, snapshot_ids,
    state,
};
use crate::snapshot::{Operation, OperationState, Snapshot, SnapshotState};
use crate::store::{Accepted, Change, SnapshotChange, StateName, Store, StoreError};
use futures::future::join_all;
use livemerge_proto::ids::SnapshotId;
use std::sync::Arc;

/// A store with operation 1 and the snapshots 1 (`a`) and 2 (`b`) of machine 1.
async fn seeded(store: &dyn Store) -> (Operation, Snapshot, Snapshot) {
    let (one, two) = (snapshot(1, 1, "a"), snapshot(2, 1, "b"));
    let mut seed = full_change(&operation(1, 1), &one, "seed");
    seed.snapshots.push(SnapshotChange::Put(two.clone()));
    let operation = store.apply(&seed).await.unwrap();
    let stored = |snapshot| Snapshot {
        revision: 1,
        ..snapshot
    };
    (operation, stored(one), stored(two))
}

/// Each change does several things of which one is refused: then none was done.
pub(super) async fn whole_or_not_at_all(store: Arc<dyn Store>) {
    let (first, one, two) = seeded(store.as_ref()).await;
    let put = |snapshot: Snapshot| SnapshotChange::Put(snapshot);
    let moved = |snapshot: &Snapshot| Snapshot {
        state: SnapshotState::Ready,
        ..snapshot.clone()
    };
    let stale = |snapshot: &Snapshot| Snapshot {
        revision: 7,
        ..snapshot.clone()
    };
    let refused: [(&str, Operation, Vec<SnapshotChange>); 6] = [
        (
            "stale operation",
            Operation {
                revision: 9,
                ..first.clone()
            },
            vec![put(moved(&one))],
        ),
        (
            "operation there already",
            operation(1, 1),
            vec![put(snapshot(3, 1, "c"))],
        ),
        (
            "stale snapshot behind a good one",
            first.clone(),
            vec![put(moved(&one)), put(stale(&two))],
        ),
        (
            "snapshot there already",
            operation(2, 1),
            vec![put(moved(&one)), put(snapshot(2, 1, "b"))],
        ),
        (
            "name taken behind a delete",
            first.clone(),
            vec![SnapshotChange::Delete(one.id), put(snapshot(3, 1, "b"))],
        ),
        (
            "name taken by a rename",
            operation(2, 1),
            vec![put(Snapshot {
                name: two.name.clone(),
                ..one.clone()
            })],
        ),
    ];
    for (what, operation, snapshots) in refused {
        let operation = Operation {
            state: OperationState::Running,
            ..operation
        };
        let change = Change {
            operation,
            snapshots,
            events: vec![event("never")],
        };
        let error = store.apply(&change).await.expect_err(what);
        let name = what.starts_with("name");
        assert!(
            name == matches!(error, StoreError::NameTaken),
            "{what}: {error:?}"
        );
        assert!(
            name || matches!(error, StoreError::Conflict(_)),
            "{what}: {error:?}"
        );
        assert_eq!(
            store.operation(id(1)).await.unwrap(),
            Some(first.clone()),
            "{what}"
        );
        assert_eq!(store.operation(id(2)).await.unwrap(), None, "{what}");
        assert_eq!(
            store.snapshot(id(1)).await.unwrap(),
            Some(one.clone()),
            "{what}"
        );
        assert_eq!(
            store.snapshot(id(2)).await.unwrap(),
            Some(two.clone()),
            "{what}"
        );
        assert_eq!(store.snapshot(id(3)).await.unwrap(), None, "{what}");
        assert_eq!(messages(store.as_ref()).await, ["seed"], "{what}");
    }
    // Refusals hinder nothing that is right.
    let change = full_change(&first, &moved(&one), "done");
    assert_eq!(store.apply(&change).await.unwrap().revision, 2);
    assert_eq!(messages(store.as_ref()).await, ["seed", "done"]);
}

/// The id of a request whose change was refused is free.
pub(super) async fn accepted_whole(store: Arc<dyn Store>) {
    seeded(store.as_ref()).await;
    let refused = full_change(&operation(2, 1), &snapshot(3, 1, "a"), "never");
    let error = store.accept(&request(1), &refused).await.unwrap_err();
    assert!(matches!(error, StoreError::NameTaken), "{error:?}");
    assert_eq!(store.repeated(&request(1)).await.unwrap(), None);
    assert_eq!(store.operation(id(2)).await.unwrap(), None);
    assert_eq!(messages(store.as_ref()).await, ["seed"]);

    let accepted = full_change(&operation(2, 1), &snapshot(3, 1, "c"), "accepted");
    let Accepted::New(operation) = store.accept(&request(1), &accepted).await.unwrap() else {
        panic!("a refused request was noted");
    };
    assert_eq!(store.operation(id(2)).await.unwrap(), Some(operation));
    assert_eq!(messages(store.as_ref()).await, ["seed", "accepted"]);
}

/// A record is replaced by who read it last, and by nobody else.
pub(super) async fn stale_revision(store: Arc<dyn Store>) {
    let (first, one, _) = seeded(store.as_ref()).await;
    assert_eq!((first.revision, one.revision), (1, 1));
    let second = store.apply(&change(&first)).await.unwrap();
    assert_eq!(second.revision, 2);
    for revision in [0, 1, 3, u64::MAX] {
        let stale = Operation {
            revision,
            requested_by: "late".to_owned(),
            ..second.clone()
        };
        let error = store.apply(&change(&stale)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Conflict(what) if what.contains(&first.id.to_string())),
            "{error:?}"
        );
    }
    let renewed = Snapshot {
        state: SnapshotState::Ready,
        ..one.clone()
    };
    let third = store
        .apply(&full_change(&second, &renewed, "renewed"))
        .await
        .unwrap();
    for revision in [0, 1, 3, u64::MAX] {
        let stale = Snapshot {
            revision,
            description: "late".to_owned(),
            ..one.clone()
        };
        let error = store
            .apply(&full_change(&third, &stale, "never"))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, StoreError::Conflict(what) if what.contains(&one.id.to_string())),
            "{error:?}"
        );
    }
    let missing = Snapshot {
        revision: 1,
        ..snapshot(9, 1, "z")
    };
    let error = store
        .apply(&full_change(&third, &missing, "never"))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    assert_eq!(store.operation(id(1)).await.unwrap(), Some(third));
    assert_eq!(
        store.snapshot(id(1)).await.unwrap(),
        Some(Snapshot {
            revision: 2,
            ..renewed
        })
    );
}

/// A snapshot that is changed without an operation is replaced with its event, or neither is.
pub(super) async fn snapshot_alone(store: Arc<dyn Store>) {
    let (first, one, _) = seeded(store.as_ref()).await;
    let put = async |snapshot: &Snapshot, text: &str| {
        let change = [SnapshotChange::Put(snapshot.clone())];
        store.put_snapshots(&change, &[event(text)]).await
    };
    let marked = Snapshot {
        state: SnapshotState::Incomplete,
        ..one.clone()
    };
    let missing = Snapshot {
        revision: 1,
        ..snapshot(9, 1, "z")
    };
    let twin = snapshot(1, 1, "a");
    let late = |revision| Snapshot {
        revision,
        ..marked.clone()
    };
    for stale in [late(2), late(u64::MAX), missing, twin] {
        let error = put(&stale, "never").await;
        let error = error.unwrap_err();
        assert!(
            matches!(&error, StoreError::Conflict(what) if what.contains(&stale.id.to_string())),
            "{error:?}"
        );
    }
    let stored = store.snapshot(id(1)).await.unwrap();
    assert_eq!(stored, Some(one));
    assert_eq!(messages(store.as_ref()).await, ["seed"]);

    put(&marked, "marked").await.unwrap();
    let stored = store.snapshot(id(1)).await.unwrap();
    let revision = 2;
    assert_eq!(
        stored,
        Some(Snapshot {
            revision,
            ..marked.clone()
        })
    );
    assert_eq!(messages(store.as_ref()).await, ["seed", "marked"]);
    assert_eq!(store.operation(id(1)).await.unwrap(), Some(first));
    // Whoever had read it before comes too late.
    let error = put(&marked, "never").await;
    assert!(matches!(error, Err(StoreError::Conflict(_))), "{error:?}");
}

/// Of several snapshots that are changed without an operation all are, with their events, or none.
pub(super) async fn snapshots_together(store: Arc<dyn Store>) {
    let (_, one, _) = seeded(store.as_ref()).await;
    let new = |number, name| SnapshotChange::Put(snapshot(number, 1, name));
    let taken = [
        new(7, "g"),
        SnapshotChange::Delete(one.id),
        new(8, one.name.as_str()),
        new(9, "g"),
    ];
    let error = store.put_snapshots(&taken, &[event("never")]).await;
    assert!(matches!(error, Err(StoreError::NameTaken)), "{error:?}");
    assert_eq!(store.snapshot(id(7)).await.unwrap(), None);
    assert_eq!(store.snapshot(one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(messages(store.as_ref()).await, ["seed"]);

    let events = [event("found"), event("lost")];
    store.put_snapshots(&taken[..3], &events).await.unwrap();
    assert_eq!(store.snapshot(one.id).await.unwrap(), None);
    let stored = store.snapshot(id(8)).await.unwrap();
    assert_eq!(stored.map(|it| it.name), Some(one.name));
    assert_eq!(messages(store.as_ref()).await, ["seed", "found", "lost"]);
}

/// Of many changes that build on the same revision, one is made.
pub(super) async fn racing(store: Arc<dyn Store>) {
    let (first, one, _) = seeded(store.as_ref()).await;
    let attempts = (0..16).map(|number| {
        let by = format!("writer {number}");
        let operation = Operation {
            requested_by: by.clone(),
            ..first.clone()
        };
        let snapshot = Snapshot {
            description: by.clone(),
            ..one.clone()
        };
        let (store, change) = (Arc::clone(&store), full_change(&operation, &snapshot, &by));
        tokio::spawn(async move { store.apply(&change).await })
    });
    let (mut won, mut lost) = (vec![], 0);
    for outcome in join_all(attempts).await {
        match outcome.unwrap() {
            Ok(operation) => won.push(operation),
            Err(StoreError::Conflict(_)) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((won.len(), lost), (1, 15));
    let winner = won.remove(0);
    assert_eq!(
        store.snapshot(id(1)).await.unwrap().unwrap().description,
        winner.requested_by
    );
    assert_eq!(
        messages(store.as_ref()).await,
        ["seed", &winner.requested_by]
    );
    assert_eq!(store.operation(id(1)).await.unwrap(), Some(winner));
}

/// A name is one snapshot's of a machine as long as that snapshot is there, letter for letter.
pub(super) async fn names(store: Arc<dyn Store>) {
    let (_, one, _) = seeded(store.as_ref()).await;
    let free = [
        snapshot(3, 1, "A"),
        snapshot(4, 1, "ä"),
        snapshot(5, 1, "a\u{308}"),
        snapshot(6, 2, "a"),
    ];
    for (number, snapshot) in (10..).zip(&free) {
        store
            .apply(&full_change(&operation(number, 1), snapshot, ""))
            .await
            .unwrap();
    }
    let taken = full_change(&operation(20, 1), &snapshot(7, 1, "a"), "");
    assert!(matches!(
        store.apply(&taken).await,
        Err(StoreError::NameTaken)
    ));

    // The name passes on within a change, in the order that the change gives.
    let passed = Change {
        snapshots: vec![
            SnapshotChange::Delete(one.id),
            SnapshotChange::Put(snapshot(7, 1, "a")),
        ],
        ..change(&operation(20, 1))
    };
    store.apply(&passed).await.unwrap();
    assert_eq!(
        snapshot_ids(store.as_ref()).await,
        [2, 3, 4, 5, 6, 7].map(id::<SnapshotId>)
    );
}

/// The end of an operation can be written again without harm.
pub(super) async fn delete_missing(store: Arc<dyn Store>) {
    let (first, one, two) = seeded(store.as_ref()).await;
    let ended = Operation {
        state: state(StateName::Succeeded),
        ..first
    };
    let snapshots = [one.id, id(77), one.id].map(SnapshotChange::Delete).into();
    store
        .apply(&Change {
            snapshots,
            ..change(&ended)
        })
        .await
        .unwrap();
    assert_eq!(snapshot_ids(store.as_ref()).await, [two.id]);
    assert_eq!(log(store.as_ref()).await.len(), 1);
}
