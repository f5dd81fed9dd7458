//! Lists: pages, filters, order.

use super::records::{change, event, full_change, id, operation, snapshot, state, vm};
use crate::snapshot::{EventKind, NewEvent, Operation, Severity};
use crate::store::{Change, EventFilter, OperationFilter, Page, StateName, Store, VmFilter};
use livemerge_proto::ids::{HostId, OperationId, SnapshotId, VmId};
use std::fmt::Debug;
use std::sync::Arc;

const STATES: [StateName; 5] = [
    StateName::Queued,
    StateName::Running,
    StateName::Succeeded,
    StateName::Failed,
    StateName::Cancelled,
];

/// Reads a list page by page, as a client does, to its end.
async fn walk<T: Clone, K>(
    limit: usize,
    key: impl Fn(&T) -> K,
    read: impl AsyncFn(Page<K>) -> Vec<T>,
) -> Vec<T> {
    let mut seen: Vec<T> = Vec::new();
    loop {
        let some = read(Page {
            after: seen.last().map(&key),
            limit,
        })
        .await;
        assert!(some.len() <= limit);
        let last = some.len() < limit;
        seen.extend(some);
        if last {
            return seen;
        }
    }
}

async fn all_vms(store: &dyn Store, filter: &VmFilter, limit: usize) -> Vec<VmId> {
    let read = async |page| store.vms(filter, &page).await.unwrap();
    walk(limit, |vm| vm.id, read)
        .await
        .into_iter()
        .map(|vm| vm.id)
        .collect()
}

async fn all_snapshots(store: &dyn Store, vm: Option<VmId>, limit: usize) -> Vec<SnapshotId> {
    let read = async |page| store.snapshots(vm, &page).await.unwrap();
    walk(limit, |snapshot| snapshot.id, read)
        .await
        .into_iter()
        .map(|snapshot| snapshot.id)
        .collect()
}

async fn all_operations(
    store: &dyn Store,
    filter: &OperationFilter,
    limit: usize,
) -> Vec<OperationId> {
    let read = async |page| store.operations(filter, &page).await.unwrap();
    walk(limit, |operation| operation.id, read)
        .await
        .into_iter()
        .map(|operation| operation.id)
        .collect()
}

/// Oldest first. Newest first they are the same.
async fn all_events(store: &dyn Store, filter: &EventFilter, limit: usize) -> Vec<String> {
    let in_order = async |filter: &EventFilter| -> Vec<String> {
        let read = async |page| store.events(filter, &page).await.unwrap();
        walk(limit, |event| event.revision, read)
            .await
            .into_iter()
            .map(|event| event.entry.message)
            .collect()
    };
    let found = in_order(filter).await;
    let newest_first = EventFilter {
        newest_first: true,
        ..filter.clone()
    };
    let mut turned = in_order(&newest_first).await;
    turned.reverse();
    assert_eq!(turned, found, "newest first, {filter:?}");
    found
}

/// Writes machine, snapshot, operation and event of a number, each the machine's own.
async fn put(store: &dyn Store, number: u64) {
    store.put_vms(&[vm(number, "web", "a")]).await.unwrap();
    let snapshot = snapshot(number, number, "a");
    store
        .apply(&full_change(
            &operation(number, number),
            &snapshot,
            &number.to_string(),
        ))
        .await
        .unwrap();
}

fn ids<T: From<uuid::Uuid>>(numbers: impl IntoIterator<Item = u64>) -> Vec<T> {
    numbers.into_iter().map(id).collect()
}

fn same<T: PartialEq + Debug>(found: &[T], wanted: &[T], limit: usize) {
    assert_eq!(found, wanted, "in pages of {limit}");
}

