//! Removals: refused, done, repeated, kept, undone.

use super::{
    Fixture, assert_in_use, assert_invalid, assert_not_found, base, clear, order, overlay,
};
use crate::{Removal, RemovalOrder, RemovalState, StorageError, VolumeStore};
use futures::TryStreamExt as _;
use std::time::Duration;

const NEVER_OVER: Duration = Duration::from_secs(24 * 3600);

/// Gone from every call, its data given back, and the name free.
pub async fn a_removed_volume_is_gone(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("removed")).await;
    fixture.write(&made, 0, 1 << 20, 0x33).await;
    let order = order(&made, Duration::ZERO);
    let removal = store.remove(&order).await.unwrap();
    assert_eq!(
        (removal.id, &removal.volume, removal.state),
        (order.id, &made.volume, RemovalState::Gone)
    );
    assert!(
        removal.freed_bytes >= 1 << 20,
        "{} bytes",
        removal.freed_bytes
    );
    assert!(removal.condemned_at.is_some());
    assert_not_found(&store.stat(&made.volume.name).await);
    assert!(!is_listed(store, &order).await);
    let reused = base(store, &made.volume.name).await;
    assert!(fixture.reads(&reused, 0, 1 << 20, 0).await);
    clear(store, &[&reused]).await;
}

/// By the same order, by another, and for a name that never was.
pub async fn removing_what_is_gone_is_success(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("twice")).await;
    let first = order(&made, Duration::ZERO);
    store.remove(&first).await.unwrap();
    let never = RemovalOrder {
        volume: fixture.name("never-made"),
        ..order(&made, NEVER_OVER)
    };
    for gone in [
        first,
        order(&made, Duration::ZERO),
        order(&made, NEVER_OVER),
        never,
    ] {
        let removal = store.remove(&gone).await.unwrap();
        assert_eq!(
            (removal.state, removal.freed_bytes),
            (RemovalState::Gone, 0)
        );
        assert_eq!(
            (removal.id, removal.volume.name, removal.condemned_at),
            (gone.id, gone.volume.clone(), None)
        );
        assert!(!is_listed(store, &gone).await);
    }
}

/// Neither a late order nor a repeated one touches a volume that has the name by now.
pub async fn a_removal_hits_the_identity_not_the_name(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let old = base(store, &fixture.name("reused")).await;
    let done = order(&old, Duration::ZERO);
    store.remove(&done).await.unwrap();
    let new = base(store, &old.volume.name).await;
    assert_ne!(new.identity, old.identity);
    fixture.write(&new, 0, 4096, 0x44).await;
    for late in [done, order(&old, Duration::ZERO), order(&old, NEVER_OVER)] {
        assert_eq!(store.remove(&late).await.unwrap().state, RemovalState::Gone);
        assert_eq!(
            store.stat(&new.volume.name).await.unwrap().identity,
            new.identity
        );
    }
    assert!(fixture.reads(&new, 0, 4096, 0x44).await);
    clear(store, &[&new]).await;
}

/// While a header names it; and as soon as none does, the same order succeeds.
pub async fn a_parent_is_not_removed(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("parent")).await;
    let tops = [
        overlay(store, &fixture.name("child-1"), &below).await,
        overlay(store, &fixture.name("child-2"), &below).await,
    ];
    fixture.write(&below, 0, 4096, 0x55).await;
    let order = order(&below, Duration::ZERO);
    for top in &tops {
        assert_in_use(&store.remove(&order).await);
        assert!(fixture.reads(top, 0, 4096, 0x55).await);
        assert!(!is_listed(store, &order).await);
        clear(store, &[top]).await;
    }
    assert_eq!(
        store.remove(&order).await.unwrap().state,
        RemovalState::Gone
    );
}

/// An overlay that can be restored would need its parent.
pub async fn a_kept_overlay_holds_its_parent(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("held-below")).await;
    let top = overlay(store, &fixture.name("held-top"), &below).await;
    fixture.write(&below, 0, 4096, 0x66).await;
    let kept = order(&top, NEVER_OVER);
    store.remove(&kept).await.unwrap();
    assert_in_use(&store.remove(&order(&below, Duration::ZERO)).await);
    let back = store.restore(kept.id).await.unwrap();
    assert!(fixture.reads(&back, 0, 4096, 0x66).await);
    clear(store, &[&back, &below]).await;
}

