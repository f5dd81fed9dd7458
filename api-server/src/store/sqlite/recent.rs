//! Snapshots that were read a moment ago: to ask the file again, another thread is woken and wakes this
//! one, which takes longer than the rest of the call.
//!
//! ```text
//!   how many changes? ─▶ read after as many? ─┬─ yes ─▶ what was read
//!                                             └─ no ──▶ read, and kept under that number
//! ```
//!
//! Changes are counted by the one who writes ([`super::writer`]), and while one is under way, or it is not
//! known whether it was made, there is no number. It is taken before the read, so that what is kept is never
//! older than its number.

use crate::snapshot::Snapshot;
use livemerge_proto::ids::SnapshotId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many are kept at most.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    changes: u64,
    snapshots: HashMap<SnapshotId, Snapshot>,
}

impl Recent {
    /// The snapshot, if it was read after so many changes.
    pub(super) fn snapshot(&self, id: SnapshotId, changes: u64) -> Option<Snapshot> {
        let kept = self.kept();
        let found = kept.snapshots.get(&id)?;
        (kept.changes == changes).then(|| found.clone())
    }

    /// Keeps what was read after so many changes, or more.
    pub(super) fn keep(&self, snapshot: &Snapshot, changes: u64) {
        let mut kept = self.kept();
        if kept.changes != changes || kept.snapshots.len() >= MOST {
            kept.snapshots.clear();
            kept.changes = changes;
        }
        kept.snapshots.insert(snapshot.id, snapshot.clone());
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::snapshot::Snapshot;
    use crate::store::conformance::records::snapshot;
    use crate::store::{SnapshotChange, SqliteStore, Store as _};

    fn kept(store: &SqliteStore, snapshot: &Snapshot) -> Option<Snapshot> {
        let changes = store.writer.changes()?;
        store.recent.snapshot(snapshot.id, changes)
    }

    async fn put(store: &SqliteStore, snapshot: &mut Snapshot, text: &str) {
        text.clone_into(&mut snapshot.description);
        let change = SnapshotChange::Put(snapshot.clone());
        store.put_snapshots(&[change], &[]).await.unwrap();
        assert_eq!(kept(store, snapshot), None, "it was changed");
        *snapshot = store.snapshot(snapshot.id).await.unwrap().unwrap();
        assert_eq!(snapshot.description, text);
    }

    #[tokio::test]
    async fn what_is_kept_is_what_would_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let mut one = snapshot(1, 1, "one");
        for text in ["first", "second"] {
            put(&store, &mut one, text).await;
            assert_eq!(kept(&store, &one), Some(one.clone()));
            assert_eq!(store.snapshot(one.id).await.unwrap(), Some(one.clone()));
        }
        let gone = SnapshotChange::Delete(one.id);
        store.put_snapshots(&[gone], &[]).await.unwrap();
        assert_eq!(store.snapshot(one.id).await.unwrap(), None);
    }

    /// It may be made after whoever wanted it has gone away.
    #[tokio::test]
    async fn nothing_is_kept_while_a_change_is_under_way_or_in_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let mut one = snapshot(1, 1, "one");
        put(&store, &mut one, "first").await;
        let tx = store.writer.begin().await.unwrap();
        assert_eq!(store.writer.changes(), None);
        assert_eq!(store.snapshot(one.id).await.unwrap(), Some(one.clone()));
        drop(tx);
        assert_eq!(store.writer.changes(), None);
        // One that goes on late ends no other one.
        let first = store.writer.begin().await.unwrap();
        let next = async {
            let tx = store.writer.begin().await.unwrap();
            assert_eq!(store.writer.changes(), None);
            drop(tx);
        };
        let (made, ()) = tokio::join!(store.writer.commit(first), next);
        made.unwrap();
        assert_eq!(store.writer.changes(), None);
        put(&store, &mut one, "second").await;
        assert_eq!(kept(&store, &one), Some(one.clone()));
        // One that changes nothing costs nobody what is kept, and ends a doubt.
        store.writer.try_change().await.unwrap();
        assert_eq!(kept(&store, &one), Some(one));
        drop(store.writer.begin().await.unwrap());
        assert_eq!(store.writer.changes(), None);
        store.writer.try_change().await.unwrap();
        assert!(store.writer.changes().is_some());
    }
}
