//! Names that LVM would take for something else, and the many names of one device.

use crate::rig::{GROUP, MIB, Rig, device, name, order, run};
use livemerge_storage::{LiveVolumes as _, Locator, NewVolume, StorageError, VolumeStore as _};
use std::os::unix::fs::symlink;
use std::time::Duration;

pub(crate) async fn a_name_that_lvm_has_for_itself_is_refused_before_anything_is_done(rig: &Rig) {
    let victim = rig.base("victim").await;
    for hostile in [
        "snapshot0",
        "pvmove1",
        "a_tdata",
        "livemerge.removed.x",
        &"x".repeat(200),
    ] {
        let new = NewVolume {
            name: name(hostile),
            virtual_bytes: MIB,
            parent: None,
        };
        let removal = livemerge_storage::RemovalOrder {
            volume: name(hostile),
            ..order(&victim, Duration::ZERO)
        };
        let answers = [
            rig.store.create(&new).await.map(drop),
            rig.store.stat(&new.name).await.map(drop),
            rig.store.provide(&new.name, MIB).await.map(drop),
            rig.store.activate(&new.name).await.map(drop),
            rig.store.deactivate(&new.name).await,
            rig.store.remove(&removal).await.map(drop),
        ];
        for answer in answers {
            assert!(
                matches!(answer, Err(StorageError::Invalid(_))),
                "{hostile} {answer:?}"
            );
        }
    }
    assert_eq!(rig.names().await, ["victim"]);
    rig.clear(&[&victim]).await;
}

pub(crate) async fn every_spelling_of_a_device_is_the_volume(rig: &Rig) {
    let below = rig.base("a-b.c").await;
    let top = rig.overlay("top", &below).await;
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    symlink(device("a-b.c"), &link).unwrap();
    let number = std::fs::canonicalize(&link).unwrap();
    let mapper = "/dev/mapper/vg--0-a--b.c".into();
    for path in [device("a-b.c"), mapper, number, link.clone()] {
        for locator in [Locator::Block(path.clone()), Locator::File(path)] {
            assert_eq!(
                rig.store.resolve(&locator),
                Some(name("a-b.c")),
                "{locator}"
            );
            let told = rig
                .store
                .dependents(std::slice::from_ref(&locator))
                .await
                .unwrap();
            let by: Vec<_> = told
                .iter()
                .filter_map(|found| found.volume.as_ref())
                .collect();
            assert_eq!(by, [&name("top")], "{locator}");
        }
    }
    let spelled = [
        "/dev/mapper/vg--0-a--b.c",
        "a-b.c",
        "../mapper/vg--0-a--b.c",
        link.to_str().unwrap(),
    ];
    for backing in spelled {
        let rebase = ["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing];
        run("qemu-img", &[&rebase[..], &["/dev/vg-0/top"]].concat()).await;
        let refused = rig.store.remove(&order(&below, Duration::ZERO)).await;
        assert!(
            matches!(refused, Err(StorageError::InUse { .. })),
            "{backing} {refused:?}"
        );
    }
    rig.clear(&[&top, &below]).await;
}

pub(crate) async fn a_chain_without_end_is_told(rig: &Rig) {
    let below = rig.base("loop-1").await;
    let top = rig.overlay("loop-2", &below).await;
    let rebase = [
        "rebase",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "/dev/vg-0/loop-2",
        "/dev/vg-0/loop-1",
    ];
    run("qemu-img", &rebase).await;
    let answer = rig.store.activate(&name("loop-2")).await;
    assert!(
        matches!(answer, Err(StorageError::Invalid(_))),
        "{answer:?}"
    );
    for volume in [&below, &top] {
        let refused = rig.store.remove(&order(volume, Duration::ZERO)).await;
        assert!(
            matches!(refused, Err(StorageError::InUse { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(rig.names().await, ["loop-1", "loop-2"]);
    run("lvremove", &["-q", "--yes", GROUP]).await;
}