/// It is no volume any more, but what is written below it would show in it once it is back.
pub async fn a_kept_overlay_is_a_dependent(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("kept-below")).await;
    let top = overlay(store, &fixture.name("kept-above"), &below).await;
    let kept = order(&top, NEVER_OVER);
    store.remove(&kept).await.unwrap();
    let asked = [below.locator.clone()];
    let told = store.dependents(&asked).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0].on, &told[0].volume), (&below.locator, &None));
    assert!(told[0].kept);
    let back = store.restore(kept.id).await.unwrap();
    clear(store, &[&back]).await;
    assert_eq!(store.dependents(&asked).await.unwrap(), []);
    clear(store, &[&below]).await;
}

/// Condemned: out of every view but the removals; restored: as it was, and removable again.
pub async fn a_kept_volume_is_listed_and_restored(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("kept")).await;
    fixture.write(&made, 4096, 4096, 0x77).await;
    let kept = order(&made, NEVER_OVER);
    let first = store.remove(&kept).await.unwrap();
    let shorter = RemovalOrder {
        keep_for: Duration::ZERO,
        ..kept.clone()
    };
    for removal in [
        first,
        store.remove(&kept).await.unwrap(),
        store.remove(&shorter).await.unwrap(),
    ] {
        assert_kept(&removal, &kept);
    }
    assert_not_found(&store.stat(&made.volume.name).await);
    let volumes: Vec<_> = store.list().try_collect().await.unwrap();
    assert!(volumes.iter().all(|info| info.volume != made.volume));
    let removals = store.list_removals().await.unwrap();
    assert_kept(
        removals
            .iter()
            .find(|removal| removal.id == kept.id)
            .unwrap(),
        &kept,
    );

    let back = store.restore(kept.id).await.unwrap();
    assert_eq!(
        (&back.volume, &back.identity),
        (&made.volume, &made.identity)
    );
    assert!(fixture.reads(&back, 4096, 4096, 0x77).await);
    assert!(!is_listed(store, &kept).await);
    assert_not_found(&store.restore(kept.id).await);
    assert_eq!(
        store.remove(&shorter).await.unwrap().state,
        RemovalState::Gone
    );
    assert_not_found(&store.stat(&made.volume.name).await);
}

/// The longest time that can be asked for is no error and not over at once.
pub async fn a_volume_can_be_kept_for_ever(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("kept-for-ever")).await;
    let kept = order(&made, Duration::MAX);
    for _repeated in 0..2 {
        assert_kept(&store.remove(&kept).await.unwrap(), &kept);
    }
    let back = store.restore(kept.id).await.unwrap();
    clear(store, &[&back]).await;
}

/// The same order, repeated, ends it.
pub async fn a_kept_volume_goes_when_its_time_is_over(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let made = base(store, &fixture.name("kept-shortly")).await;
    let shortly = order(&made, Duration::from_millis(20));
    while store.remove(&shortly).await.unwrap().state != RemovalState::Gone {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!is_listed(store, &shortly).await);
    assert_not_found(&store.restore(shortly.id).await);
    assert_not_found(&store.stat(&made.volume.name).await);
}

/// `NotFound` without one, `Invalid` over another volume; the kept one stays kept.
pub async fn restoring_needs_a_removal_and_a_free_name(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let old = base(store, &fixture.name("shadowed")).await;
    let kept = order(&old, NEVER_OVER);
    assert_not_found(&store.restore(kept.id).await);
    store.remove(&kept).await.unwrap();
    let new = base(store, &old.volume.name).await;
    assert_invalid(&store.restore(kept.id).await);
    assert_eq!(
        store.stat(&new.volume.name).await.unwrap().identity,
        new.identity
    );
    assert!(is_listed(store, &kept).await);
    clear(store, &[&new]).await;
    let back = store.restore(kept.id).await.unwrap();
    assert_eq!(back.identity, old.identity);
    clear(store, &[&back]).await;
}

/// An id that is taken does not remove, nor end the removal that has it.
pub async fn a_removal_id_is_for_one_volume(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let (one, other) = (
        base(store, &fixture.name("id-1")).await,
        base(store, &fixture.name("id-2")).await,
    );
    let kept = order(&one, NEVER_OVER);
    store.remove(&kept).await.unwrap();
    assert_invalid(
        &store
            .remove(&RemovalOrder {
                id: kept.id,
                ..order(&other, Duration::ZERO)
            })
            .await,
    );
    assert_eq!(
        store.stat(&other.volume.name).await.unwrap().identity,
        other.identity
    );
    let back = store.restore(kept.id).await.unwrap();
    clear(store, &[&back, &other]).await;
}

