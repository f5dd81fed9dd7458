//! A caller that retries through faults ends where it would have ended without them.

use crate::rig::{Files, LONG, Rig, order};
use futures::TryStreamExt as _;
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::faulty::{Call, Fault, Faulty, Moment};
use livemerge_storage::{
    LiveVolumes as _, Removal, RemovalOrder, RemovalState, StorageError, VolumeStore,
};

/// What an orderer does: the same order until it ends.
async fn until_it_ends(store: &dyn VolumeStore, order: &RemovalOrder) -> Removal {
    loop {
        match store.remove(order).await {
            Ok(removal) => return removal,
            Err(error) => assert!(error.worth_a_retry(), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_removal_whose_answers_are_lost_is_done_once() {
    for moments in [
        &[Moment::Before] as &[_],
        &[Moment::After],
        &[Moment::After, Moment::Before, Moment::After],
    ] {
        let rig = Rig::new().await;
        let store = Faulty::new(rig.store.clone());
        let made = rig.base("v.qcow2").await;
        let order = order(&made, std::time::Duration::ZERO);
        for (skip, moment) in moments.iter().enumerate() {
            let error = StorageError::Busy {
                what: "v".to_owned(),
            };
            store.inject(Fault {
                call: Some(Call::Remove),
                skip,
                moment: *moment,
                error,
            });
        }
        assert_eq!(
            until_it_ends(&store, &order).await.state,
            RemovalState::Gone
        );
        assert_eq!(
            (store.calls().len(), store.pending()),
            (moments.len() + 1, 0)
        );
        assert_eq!(rig.files(), []);
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_spares_the_volume_that_has_the_name_by_now() {
    let rig = Rig::new().await;
    let store = Faulty::new(rig.store.clone());
    let order = order(&rig.base("v.qcow2").await, std::time::Duration::ZERO);
    store.lose(Call::Remove, Moment::After);
    store.remove(&order).await.unwrap_err();
    let new = rig.base("v.qcow2").await;
    Files.write(&new, 0, 4096, 7).await;
    assert_eq!(
        until_it_ends(&store, &order).await.state,
        RemovalState::Gone
    );
    assert_eq!(
        store.stat(&order.volume).await.unwrap().identity,
        new.identity
    );
    assert!(Files.reads(&new, 0, 4096, 7).await);
}

#[tokio::test]
async fn a_kept_volume_survives_lost_answers_and_comes_back() {
    let rig = Rig::new().await;
    let store = Faulty::new(rig.store.clone());
    let made = rig.base("v.qcow2").await;
    let order = order(&made, LONG);
    store.lose(Call::Remove, Moment::After);
    let removal = until_it_ends(&store, &order).await;
    assert!(matches!(
        removal.state,
        RemovalState::Condemned {
            keep_until: Some(_)
        }
    ));
    store.lose(Call::Restore, Moment::Before);
    store.restore(order.id).await.unwrap_err();
    assert_eq!(
        store.restore(order.id).await.unwrap().identity,
        made.identity
    );
}

#[tokio::test]
async fn every_call_fails_once_where_it_is_told_to() {
    let rig = Rig::new().await;
    let store = Faulty::new(rig.store.clone());
    let name = rig.base("v.qcow2").await.volume.name;
    store.lose(Call::List, Moment::After);
    store.lose(Call::Stat, Moment::Before);
    let mut list = store.list();
    assert_eq!(list.try_next().await.unwrap().unwrap().volume.name, name);
    list.try_next().await.unwrap_err();
    drop(list);
    assert_eq!(store.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);

    let error = StorageError::Busy {
        what: "it".to_owned(),
    };
    store.inject(Fault {
        call: None,
        skip: 2,
        moment: Moment::Before,
        error,
    });
    let lost = store.stat(&name).await;
    assert!(
        matches!(lost, Err(StorageError::Unreachable { .. })),
        "{lost:?}"
    );
    store.in_use(&name).await.unwrap();
    let third = store.activate(&name).await;
    assert!(matches!(third, Err(StorageError::Busy { .. })), "{third:?}");
    store.activate(&name).await.unwrap();
    assert_eq!(
        store.calls(),
        [
            Call::List,
            Call::List,
            Call::Stat,
            Call::InUse,
            Call::Activate,
            Call::Activate
        ]
    );
}
