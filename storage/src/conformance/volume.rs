//! Volumes that come, are looked at, and grow.

use super::{Fixture, SIZE, assert_invalid, assert_not_found, base, clear, on, overlay};
use crate::{Dependent, Format, Locator, NewVolume, Parent, VolumeInfo, VolumeStore};
use futures::TryStreamExt as _;
use std::collections::BTreeSet;

/// `create` is whole on return, and `stat` says the same.
pub async fn a_new_volume_is_as_ordered_and_reads_zeros(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let name = fixture.name("new");
    let made = base(store, &name).await;
    assert_eq!(
        (&made.volume.storage, &made.volume.name),
        (store.id(), &name)
    );
    assert_eq!(
        (made.format, made.virtual_bytes, &made.parent),
        (Format::Qcow2, SIZE, &None)
    );
    assert_eq!(
        lasting(store.stat(&name).await.unwrap()),
        lasting(made.clone())
    );
    assert!(!store.in_use(&name).await.unwrap());
    assert!(fixture.reads(&made, 0, SIZE, 0).await);
    if store.capabilities().thin {
        assert!(
            made.allocated_bytes < SIZE,
            "{} bytes",
            made.allocated_bytes
        );
    }
    clear(store, &[&made]).await;
}

/// A repeated `create` changes nothing: not the mark, not the data.
pub async fn creating_again_returns_what_is_there(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("again")).await;
    fixture.write(&made, 4096, 4096, 0x5a).await;
    let again = base(store, &made.volume.name).await;
    assert_eq!(again.identity, made.identity);
    assert!(fixture.reads(&again, 4096, 4096, 0x5a).await);
    let top = overlay(store, &fixture.name("again-top"), &made).await;
    assert_eq!(
        overlay(store, &top.volume.name, &made).await.identity,
        top.identity
    );
    clear(store, &[&top, &made]).await;
}

/// The same name with another size or parent is refused, and what is there stays.
pub async fn creating_another_volume_under_a_name_is_invalid(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let (made, other) = (
        base(store, &fixture.name("taken")).await,
        base(store, &fixture.name("other")).await,
    );
    let name = made.volume.name.clone();
    for (virtual_bytes, parent) in [(SIZE * 2, None), (SIZE, Some(on(&other)))] {
        let new = NewVolume {
            name: name.clone(),
            virtual_bytes,
            parent,
        };
        assert_invalid(&store.create(&new).await);
    }
    assert_eq!(
        lasting(store.stat(&name).await.unwrap()),
        lasting(made.clone())
    );
    clear(store, &[&made, &other]).await;
}

/// A size that cannot be is refused before anything is there.
pub async fn sizes_are_bounded(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let name = fixture.name("bounds");
    for virtual_bytes in [0, 1, 513, SIZE + 1, u64::MAX, u64::MAX - 511, 1 << 63] {
        assert_invalid(
            &store
                .create(&NewVolume {
                    name: name.clone(),
                    virtual_bytes,
                    parent: None,
                })
                .await,
        );
        assert_not_found(&store.stat(&name).await);
    }
    let smallest = NewVolume {
        name: name.clone(),
        virtual_bytes: 512,
        parent: None,
    };
    let made = store.create(&smallest).await.unwrap();
    assert_eq!(made.virtual_bytes, 512);
    assert_invalid(&store.grow(&name, u64::MAX).await);
    assert_eq!(store.stat(&name).await.unwrap().virtual_bytes, 512);
    clear(store, &[&made]).await;
}

