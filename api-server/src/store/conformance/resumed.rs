//! What a server that starts goes on with.

use super::records::{change, everything, id, operation, state};
use crate::snapshot::Operation;
use crate::store::{OperationFilter, StateName, Store};
use livemerge_proto::ids::OperationId;
use std::sync::Arc;

/// What a new start resumes: all that has not ended, of every machine, as it was accepted, whatever
/// the ids say: they are as old as a clock said, and clocks jump back.
pub(super) async fn unended(store: Arc<dyn Store>) {
    let store = store.as_ref();
    assert_eq!(store.open_operations().await.unwrap(), []);
    let mut all = vec![];
    for number in [4_u64, 1, 3, 2, 5] {
        all.push(
            store
                .apply(&change(&operation(number, number % 2 + 1)))
                .await
                .unwrap(),
        );
    }
    assert_eq!(store.open_operations().await.unwrap(), all);
    for (number, name) in [
        (0, StateName::Running),
        (2, StateName::Succeeded),
        (3, StateName::Failed),
        (4, StateName::Cancelled),
    ] {
        let operation = Operation {
            state: state(name),
            ..all[number].clone()
        };
        all[number] = store.apply(&change(&operation)).await.unwrap();
    }
    assert_eq!(store.open_operations().await.unwrap(), all[..2]);
    // More of them than any page has.
    for number in 10..210 {
        store.apply(&change(&operation(number, 1))).await.unwrap();
    }
    let open: Vec<OperationId> = store
        .open_operations()
        .await
        .unwrap()
        .iter()
        .map(|operation| operation.id)
        .collect();
    let wanted = [4, 1].into_iter().chain(10..210).map(id);
    assert_eq!(open, wanted.collect::<Vec<OperationId>>());
    let listed = store
        .operations(&OperationFilter::default(), &everything())
        .await
        .unwrap();
    assert_eq!(listed.len(), 205);
}
