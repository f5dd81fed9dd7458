//! A history that shows by itself whether it is whole: each step changes several rows, and what
//! the rows hold tells how many steps were made.

use livemerge_api_server::snapshot::{NewEvent, Operation, Snapshot, SnapshotState};
use livemerge_api_server::store::conformance::records::{
    at, event, everything, full_change, id, operation, request, snapshot, state,
};
use livemerge_api_server::store::{
    Change, EventFilter, OperationFilter, SnapshotChange, StateName, Store, StoreError,
};
use std::iter::repeat_n;

/// The step of a number, from 0: operation `n` is accepted with its snapshot, then it ends.
pub(crate) async fn step(store: &dyn Store, number: u64) -> Result<(), StoreError> {
    let of = 1 + number / 2;
    let accepted = accepted(of);
    if number.is_multiple_of(2) {
        return store.accept(&request(of), &accepted).await.map(drop);
    }
    let ended = Operation {
        state: state(StateName::Succeeded),
        ended_at: Some(at(2_000)),
        revision: 1,
        ..accepted.operation
    };
    let ready = Snapshot {
        state: SnapshotState::Ready,
        revision: 1,
        ..snapshot(of, of % 3, &name(of))
    };
    let change = Change {
        operation: ended,
        snapshots: vec![SnapshotChange::Put(ready)],
        events: repeat_n(about(of), 2).collect(),
    };
    store.apply(&change).await.map(drop)
}

fn accepted(of: u64) -> Change {
    let change = full_change(&operation(of, of % 3), &snapshot(of, of % 3, &name(of)), "");
    Change {
        events: vec![about(of)],
        ..change
    }
}

/// Long enough that a step takes several pages.
fn about(of: u64) -> NewEvent {
    NewEvent {
        operation: Some(id(of)),
        ..event(&"why ".repeat(500))
    }
}

fn name(of: u64) -> String {
    format!("snapshot {of}")
}

/// How many steps were made. Panics unless each of them is there whole, and nothing else.
pub(crate) async fn steps(store: &dyn Store) -> u64 {
    let mut operations = store
        .operations(&OperationFilter::default(), &everything())
        .await
        .unwrap();
    operations.reverse();
    let snapshots = store.snapshots(None, &everything()).await.unwrap();
    assert_eq!(snapshots.len(), operations.len());
    let mut steps = 0;
    for ((of, operation), snapshot) in (1..).zip(&operations).zip(&snapshots) {
        assert_eq!((operation.id, snapshot.id), (id(of), id(of)));
        assert_eq!(operation.revision, snapshot.revision, "operation {of}");
        assert_eq!(
            operation.state.ended(),
            operation.revision == 2,
            "operation {of}"
        );
        assert_eq!(
            snapshot.state == SnapshotState::Ready,
            snapshot.revision == 2,
            "snapshot {of}"
        );
        let filter = EventFilter {
            vm: None,
            operation: Some(operation.id),
            ..EventFilter::default()
        };
        let events = store.events(&filter, &everything()).await.unwrap().len() as u64;
        assert_eq!(
            events,
            [1, 3][operation.revision as usize - 1],
            "operation {of}"
        );
        let known = store.repeated(&request(of)).await.unwrap();
        assert_eq!(known.as_ref(), Some(operation));
        let last = of == operations.len() as u64;
        assert!(
            operation.revision == 2 || last,
            "operation {of} was left open"
        );
        steps += operation.revision;
    }
    let next = operations.len() as u64 + 1;
    assert_eq!(store.repeated(&request(next)).await.unwrap(), None);
    steps
}