/// Several volumes, each by several calls of one order: every call ends well or says `Busy`.
pub async fn removals_at_once_do_not_disturb_each_other(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let mut orders = Vec::new();
    for number in 0..4 {
        let made = base(store, &fixture.name(&format!("at-once-{number}"))).await;
        fixture.write(&made, 0, 1 << 20, 0x88).await;
        orders.push(order(&made, Duration::ZERO));
    }
    let calls = orders
        .iter()
        .flat_map(|order| [order; 4])
        .map(|order| store.remove(order));
    for answer in futures::future::join_all(calls).await {
        let ended = matches!(&answer, Ok(removal) if removal.state == RemovalState::Gone);
        assert!(
            ended || matches!(answer, Err(StorageError::Busy { .. })),
            "{answer:?}"
        );
    }
    for order in &orders {
        assert_eq!(store.remove(order).await.unwrap().state, RemovalState::Gone);
        assert_not_found(&store.stat(&order.volume).await);
        assert!(!is_listed(store, order).await);
    }
}

fn assert_kept(removal: &Removal, order: &RemovalOrder) {
    assert_eq!(
        (removal.id, &removal.volume.name),
        (order.id, &order.volume)
    );
    let RemovalState::Condemned {
        keep_until: Some(until),
    } = removal.state
    else {
        panic!("{removal:?}");
    };
    assert!(until > removal.condemned_at.unwrap());
    assert_eq!(removal.freed_bytes, 0);
}

async fn is_listed(store: &dyn VolumeStore, order: &RemovalOrder) -> bool {
    store
        .list_removals()
        .await
        .unwrap()
        .iter()
        .any(|removal| removal.id == order.id)
}

/// Where the back end can, and refuses before anything is touched where it cannot.
pub async fn a_removal_wipes_and_discards_what_it_can(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let can = store.capabilities();
    for (label, wipe, discard) in [("wiped", true, false), ("discarded", false, true)] {
        let made = base(store, &fixture.name(label)).await;
        fixture.write(&made, 0, 1 << 20, 0x5c).await;
        let order = RemovalOrder {
            wipe,
            discard,
            ..order(&made, Duration::ZERO)
        };
        let removal = store.remove(&order).await;
        if wipe && can.wipe || discard && can.discard {
            assert_eq!(removal.unwrap().state, RemovalState::Gone);
            assert_not_found(&store.stat(&made.volume.name).await);
        } else {
            assert_invalid(&removal);
            assert!(fixture.reads(&made, 0, 1 << 20, 0x5c).await);
            clear(store, &[&made]).await;
        }
    }
}

/// What is kept together comes back together, the parent first.
pub async fn a_parent_is_kept_with_its_kept_overlay(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let below = base(store, &fixture.name("both-below")).await;
    let top = overlay(store, &fixture.name("both-top"), &below).await;
    fixture.write(&below, 0, 4096, 0x67).await;
    let (kept_top, kept_below) = (order(&top, NEVER_OVER), order(&below, NEVER_OVER));
    store.remove(&kept_top).await.unwrap();
    store.remove(&kept_below).await.unwrap();
    assert_not_found(&store.stat(&below.volume.name).await);
    store.restore(kept_below.id).await.unwrap();
    let back = store.restore(kept_top.id).await.unwrap();
    assert!(fixture.reads(&back, 0, 4096, 0x67).await);
    clear(store, &[&back, &below]).await;
}

/// Whoever goes on with a removal does nothing to a volume that was brought back, and ends what is
/// condemned.
pub async fn going_on_spares_what_was_brought_back(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("went-on")).await;
    let kept = order(&made, NEVER_OVER);
    let go_on = RemovalOrder {
        keep_for: Duration::ZERO,
        resumes: true,
        ..kept.clone()
    };
    store.remove(&go_on).await.unwrap();
    store.remove(&kept).await.unwrap();
    let still = store.remove(&go_on).await.unwrap();
    assert!(matches!(still.state, RemovalState::Condemned { .. }));
    store.restore(kept.id).await.unwrap();
    let late = store.remove(&go_on).await.unwrap();
    assert_eq!((late.state, late.freed_bytes), (RemovalState::Gone, 0));
    assert_eq!(
        store.stat(&made.volume.name).await.unwrap().identity,
        made.identity
    );
    clear(store, &[&made]).await;
}
