//! A request is accepted once, however often and from however many it comes.

use super::records::{
    at, change, full_change, id, messages, operation, request, snapshot, snapshot_ids, state,
};
use crate::snapshot::Operation;
use crate::store::{Accepted, OperationFilter, RequestRecord, StateName, Store, StoreError};
use futures::future::join_all;
use std::sync::Arc;

fn other_payload(number: u64) -> RequestRecord {
    RequestRecord {
        fingerprint: "delete".to_owned(),
        ..request(number)
    }
}

fn new(accepted: Accepted) -> Operation {
    match accepted {
        Accepted::New(operation) => operation,
        Accepted::Repeated(operation) => panic!("{} was there before", operation.id),
    }
}

fn old(accepted: Accepted) -> Operation {
    match accepted {
        Accepted::Repeated(operation) => operation,
        Accepted::New(operation) => panic!("{} is new", operation.id),
    }
}

/// A repetition changes nothing and sees the operation as it is by then.
pub(super) async fn repeated(store: Arc<dyn Store>) {
    assert_eq!(store.repeated(&request(1)).await.unwrap(), None);
    let first = full_change(&operation(1, 1), &snapshot(1, 1, "a"), "first");
    let accepted = new(store.accept(&request(1), &first).await.unwrap());
    assert_eq!(
        accepted,
        Operation {
            revision: 1,
            ..operation(1, 1)
        }
    );
    // What comes again has an operation and a snapshot of its own, as a handler makes them.
    let again = full_change(&operation(2, 1), &snapshot(2, 1, "a"), "again");
    assert_eq!(
        old(store.accept(&request(1), &again).await.unwrap()),
        accepted
    );

    let ended = Operation {
        state: state(StateName::Failed),
        ended_at: Some(at(2_000)),
        ..accepted
    };
    let ended = store.apply(&change(&ended)).await.unwrap();
    assert_eq!(old(store.accept(&request(1), &again).await.unwrap()), ended);
    assert_eq!(store.repeated(&request(1)).await.unwrap(), Some(ended));
    assert_eq!(store.operation(id(2)).await.unwrap(), None);
    assert_eq!(snapshot_ids(store.as_ref()).await, [id(1)]);
    assert_eq!(messages(store.as_ref()).await, ["first"]);
}

/// An id with another payload is no repetition, not even of a change that would be refused.
pub(super) async fn reused(store: Arc<dyn Store>) {
    let first = full_change(&operation(1, 1), &snapshot(1, 1, "a"), "first");
    new(store.accept(&request(1), &first).await.unwrap());
    for change in [
        full_change(&operation(2, 1), &snapshot(2, 1, "b"), "never"),
        first,
    ] {
        let error = store.accept(&other_payload(1), &change).await.unwrap_err();
        assert!(matches!(error, StoreError::RequestIdReused), "{error:?}");
    }
    let error = store.repeated(&other_payload(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::RequestIdReused), "{error:?}");
    assert_eq!(store.operation(id(2)).await.unwrap(), None);
    assert_eq!(messages(store.as_ref()).await, ["first"]);
    // The same payload under another id is another request.
    new(store
        .accept(&request(2), &change(&operation(2, 1)))
        .await
        .unwrap());
}

/// Accepts `requests` from as many tasks at once, each with operation, snapshot and event of its own.
async fn race(
    store: &Arc<dyn Store>,
    requests: Vec<RequestRecord>,
) -> Vec<Result<Accepted, StoreError>> {
    let tasks = (1..).zip(requests).map(|(number, request)| {
        let store = Arc::clone(store);
        let snapshot = snapshot(number, 1, &format!("s{number}"));
        let change = full_change(&operation(number, 1), &snapshot, &format!("s{number}"));
        tokio::spawn(async move { store.accept(&request, &change).await })
    });
    join_all(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

/// The one operation in the store, with its snapshot and its event, and nothing else.
async fn only_operation(store: &dyn Store) -> Operation {
    let mut all = store
        .operations(&OperationFilter::default(), &super::records::everything())
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
    let snapshots = store
        .snapshots(None, &super::records::everything())
        .await
        .unwrap();
    let [snapshot] = snapshots.as_slice() else {
        panic!("{snapshots:?}")
    };
    assert_eq!(snapshot.id, all[0].snapshot);
    assert_eq!(messages(store).await, [snapshot.name.as_str()]);
    all.remove(0)
}

/// Exactly one wins, and all get its answer.
pub(super) async fn racing(store: Arc<dyn Store>) {
    let outcomes = race(&store, vec![request(1); 24]).await;
    let only = only_operation(store.as_ref()).await;
    let mut accepted = 0;
    for outcome in outcomes {
        let operation = match outcome.unwrap() {
            Accepted::New(operation) => {
                accepted += 1;
                operation
            }
            Accepted::Repeated(operation) => operation,
        };
        assert_eq!(operation, only);
    }
    assert_eq!(accepted, 1);
}

/// Exactly one wins; who has its payload gets its answer, who has another is refused.
pub(super) async fn racing_payloads(store: Arc<dyn Store>) {
    let requests: Vec<_> = (0..24)
        .map(|n| {
            if n % 2 == 0 {
                request(1)
            } else {
                other_payload(1)
            }
        })
        .collect();
    let outcomes = race(&store, requests.clone()).await;
    let only = only_operation(store.as_ref()).await;
    let winner = outcomes
        .iter()
        .position(|outcome| matches!(outcome, Ok(Accepted::New(_))))
        .unwrap();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Accepted::New(operation)) => assert_eq!((number, operation), (winner, only.clone())),
            Ok(Accepted::Repeated(operation)) => {
                assert_eq!(requests[number], requests[winner]);
                assert_eq!(operation, only);
            }
            Err(StoreError::RequestIdReused) => assert_ne!(requests[number], requests[winner]),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// What is forgotten may be asked for anew; what is open or young is not forgotten.
pub(super) async fn pruned(store: Arc<dyn Store>) {
    let rows = [
        (1, 1_000, StateName::Succeeded),
        (2, 1_000, StateName::Running),
        (3, 2_000, StateName::Failed),
        (4, 3_000, StateName::Succeeded),
        (6, 2_000, StateName::Cancelled),
    ];
    for (number, second, ends) in rows {
        let operation = Operation {
            created_at: at(second),
            ..operation(number, 1)
        };
        let accepted = new(store
            .accept(&request(number), &change(&operation))
            .await
            .unwrap());
        let later = Operation {
            state: state(ends),
            ..accepted
        };
        store.apply(&change(&later)).await.unwrap();
    }
    assert_eq!(store.prune_requests(at(1_000)).await.unwrap(), 0);
    assert_eq!(store.prune_requests(at(3_000)).await.unwrap(), 3);
    assert_eq!(store.prune_requests(at(3_000)).await.unwrap(), 0);
    for (number, known) in [(1, false), (2, true), (3, false), (4, true), (6, false)] {
        let found = store.repeated(&request(number)).await.unwrap();
        assert_eq!(found.is_some(), known, "request {number}");
        assert!(
            store.operation(id(number)).await.unwrap().is_some(),
            "the operation stays"
        );
    }
    new(store
        .accept(&other_payload(1), &change(&operation(5, 1)))
        .await
        .unwrap());
}
