//! Callers that go away in the middle of a change.

use crate::history;
use futures::poll;
use livemerge_api_server::store::{SqliteStore, Store as _};
use std::pin::pin;
use std::time::Duration;

/// A change that nobody waits for any more is made whole or not at all, and whoever comes next
/// finds a store that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_change_hinders_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("record.db"))
        .await
        .unwrap();
    let mut made = 0;
    for round in 0..120_u32 {
        {
            let mut step = pin!(history::step(&store, made));
            // Each poll is further in the change, or at the same place.
            for _ in 0..round % 30 {
                if poll!(&mut step).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(u64::from(round % 7) * 20)).await;
            }
        }
        // Its turn ends before this one's begins.
        store_settles(&store).await;
        let found = history::steps(&store).await;
        assert!(
            (made..=made + 1).contains(&found),
            "round {round}: {found} of {made}"
        );
        history::step(&store, found).await.unwrap();
        made = found + 1;
    }
    assert_eq!(history::steps(&store).await, made);
}

/// A change of nothing, behind all others.
async fn store_settles(store: &SqliteStore) {
    store.add_events(&[]).await.unwrap();
}
