use super::scripted::{Scripted, order};
use super::volumes::LvmStore;
use crate::{LiveVolumes as _, RemovalOrder, RemovalState, StorageError, VolumeStore as _};
use futures::TryStreamExt as _;
use std::time::Duration;

/// A base, and a volume of which nobody knows.
async fn seen() -> (Scripted, LvmStore, String, RemovalOrder) {
    let group = Scripted::new();
    let id = group.volume("base", None);
    group.volume("other", None);
    let store = group.open().await;
    look(&store).await;
    let wanted = order("base", &id, Duration::ZERO);
    (group, store, id, wanted)
}

async fn look(store: &LvmStore) {
    store
        .list()
        .try_for_each(|_| async { Ok(()) })
        .await
        .unwrap();
}

fn is_there(group: &Scripted, id: &str) -> bool {
    !group.get(id, "name").is_empty()
}

#[tokio::test]
async fn what_was_just_looked_at_goes_at_one_command() {
    let (group, store, id, wanted) = seen().await;
    let reports = group.reports();
    let removal = store.remove(&wanted).await.unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
    assert!(!is_there(&group, &id));
    assert_eq!((group.reports(), group.calls().len()), (reports, 1));
    // Nothing of that look counts any more.
    let again = store.remove(&wanted).await.unwrap();
    assert_eq!(again.state, RemovalState::Gone);
    assert_eq!((group.reports(), group.calls().len()), (reports + 1, 1));
}

#[tokio::test]
async fn of_a_group_that_was_changed_since_nothing_goes_at_once() {
    let (group, store, id, wanted) = seen().await;
    // Somebody builds on it.
    let child = group.volume("child", Some("/dev/vg/base"));
    let refused = store.remove(&wanted).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    assert!(is_there(&group, &id));
    look(&store).await;
    // By another name, it is another change, and in nobody's way.
    group.image(&child, None);
    group.set(&child, "name", "apart");
    assert_eq!(
        store.remove(&wanted).await.unwrap().state,
        RemovalState::Gone
    );
    assert!(!is_there(&group, &id));
}

#[tokio::test]
async fn headers_are_read_anew() {
    let (group, store, id, wanted) = seen().await;
    // Without a change of the group.
    group.image("id-1", Some("/dev/vg/base"));
    let refused = store.remove(&wanted).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    assert!(is_there(&group, &id));
    assert_eq!(group.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_fails_at_once_is_looked_at_again() {
    let (group, store, id, wanted) = seen().await;
    group.on("lvremove", "echo failed >&2; exit 5");
    let reports = group.reports();
    let failed = store.remove(&wanted).await.unwrap_err();
    assert!(
        matches!(failed, StorageError::Unreachable { .. }),
        "{failed:?}"
    );
    assert!(is_there(&group, &id) && group.reports() > reports);
}

#[tokio::test]
async fn what_is_to_be_kept_or_is_active_goes_the_usual_way() {
    let (group, store, id, wanted) = seen().await;
    let reports = group.reports();
    let kept = RemovalOrder {
        keep_for: Duration::from_secs(60),
        ..wanted.clone()
    };
    let removal = store.remove(&kept).await.unwrap();
    assert!(
        matches!(removal.state, RemovalState::Condemned { .. }),
        "{removal:?}"
    );
    assert!(group.reports() > reports && is_there(&group, &id));
    // It was not active when it was looked at.
    let (group, store, id, wanted) = seen().await;
    let reports = group.reports();
    group.activate(&id);
    let removal = store.remove(&wanted).await.unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
    assert!(group.reports() > reports && !is_there(&group, &id));
    let plain = group.calls();
    assert!(
        plain.iter().all(|call| !call.contains("vg_seqno")),
        "{plain:?}"
    );
}

#[tokio::test]
async fn a_change_of_this_programs_makes_a_look_old_and_opening_it_does_not() {
    let (group, store, _, wanted) = seen().await;
    store.deactivate(&wanted.volume).await.unwrap();
    let reports = group.reports();
    store.remove(&wanted).await.unwrap();
    assert_eq!(group.reports(), reports);
    let (group, store, _, wanted) = seen().await;
    let other = order("other", "id-1", Duration::ZERO);
    store.remove(&other).await.unwrap();
    let reports = group.reports();
    store.remove(&wanted).await.unwrap();
    assert_eq!(group.reports(), reports + 1);
}

#[tokio::test]
async fn beside_a_foreign_volume_or_one_that_is_no_image_any_more_the_group_is_reported_anew() {
    let (group, store, _, wanted) = seen().await;
    group.foreign("apart");
    look(&store).await;
    let reports = group.reports();
    store.remove(&wanted).await.unwrap();
    assert!(group.reports() > reports);
    let (group, store, id, wanted) = seen().await;
    let reports = group.reports();
    group.write("id-1", &[0; 512]);
    store.remove(&wanted).await.unwrap();
    assert!(group.reports() > reports && !is_there(&group, &id));
}

#[tokio::test]
async fn of_those_that_go_only_in_part_each_is_answered_by_what_is_left_of_it() {
    let (group, store, id, wanted) = seen().await;
    let other = order("other", "id-1", Duration::ZERO);
    group.on("lvremove", "rm -r lv/id-0; echo it is in use >&2; exit 5");
    let (gone, left) = tokio::join!(store.remove(&wanted), store.remove(&other));
    let gone = gone.unwrap();
    assert!(!is_there(&group, &id));
    assert_eq!(
        (gone.state, gone.freed_bytes),
        (RemovalState::Gone, 4 << 20)
    );
    assert!(matches!(left, Err(StorageError::InUse { .. })), "{left:?}");
    assert_eq!(group.calls().len(), 1);
}
