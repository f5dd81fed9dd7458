//! Generations, hosts and machines.

use super::records::{event, host, id, messages, vm};
use crate::store::{Store, StoreError, VmFilter};
use futures::future::join_all;
use livemerge_proto::ids::HostId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Each start has its own, larger than all before.
pub(super) async fn generations(store: Arc<dyn Store>) {
    assert_eq!(store.next_generation().await.unwrap(), 1);
    assert_eq!(store.next_generation().await.unwrap(), 2);
    let starts = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.next_generation().await.unwrap() })
    });
    let given: BTreeSet<u64> = join_all(starts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(given, (3..=10).collect());
}

/// An agent that was replaced does not come back, and leaves no trace in the log.
pub(super) async fn stale_host(store: Arc<dyn Store>) {
    store
        .put_host(&host("b", 5), Some(&event("b")))
        .await
        .unwrap();
    store
        .put_host(&host("a", 0), Some(&event("a")))
        .await
        .unwrap();
    for generation in [0, 4] {
        let error = store
            .put_host(&host("b", generation), Some(&event("never")))
            .await
            .unwrap_err();
        let stale = matches!(error, StoreError::Stale { given, known: 5 } if given == generation);
        assert!(stale, "{error:?}");
    }
    // The same agent may move.
    let mut moved = host("b", 5);
    moved.endpoint = "unix:/run/agent".to_owned();
    store.put_host(&moved, None).await.unwrap();
    assert_eq!(store.hosts().await.unwrap(), [host("a", 0), moved]);
    // No number is too large to be compared.
    let newest = host("b", u64::MAX);
    store.put_host(&newest, None).await.unwrap();
    let error = store
        .put_host(&host("b", u64::MAX - 1), None)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Stale {
                known: u64::MAX,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(store.hosts().await.unwrap(), [host("a", 0), newest]);
    assert_eq!(messages(store.as_ref()).await, ["b", "a"]);
}

/// It is noted and taken back with its entry in the log, and no registration touches it.
pub(super) async fn maintenance(store: Arc<dyn Store>) {
    let (one, other) = (host("a", 1).id, host("b", 1).id);
    let set = async |id: &HostId, on: bool, text: &str| {
        store.set_maintenance(id, on, &event(text)).await.unwrap();
    };
    assert_eq!(store.maintenance().await.unwrap(), BTreeSet::new());
    set(&one, true, "in").await;
    set(&one, true, "in again").await;
    set(&other, false, "was not").await;
    store.put_host(&host("a", 2), None).await.unwrap();
    assert_eq!(
        store.maintenance().await.unwrap(),
        BTreeSet::from([one.clone()])
    );
    set(&other, true, "the other").await;
    set(&one, false, "out").await;
    assert_eq!(store.maintenance().await.unwrap(), BTreeSet::from([other]));
    let told = ["in", "in again", "was not", "the other", "out"];
    assert_eq!(messages(store.as_ref()).await, told);
}

/// Noting some leaves the others; a machine is where it was noted last.
pub(super) async fn machines(store: Arc<dyn Store>) {
    let (one, two) = (vm(1, "web", "a"), vm(2, "db", "a"));
    store.put_vms(&[one.clone(), two.clone()]).await.unwrap();
    store.put_vms(&[]).await.unwrap();
    let migrated = vm(2, "db-2", "b");
    store
        .put_vms(std::slice::from_ref(&migrated))
        .await
        .unwrap();
    assert_eq!(store.vm(id(1)).await.unwrap(), Some(one.clone()));
    assert_eq!(store.vm(id(2)).await.unwrap(), Some(migrated.clone()));
    assert_eq!(store.vm(id(3)).await.unwrap(), None);
    let all = store
        .vms(&VmFilter::default(), &super::records::everything())
        .await
        .unwrap();
    assert_eq!(all, [one, migrated]);
}
