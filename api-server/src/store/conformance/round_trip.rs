//! What is written is what is read, when it was inserted and when it replaced another.

use super::records::{change, event, everything, id, log, operation};
use super::values::{self, draw};
use crate::snapshot::{NewEvent, Operation, Snapshot, VmRecord};
use crate::store::{Change, SnapshotChange, Store, VmFilter};
use std::sync::Arc;

pub(super) async fn inventory(store: Arc<dyn Store>) {
    for host in draw(100, values::hosts()) {
        store.put_host(&host, None).await.unwrap();
        assert!(store.hosts().await.unwrap().contains(&host), "{host:?}");
    }
    let mut vms: Vec<VmRecord> = draw(200, values::vms());
    store.put_vms(&vms).await.unwrap();
    vms.sort_by_key(|vm| vm.id);
    assert_eq!(
        store
            .vms(&VmFilter::default(), &everything())
            .await
            .unwrap(),
        vms
    );
    for vm in vms {
        assert_eq!(store.vm(vm.id).await.unwrap().as_ref(), Some(&vm));
        let filter = VmFilter {
            host: Some(vm.host.clone()),
            name: Some(vm.name.clone()),
        };
        assert!(
            store
                .vms(&filter, &everything())
                .await
                .unwrap()
                .contains(&vm),
            "{vm:?}"
        );
    }
}

/// Written anew, then replaced by another: both come back whole.
pub(super) async fn snapshots(store: Arc<dyn Store>) {
    let bodies = draw(200, values::snapshots());
    let mut carrier = operation(1, 1);
    for revision in 0..2 {
        let number = |index: usize| 1 + index as u64;
        let stored = |index: usize, body: &Snapshot| Snapshot {
            id: id(number(index)),
            vm: id(number(index)),
            revision,
            ..body.clone()
        };
        // The second time each takes its neighbour's body.
        let bodies = bodies
            .iter()
            .cycle()
            .skip(revision as usize)
            .take(bodies.len())
            .enumerate();
        let written: Vec<Snapshot> = bodies.map(|(index, body)| stored(index, body)).collect();
        let snapshots = written.iter().cloned().map(SnapshotChange::Put).collect();
        carrier = store
            .apply(&Change {
                snapshots,
                ..change(&carrier)
            })
            .await
            .unwrap();
        let wanted: Vec<Snapshot> = written
            .into_iter()
            .map(|snapshot| Snapshot {
                revision: revision + 1,
                ..snapshot
            })
            .collect();
        assert_eq!(store.snapshots(None, &everything()).await.unwrap(), wanted);
        for snapshot in wanted {
            assert_eq!(store.snapshot(snapshot.id).await.unwrap(), Some(snapshot));
        }
    }
}

/// Written anew, then replaced by another: both come back whole, in the answer and when read.
pub(super) async fn operations(store: Arc<dyn Store>) {
    let bodies = draw(200, values::operations());
    for (number, pair) in (1..).zip(bodies.windows(2)) {
        for (revision, body) in (0..).zip(pair) {
            let written = Operation {
                id: id(number),
                revision,
                ..body.clone()
            };
            let answer = store.apply(&change(&written)).await.unwrap();
            assert_eq!(
                answer,
                Operation {
                    revision: revision + 1,
                    ..written
                }
            );
            assert_eq!(store.operation(id(number)).await.unwrap(), Some(answer));
        }
    }
}

pub(super) async fn events(store: Arc<dyn Store>) {
    let mut written: Vec<NewEvent> = values::kinds()
        .into_iter()
        .map(|kind| NewEvent { kind, ..event("") })
        .collect();
    written.extend(draw(300, values::events()));
    store.add_events(&written).await.unwrap();
    let read: Vec<NewEvent> = log(store.as_ref())
        .await
        .into_iter()
        .map(|event| event.entry)
        .collect();
    assert_eq!(read, written);
}
