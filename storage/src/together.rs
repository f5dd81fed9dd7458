//! Removals of volumes that leave together, where a domain does not do several in one change.
//!
//! ```text
//!   all, some at a time ─▶ refused because something needs it? ─▶ again, when others of them have gone
//! ```
//!
//! What is built on another one is removed before it by nobody's order: the gate refuses the other one
//! until then. So a chain goes whole in as many turns as it is deep at most.

use crate::{Removal, RemovalOrder, StorageError, VolumeStore};
use futures::stream::{self, StreamExt as _};

/// Removals that run side by side.
const AT_ONCE: usize = 8;

pub(crate) async fn remove_all<S: VolumeStore + ?Sized>(
    store: &S,
    orders: &[RemovalOrder],
) -> Vec<Result<Removal, StorageError>> {
    let mut answers: Vec<_> = turn(store, orders).await;
    loop {
        let refused = |index: &usize| matches!(answers[*index], Err(StorageError::InUse { .. }));
        let again: Vec<usize> = (0..answers.len()).filter(refused).collect();
        if again.is_empty() || again.len() == answers.len() {
            return answers;
        }
        let orders: Vec<_> = again.iter().map(|index| orders[*index].clone()).collect();
        let next = turn(store, &orders).await;
        let moved = next
            .iter()
            .any(|answer| !matches!(answer, Err(StorageError::InUse { .. })));
        for (index, answer) in again.into_iter().zip(next) {
            answers[index] = answer;
        }
        if !moved {
            return answers;
        }
    }
}

async fn turn<S: VolumeStore + ?Sized>(
    store: &S,
    orders: &[RemovalOrder],
) -> Vec<Result<Removal, StorageError>> {
    let removals: Vec<_> = orders.iter().map(|order| store.remove(order)).collect();
    stream::iter(removals).buffered(AT_ONCE).collect().await
}