/// A parent must be there, be of the domain, and have the format that is said.
pub async fn a_volume_is_built_on_a_volume_of_its_domain(
    store: &dyn VolumeStore,
    fixture: &dyn Fixture,
) {
    let name = fixture.name("orphan");
    let gone = base(store, &fixture.name("gone-parent")).await;
    let new = |parent| NewVolume {
        name: name.clone(),
        virtual_bytes: SIZE,
        parent: Some(parent),
    };
    assert_invalid(
        &store
            .create(&new(Parent {
                format: Some(Format::Raw),
                ..on(&gone)
            }))
            .await,
    );
    clear(store, &[&gone]).await;
    assert_not_found(&store.create(&new(on(&gone))).await);
    for outside in [
        Locator::File("/etc/passwd".into()),
        Locator::File("relative".into()),
        Locator::Block("/dev/null".into()),
        Locator::Nbd("nbd://localhost/x".to_owned()),
    ] {
        assert_invalid(
            &store
                .create(&new(Parent {
                    locator: outside,
                    format: Some(Format::Qcow2),
                }))
                .await,
        );
    }
    assert_not_found(&store.stat(&name).await);
}

/// `NotFound`, from every call that names a volume; a removal is the exception.
pub async fn what_was_never_there_is_not_found(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let name = fixture.name("never");
    assert_not_found(&store.stat(&name).await);
    assert_not_found(&store.grow(&name, SIZE).await);
    assert_not_found(&store.parent_of(&name).await);
    assert_not_found(&store.in_use(&name).await);
}

/// Every volume once, none that is not there, as `stat` tells it.
pub async fn the_list_is_complete(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let before = listed(store).await;
    let mut made = Vec::new();
    for number in 0..fixture.many() {
        made.push(base(store, &fixture.name(&format!("listed-{number}"))).await);
    }
    made.push(overlay(store, &fixture.name("listed-top"), &made[0]).await);
    let mut expected = before.clone();
    expected.extend(made.iter().map(key));
    assert_eq!(listed(store).await, expected);
    made.reverse();
    clear(store, &made.iter().collect::<Vec<_>>()).await;
    assert_eq!(listed(store).await, before);
}

/// `grow` makes larger, keeps the data, and repeats harmlessly.
pub async fn growing_grows_and_never_shrinks(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("grown")).await;
    let name = &made.volume.name;
    fixture.write(&made, SIZE - 4096, 4096, 0x77).await;
    for (asked, expected) in [
        (SIZE * 2, SIZE * 2),
        (SIZE * 2, SIZE * 2),
        (SIZE, SIZE * 2),
        (0, SIZE * 2),
    ] {
        let grown = store.grow(name, asked).await.unwrap();
        assert_eq!(
            (grown.virtual_bytes, &grown.identity),
            (expected, &made.identity)
        );
        assert_eq!(store.stat(name).await.unwrap().virtual_bytes, expected);
    }
    let odd = store.grow(name, SIZE * 2 + 1).await.unwrap();
    assert!(odd.virtual_bytes > SIZE * 2);
    assert!(fixture.reads(&odd, SIZE - 4096, 4096, 0x77).await);
    assert!(fixture.reads(&odd, SIZE, SIZE, 0).await);
    clear(store, &[&odd]).await;
}

/// The header's word: `None` for a base, the parent's own locator for an overlay.
pub async fn an_overlay_names_its_parent(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("below")).await;
    fixture.write(&below, 0, 4096, 0x11).await;
    let top = overlay(store, &fixture.name("above"), &below).await;
    assert_eq!(store.parent_of(&below.volume.name).await.unwrap(), None);
    assert_eq!(
        store.parent_of(&top.volume.name).await.unwrap(),
        Some(on(&below))
    );
    assert_eq!(top.parent, Some(on(&below)));
    assert!(fixture.reads(&top, 0, 4096, 0x11).await);
    fixture.write(&top, 0, 4096, 0x22).await;
    assert!(fixture.reads(&top, 0, 4096, 0x22).await);
    assert!(fixture.reads(&below, 0, 4096, 0x11).await);
    clear(store, &[&top, &below]).await;
}