/// Pages of any size make up the same list, in the order of the ids, whatever order they came in.
pub(super) async fn pages(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let shuffled = [5_u64, 1, 12, 8, 3, 10, 2, 11, 6, 4, 9, 7];
    for number in shuffled {
        put(store, number).await;
    }
    for limit in [1, 2, 3, 5, 11, 12, 13, 1_000] {
        same(
            &all_vms(store, &VmFilter::default(), limit).await,
            &ids(1..=12),
            limit,
        );
        same(
            &all_snapshots(store, None, limit).await,
            &ids(1..=12),
            limit,
        );
        same(
            &all_operations(store, &OperationFilter::default(), limit).await,
            &ids((1..=12).rev()),
            limit,
        );
        let log = all_events(store, &EventFilter::default(), limit).await;
        same(&log, &shuffled.map(|number| number.to_string()), limit);
    }
    assert!(
        store
            .vms(
                &VmFilter::default(),
                &Page {
                    after: None,
                    limit: 0
                }
            )
            .await
            .unwrap()
            .is_empty()
    );
    // A key that is gone, or never was, is as good a place to begin behind.
    let behind = Page {
        after: Some(id(12)),
        limit: 5,
    };
    assert!(store.snapshots(None, &behind).await.unwrap().is_empty());
    let behind = Page {
        after: Some(u64::MAX),
        limit: 5,
    };
    assert!(
        store
            .events(&EventFilter::default(), &behind)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Between two pages a row comes before and a row behind the place: the one behind is seen, the
/// one before is not, and what was there at first is seen once.
pub(super) async fn insertion(store: Arc<dyn Store>) {
    let store = store.as_ref();
    for number in (20..=80).step_by(10) {
        put(store, number).await;
    }
    let (mut before, mut behind) = (1, 100);
    let filter = OperationFilter::default();
    let (mut vms, mut snapshots, mut operations) = (vec![], vec![], vec![]);
    loop {
        let page = Page {
            after: vms.last().copied(),
            limit: 3,
        };
        vms.extend(
            store
                .vms(&VmFilter::default(), &page)
                .await
                .unwrap()
                .iter()
                .map(|vm| vm.id),
        );
        let page = Page {
            after: snapshots.last().copied(),
            limit: 3,
        };
        snapshots.extend(
            store
                .snapshots(None, &page)
                .await
                .unwrap()
                .iter()
                .map(|found| found.id),
        );
        let page = Page {
            after: operations.last().copied(),
            limit: 3,
        };
        let found = store.operations(&filter, &page).await.unwrap();
        let last = found.len() < 3;
        operations.extend(found.iter().map(|operation| operation.id));
        if last {
            break;
        }
        put(store, before).await;
        put(store, behind).await;
        (before, behind) = (before + 1, behind + 1);
    }
    // Downwards, the low numbers lie behind the place, and the high ones before it.
    assert_eq!(operations, ids([80, 70, 60, 50, 40, 30, 20, 2, 1]));
    assert_eq!(vms, ids((20..=80).step_by(10).chain(100..=102)));
    assert_eq!(snapshots, ids((20..=80).step_by(10).chain(100..=102)));
}

pub(super) async fn filtered_machines(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let rows = [
        (1, "web", "a"),
        (2, "db", "a"),
        (3, "web", "b"),
        (4, "Web", "a"),
        (5, "web", "a"),
    ];
    for (number, name, host) in rows {
        store.put_vms(&[vm(number, name, host)]).await.unwrap();
        let of_vm = snapshot(number, number % 2 + 1, &format!("s{number}"));
        store
            .apply(&full_change(&operation(number, 1), &of_vm, ""))
            .await
            .unwrap();
    }
    for host in [None, Some("a"), Some("b"), Some("c")] {
        for name in [None, Some("web"), Some("we"), Some("%"), Some("' OR 1 --")] {
            let fits = |row: &&(u64, &str, &str)| {
                name.is_none_or(|name| name == row.1) && host.is_none_or(|host| host == row.2)
            };
            let wanted: Vec<VmId> = ids(rows.iter().filter(fits).map(|row| row.0));
            let host: Option<HostId> = host.map(|host| host.parse().unwrap());
            let filter = VmFilter {
                host,
                name: name.map(str::to_owned),
            };
            for limit in [1, 2, 100] {
                assert_eq!(all_vms(store, &filter, limit).await, wanted, "{filter:?}");
            }
        }
    }
    for limit in [1, 2, 100] {
        assert_eq!(all_snapshots(store, Some(id(1)), limit).await, ids([2, 4]));
        assert_eq!(
            all_snapshots(store, Some(id(2)), limit).await,
            ids([1, 3, 5])
        );
        assert_eq!(all_snapshots(store, Some(id(3)), limit).await, vec![]);
    }
}

/// Each set of states, of one machine, another and all.
pub(super) async fn filtered_operations(store: Arc<dyn Store>) {
    let store = store.as_ref();
    for number in 0..12_u64 {
        // The state is not the one that it was inserted with.
        let operation = store
            .apply(&change(&operation(1 + number, 1 + number / 8)))
            .await
            .unwrap();
        let state = state(STATES[number as usize % STATES.len()]);
        store
            .apply(&change(&Operation { state, ..operation }))
            .await
            .unwrap();
    }
    for set in 0..1_usize << STATES.len() {
        let chosen: Vec<usize> = (0..STATES.len())
            .filter(|bit| set >> bit & 1 == 1)
            .collect();
        for vm in [None, Some(1), Some(2), Some(3)] {
            let fits = |number: &u64| {
                (chosen.is_empty() || chosen.contains(&(*number as usize % STATES.len())))
                    && vm.is_none_or(|vm| vm == 1 + number / 8)
            };
            let wanted: Vec<OperationId> = ids((0..12).rev().filter(fits).map(|number| 1 + number));
            let states = chosen.iter().map(|state| STATES[*state]).collect();
            let filter = OperationFilter {
                vm: vm.map(id),
                states,
            };
            for limit in [1, 3, 100] {
                assert_eq!(
                    all_operations(store, &filter, limit).await,
                    wanted,
                    "{filter:?}"
                );
            }
        }
    }
}

pub(super) async fn filtered_events(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let rows = [
        (None, None),
        (Some(1), None),
        (Some(1), Some(1)),
        (Some(2), Some(2)),
        (Some(1), Some(3)),
        (None, Some(1)),
    ];
    let entry = |(number, (vm, operation)): (usize, &(Option<u64>, Option<u64>))| NewEvent {
        vm: vm.map(id),
        operation: operation.map(id),
        ..event(&number.to_string())
    };
    let entries: Vec<NewEvent> = rows.iter().enumerate().map(entry).collect();
    // Some with a change, some alone.
    store
        .apply(&Change {
            events: entries[..3].to_vec(),
            ..change(&operation(1, 1))
        })
        .await
        .unwrap();
    store.add_events(&entries[3..]).await.unwrap();
    for vm in [None, Some(1), Some(2), Some(3)] {
        for operation in [None, Some(1), Some(2), Some(9)] {
            let fits = |(_, row): &(usize, &(Option<u64>, Option<u64>))| {
                (vm.is_none() || row.0 == vm) && (operation.is_none() || row.1 == operation)
            };
            let wanted: Vec<String> = rows
                .iter()
                .enumerate()
                .filter(fits)
                .map(|(number, _)| number.to_string())
                .collect();
            let filter = EventFilter {
                vm: vm.map(id),
                operation: operation.map(id),
                ..EventFilter::default()
            };
            for limit in [1, 2, 100] {
                assert_eq!(
                    all_events(store, &filter, limit).await,
                    wanted,
                    "{filter:?}"
                );
            }
        }
    }
}

/// By how much they matter and by kind, also together.
pub(super) async fn searched_events(store: Arc<dyn Store>) {
    use EventKind::{HostUp, LiveMergePivotPutOff, VolumeRemoved};
    let severities = [Severity::Info, Severity::Warning, Severity::Error];
    let rows: Vec<(Severity, EventKind)> = severities
        .into_iter()
        .flat_map(|severity| {
            [HostUp, LiveMergePivotPutOff, VolumeRemoved].map(|kind| (severity, kind))
        })
        .collect();
    let entry = |(number, (severity, kind)): (usize, &(Severity, EventKind))| NewEvent {
        severity: *severity,
        kind: *kind,
        ..event(&number.to_string())
    };
    let entries: Vec<NewEvent> = rows.iter().enumerate().map(entry).collect();
    store.add_events(&entries).await.unwrap();
    let searches: [&[EventKind]; 4] = [
        &[],
        &[HostUp],
        &[VolumeRemoved, HostUp],
        &[EventKind::HostUnresponsive],
    ];
    for least in [
        None,
        Some(Severity::Info),
        Some(Severity::Warning),
        Some(Severity::Error),
    ] {
        for kinds in searches {
            let fits = |(_, row): &(usize, &(Severity, EventKind))| {
                least.is_none_or(|least| row.0 >= least)
                    && (kinds.is_empty() || kinds.contains(&row.1))
            };
            let fitting = rows.iter().enumerate().filter(fits);
            let wanted: Vec<String> = fitting.map(|(number, _)| number.to_string()).collect();
            let filter = EventFilter {
                least,
                kinds: kinds.to_vec(),
                ..EventFilter::default()
            };
            for limit in [1, 2, 100] {
                let found = all_events(store.as_ref(), &filter, limit).await;
                assert_eq!(found, wanted, "{filter:?}");
            }
        }
    }
}
