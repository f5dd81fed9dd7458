//! Removals that do not end at once, on a group that is files.

use super::scripted::{Scripted, order};
use crate::{RemovalOrder, RemovalState, StorageError, VolumeStore as _};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(24 * 3600);

/// A volume that another process has condemned by this order, and has not looked at again.
async fn condemned(group: &Scripted, wanted: &RemovalOrder) {
    // The second look cannot be had.
    group.on("lvrename", "rm pv");
    let failed = group.open().await.remove(wanted).await;
    assert!(
        matches!(failed, Err(StorageError::Unreachable { .. })),
        "{failed:?}"
    );
    group.on("lvrename", "");
    group.disk();
}

#[tokio::test]
async fn whoever_goes_on_with_a_removal_looks_whether_it_is_needed_by_now() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let top = group.volume("top", None);
    let kept = order("base", &base, LONG);
    condemned(&group, &kept).await;
    group.image(&top, Some("/dev/vg/base"));
    needed(&group, &base, &kept).await;
    // One whose time is over, too; whoever goes on with it.
    for resumes in [false, true] {
        let wanted = RemovalOrder {
            resumes,
            ..order("base", &base, Duration::ZERO)
        };
        group.set(&base, "name", &format!("livemerge.removed.{}", wanted.id));
        group.tag(&base, &condemning(&base));
        needed(&group, &base, &wanted).await;
    }
    let calls = group.calls();
    assert!(!calls.iter().any(|call| call.starts_with("lvremove")));
}

/// It is refused, and the volume is back.
async fn needed(group: &Scripted, id: &str, wanted: &RemovalOrder) {
    let refused = group.open().await.remove(wanted).await;
    let Err(StorageError::InUse { by, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(by.contains("vg/top"), "{by}");
    assert_eq!(group.get(id, "name"), "base");
}

/// The tags of a volume whose time is over.
fn condemning(id: &str) -> [&str; 5] {
    let identity = format!("livemerge.removal.identity={id}");
    [
        "livemerge",
        "livemerge.format=qcow2",
        "livemerge.removal.volume=base",
        identity.leak(),
        "livemerge.removal.condemned_at=2020-01-01T00:00:00Z",
    ]
}

/// A snapshot by LVM's own means is removed with what it was made of.
#[tokio::test]
async fn one_of_which_a_snapshot_was_made_is_not_removed() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let snapshot = group.foreign("theirs");
    // As soon as it is condemned.
    let wanted = order("base", &base, LONG);
    let removed = format!("livemerge.removed.{}", wanted.id);
    let made =
        format!("case \"$*\" in *' {removed}') echo {removed} >lv/{snapshot}/origin ;; esac");
    group.on("lvrename", &made);
    refused_for_a_snapshot(&group, &base, &wanted).await;
    group.on("lvrename", "");
    // When its time is over.
    let wanted = order("base", &base, Duration::ZERO);
    let removed = format!("livemerge.removed.{}", wanted.id);
    group.set(&base, "name", &removed);
    group.tag(&base, &condemning(&base));
    group.set(&snapshot, "origin", &removed);
    refused_for_a_snapshot(&group, &base, &wanted).await;
    // When there is no way back.
    group.set(&base, "name", &removed);
    let purging = ["livemerge.removal.purging"];
    group.tag(&base, &[&condemning(&base)[..], &purging].concat());
    let busy = group.open().await.remove(&wanted).await;
    assert!(matches!(busy, Err(StorageError::Busy { .. })), "{busy:?}");
    assert_eq!(group.get(&base, "name"), removed);
    let calls = group.calls();
    assert!(!calls.iter().any(|call| call.starts_with("lvremove")));
}

async fn refused_for_a_snapshot(group: &Scripted, id: &str, wanted: &RemovalOrder) {
    let refused = group.open().await.remove(wanted).await;
    let Err(StorageError::InUse { by, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(by.contains("vg/theirs"), "{by}");
    assert_eq!(group.get(id, "name"), "base");
}

#[tokio::test]
async fn one_that_is_kept_is_not_activated_when_a_host_starts_until_it_is_back() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    for before in ["1", "0"] {
        group.set(&base, "autoactivation", before);
        let (wanted, store) = (order("base", &base, LONG), group.open().await);
        store.remove(&wanted).await.unwrap();
        assert_eq!(group.get(&base, "autoactivation"), "0");
        store.restore(wanted.id).await.unwrap();
        assert_eq!(group.get(&base, "autoactivation"), before);
    }
}

#[tokio::test]
async fn one_that_a_host_has_activated_as_it_started_is_removed_when_its_time_is_over() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let wanted = order("base", &base, LONG);
    group.set(&base, "name", &format!("livemerge.removed.{}", wanted.id));
    group.tag(&base, &condemning(&base));
    for number in ["major", "minor"] {
        group.set(&base, number, "253");
    }
    let removal = group.open().await.remove(&wanted).await.unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
    let calls = group.calls();
    assert!(calls[0].starts_with("lvchange --activate n"), "{calls:?}");
}

#[tokio::test]
async fn one_that_somebody_has_activated_meanwhile_comes_back() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let wanted = order("base", &base, LONG);
    group.set(&base, "name", &format!("livemerge.removed.{}", wanted.id));
    group.tag(&base, &condemning(&base));
    for (field, value) in [("major", "253"), ("minor", "253"), ("open", "1")] {
        group.set(&base, field, value);
    }
    let refused = group.open().await.remove(&wanted).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    assert_eq!(group.get(&base, "name"), "base");
    // But not when its name was used again, nor when it was freed in part.
    for (other, more) in [
        (Some("base"), None),
        (None, Some("livemerge.removal.purging")),
    ] {
        let wanted = order("base", &base, LONG);
        group.set(&base, "name", &format!("livemerge.removed.{}", wanted.id));
        let tags: Vec<_> = condemning(&base).into_iter().chain(more).collect();
        group.tag(&base, &tags);
        let other = other.map(|other| group.volume(other, None));
        let removal = group.open().await.remove(&wanted).await.unwrap();
        assert_eq!(removal.state, RemovalState::Gone);
        if let Some(other) = other {
            group.set(&other, "name", "other");
        }
        group.again(&base);
    }
}

#[tokio::test]
async fn what_is_built_on_it_and_kept_no_longer_than_it_stands_in_nobodys_way() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let top = group.volume("top", Some("/dev/vg/base"));
    let store = group.open().await;
    store.remove(&order("top", &top, LONG)).await.unwrap();
    let wanted = order("base", &base, LONG);
    for keep_for in [LONG, Duration::ZERO] {
        let again = RemovalOrder {
            keep_for,
            ..wanted.clone()
        };
        let removal = store.remove(&again).await.unwrap();
        assert!(matches!(removal.state, RemovalState::Condemned { .. }));
    }
}

#[tokio::test]
async fn one_that_another_host_has_ended_is_gone() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    group.on("lvrename", "rm -r lv/*; exit 0");
    let store = group.open().await;
    let removal = store.remove(&order("base", &base, LONG)).await.unwrap();
    assert_eq!(removal.state, RemovalState::Gone);
}