/// Directly, by whom, and of several at once; nothing of what is not there.
pub async fn what_is_built_on_a_volume_is_told(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let below = base(store, &fixture.name("carries")).await;
    let clone = overlay(store, &fixture.name("carried-1"), &below).await;
    let middle = overlay(store, &fixture.name("carried-2"), &below).await;
    let top = overlay(store, &fixture.name("carried-3"), &middle).await;
    let gone = base(store, &fixture.name("carries-nothing")).await;
    clear(store, &[&gone]).await;
    let asked = [&below, &top, &middle, &gone].map(|info| info.locator.clone());
    let mut told = store.dependents(&asked).await.unwrap();
    told.sort_by(|a, b| a.locator.cmp(&b.locator));
    let dependent = |of: &VolumeInfo, on: &VolumeInfo| Dependent {
        on: on.locator.clone(),
        volume: Some(of.volume.name.clone()),
        locator: of.locator.clone(),
        kept: false,
    };
    let expected = [
        dependent(&clone, &below),
        dependent(&middle, &below),
        dependent(&top, &middle),
    ];
    assert_eq!(told, expected);
    assert_eq!(store.dependents(&[]).await.unwrap(), []);
    clear(store, &[&top, &middle, &clone]).await;
    assert_eq!(store.dependents(&asked).await.unwrap(), []);
    clear(store, &[&below]).await;
}

/// Free is part of all.
pub async fn space_is_told(store: &dyn VolumeStore, _fixture: &dyn Fixture) {
    let space = store.space().await.unwrap();
    assert!(space.free_bytes <= space.total_bytes, "{space:?}");
    assert!(space.total_bytes > SIZE, "{space:?}");
}

async fn listed(store: &dyn VolumeStore) -> BTreeSet<(String, String, u64)> {
    let all: Vec<VolumeInfo> = store.list().try_collect().await.unwrap();
    let count = all.len();
    let set: BTreeSet<_> = all.iter().map(key).collect();
    assert_eq!(set.len(), count, "a volume is listed twice");
    set
}

/// Without what may change by itself.
fn lasting(info: VolumeInfo) -> VolumeInfo {
    VolumeInfo {
        allocated_bytes: 0,
        ..info
    }
}

fn key(info: &VolumeInfo) -> (String, String, u64) {
    (
        info.volume.to_string(),
        info.identity.to_string(),
        info.virtual_bytes,
    )
}

/// Room is given where it must be, never taken away by it, and its data stay; what nobody needs can be
/// taken back.
pub async fn a_volume_has_the_room_it_is_given(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let made = base(store, &fixture.name("roomy")).await;
    let name = &made.volume.name;
    fixture.write(&made, 4096, 4096, 0x3c).await;
    let before = store.stat(name).await.unwrap().allocated_bytes;
    let mut given = before;
    for wanted in [SIZE, SIZE / 2, 0] {
        let now = store.provide(name, wanted).await.unwrap();
        assert_eq!((&now.identity, now.virtual_bytes), (&made.identity, SIZE));
        assert!(now.allocated_bytes >= given, "{wanted}");
        if store.capabilities().provided {
            assert!(now.allocated_bytes >= wanted);
        }
        given = now.allocated_bytes;
    }
    let reduced = store.reduce(name).await.unwrap();
    assert!(reduced.allocated_bytes <= given);
    assert!(fixture.reads(&made, 4096, 4096, 0x3c).await);
    let never = fixture.name("never-roomy");
    assert_not_found(&store.provide(&never, SIZE).await);
    assert_not_found(&store.reduce(&never).await);
    clear(store, &[&made]).await;
}

/// Neither a volume nor what is kept of one.
pub async fn no_volume_is_foreign(store: &dyn VolumeStore, fixture: &dyn Fixture) {
    let before = store.foreign().await.unwrap();
    let below = base(store, &fixture.name("own")).await;
    let top = overlay(store, &fixture.name("own-top"), &below).await;
    assert_eq!(store.foreign().await.unwrap(), before);
    clear(store, &[&top, &below]).await;
    assert_eq!(store.foreign().await.unwrap(), before);
}
