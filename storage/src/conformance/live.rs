//! Volumes that machines use.

use super::{Fixture, SIZE, assert_in_use, assert_not_found, base, clear, order, overlay};
use crate::{LiveVolumes, NewVolume, RemovalState};
use futures::FutureExt as _;
use std::time::Duration;

/// The locator is the volume's own and stays; it leads back to the name.
pub async fn an_activated_volume_resolves_to_itself(
    store: &dyn LiveVolumes,
    fixture: &dyn Fixture,
) {
    use crate::Locator::{Block, File, Nbd};
    let made = base(store, &fixture.name("active")).await;
    let name = &made.volume.name;
    let locator = store.activate(name).await.unwrap();
    assert_eq!(store.activate(name).await.unwrap(), locator);
    assert_eq!(store.stat(name).await.unwrap().locator, locator);
    assert_eq!(store.resolve(&locator).as_ref(), Some(name));
    for foreign in ["/", "", "active", "/no/such/place/active"] {
        for foreign in [
            File(foreign.into()),
            Block(foreign.into()),
            Nbd(foreign.to_owned()),
        ] {
            assert_eq!(store.resolve(&foreign), None, "{foreign}");
        }
    }
    for _repeated in 0..2 {
        store.deactivate(name).await.unwrap();
    }
    clear(store, &[&made]).await;
    assert_not_found(&store.activate(name).await);
}

/// Neither removed, grown nor deactivated until it is closed; then all of it.
pub async fn an_open_volume_is_in_use(store: &dyn LiveVolumes, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("open")).await;
    let name = &made.volume.name;
    store.activate(name).await.unwrap();
    let opened = fixture.open(&made).await;
    let order = order(&made, Duration::ZERO);
    assert!(store.in_use(name).await.unwrap());
    assert_in_use(&store.remove(&order).await);
    assert_in_use(&store.grow(name, SIZE * 2).await);
    assert_in_use(&store.deactivate(name).await);
    assert_eq!(store.stat(name).await.unwrap().identity, made.identity);
    assert!(
        store
            .list_removals()
            .await
            .unwrap()
            .iter()
            .all(|removal| removal.id != order.id)
    );

    opened.close().await;
    assert!(!store.in_use(name).await.unwrap());
    store.deactivate(name).await.unwrap();
    assert_eq!(
        store.remove(&order).await.unwrap().state,
        RemovalState::Gone
    );
}

/// A parent is open as long as its overlay is, and may be built upon meanwhile.
pub async fn an_open_overlay_uses_its_parent(store: &dyn LiveVolumes, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("open-below")).await;
    let top = overlay(store, &fixture.name("open-top"), &below).await;
    for volume in [&below, &top] {
        store.activate(&volume.volume.name).await.unwrap();
    }
    let opened = fixture.open(&top).await;
    for volume in [&below, &top] {
        assert!(store.in_use(&volume.volume.name).await.unwrap());
        assert_in_use(&store.remove(&order(volume, Duration::ZERO)).await);
    }
    let next = overlay(store, &fixture.name("open-next"), &top).await;
    opened.close().await;
    for volume in [&top, &below] {
        assert!(!store.in_use(&volume.volume.name).await.unwrap());
        store.deactivate(&volume.volume.name).await.unwrap();
    }
    clear(store, &[&next, &top, &below]).await;
}

/// Dropping a call's future leaves nothing half done that the same call does not finish.
pub async fn a_call_that_nobody_waits_for_can_be_repeated(
    store: &dyn LiveVolumes,
    fixture: &dyn Fixture,
) {
    let new = NewVolume {
        name: fixture.name("dropped"),
        virtual_bytes: SIZE,
        parent: None,
    };
    drop(store.create(&new).now_or_never());
    let made = store.create(&new).await.unwrap();
    drop(store.grow(&new.name, SIZE * 2).now_or_never());
    let grown = repeated(|| store.grow(&new.name, SIZE * 2)).await;
    assert_eq!(
        (&grown.identity, grown.virtual_bytes),
        (&made.identity, SIZE * 2)
    );
    let order = order(&made, Duration::ZERO);
    drop(store.remove(&order).now_or_never());
    assert_eq!(
        repeated(|| store.remove(&order)).await.state,
        RemovalState::Gone
    );
    assert_not_found(&store.stat(&new.name).await);
}

/// Until what the dropped call does is over.
async fn repeated<T, F>(call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, crate::StorageError>>,
{
    loop {
        match call().await {
            Err(error) if error.worth_a_retry() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ended => return ended.unwrap(),
        }
    }
}
