//! Removals of volumes that leave together.

use super::{Fixture, assert_in_use, assert_not_found, base, clear, order, overlay};
use crate::{LiveVolumes, RemovalOrder, RemovalState, VolumeInfo, VolumeStore};
use std::time::Duration;

const NEVER_OVER: Duration = Duration::from_secs(24 * 3600);

/// By one call, in whatever order they are named; what is kept comes back.
pub async fn a_chain_is_removed_together(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let chain = chain(store, fixture, "together").await;
    fixture.write(&chain[0], 0, 4096, 0x71).await;
    let kept: Vec<_> = chain.iter().map(|made| order(made, NEVER_OVER)).collect();
    for answer in store.remove_all(&kept).await {
        let state = answer.unwrap().state;
        assert!(matches!(state, RemovalState::Condemned { .. }), "{state:?}");
    }
    for kept in &kept {
        store.restore(kept.id).await.unwrap();
    }
    assert!(fixture.reads(&chain[2], 0, 4096, 0x71).await);

    let orders: Vec<_> = chain
        .iter()
        .map(|made| order(made, Duration::ZERO))
        .collect();
    for (order, answer) in orders.iter().zip(store.remove_all(&orders).await) {
        let removal = answer.unwrap();
        assert_eq!(
            (removal.id, removal.state),
            (order.id, RemovalState::Gone),
            "{}",
            order.volume
        );
        assert_not_found(&store.stat(&order.volume).await);
    }
    // As whoever has lost the answers asks again.
    for again in store.remove_all(&orders).await {
        let again = again.unwrap();
        assert_eq!((again.state, again.freed_bytes), (RemovalState::Gone, 0));
    }
    assert!(store.remove_all(&[]).await.is_empty());
}

/// What it is built on stays with it, and all else goes; later they go, too.
pub async fn one_that_stays_holds_what_goes_with_it(
    store: &dyn LiveVolumes,
    fixture: &dyn Fixture,
) {
    let chain = chain(store, fixture, "held").await;
    let other = base(store, &fixture.name("held-not")).await;
    let all: Vec<RemovalOrder> = chain
        .iter()
        .chain([&other])
        .map(|made| order(made, Duration::ZERO))
        .collect();
    let middle = &chain[1].volume.name;
    store.activate(middle).await.unwrap();
    let opened = fixture.open(&chain[1]).await;
    let answers = store.remove_all(&all).await;
    assert_in_use(&answers[0]);
    assert_in_use(&answers[1]);
    for (gone, volume) in [(&answers[2], &chain[2]), (&answers[3], &other)] {
        assert_eq!(gone.as_ref().unwrap().state, RemovalState::Gone);
        assert_not_found(&store.stat(&volume.volume.name).await);
    }
    opened.close().await;
    store.deactivate(middle).await.unwrap();
    // One that nobody asked to go holds the base alone.
    let clone = overlay(store, &fixture.name("held-clone"), &chain[0]).await;
    let answers = store.remove_all(&all[..2]).await;
    assert_in_use(&answers[0]);
    assert_eq!(answers[1].as_ref().unwrap().state, RemovalState::Gone);
    clear(store, &[&clone, &chain[0]]).await;
}

/// `0 ◀─ 1 ◀─ 2`.
async fn chain(store: &dyn VolumeStore, fixture: &dyn Fixture, label: &str) -> [VolumeInfo; 3] {
    let name = |number| fixture.name(&format!("{label}-{number}"));
    let below = base(store, &name(0)).await;
    let middle = overlay(store, &name(1), &below).await;
    let top = overlay(store, &name(2), &middle).await;
    [below, middle, top]
}
