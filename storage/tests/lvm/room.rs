//! Room that is given and taken back.

use crate::rig::{Daemon, GROUP, MIB, Rig, SIZE, name, run};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{LiveVolumes as _, NewVolume, StorageError, VolumeStore as _};

pub(crate) async fn room_is_given_while_somebody_writes_and_taken_back_when_nobody_does(rig: &Rig) {
    let made = rig.base("grows").await;
    let volume = &made.volume.name;
    assert_eq!(made.allocated_bytes, 4 * MIB);
    rig.store.activate(volume).await.unwrap();
    let opened = Daemon::open(made.locator.to_string()).await;
    for (asked, room) in [(MIB, 4), (5 * MIB, 8), (0, 8), (u64::MAX, 12)] {
        let given = rig.store.provide(volume, asked).await.unwrap();
        assert_eq!(given.allocated_bytes, room * MIB, "{asked}");
    }
    // As a change leaves it that was cut short behind the group's metadata.
    let mapped = "vg--0-grows";
    let all = run("dmsetup", &["table", mapped]).await;
    let less = all.replace(
        &format!("0 {} ", 12 * MIB / 512),
        &format!("0 {} ", 8 * MIB / 512),
    );
    assert_ne!(all, less, "it lies in one piece");
    run("dmsetup", &["load", mapped, "--table", less.trim()]).await;
    run("dmsetup", &["resume", mapped]).await;
    for (asked, room) in [(None, 8), (Some(MIB), 12)] {
        let info = match asked {
            None => rig.store.stat(volume).await.unwrap(),
            Some(asked) => rig.store.provide(volume, asked).await.unwrap(),
        };
        assert_eq!(info.allocated_bytes, room * MIB);
    }
    assert_eq!(run("dmsetup", &["table", mapped]).await, all);
    let refused = rig.store.reduce(volume).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    opened.stop().await;
    // All that a guest can write fits into the most that is given.
    rig.write(&made, 0, SIZE, 7).await;
    assert_eq!(
        rig.store.reduce(volume).await.unwrap().allocated_bytes,
        12 * MIB
    );
    assert!(rig.reads(&made, 0, SIZE, 7).await);
    rig.clear(&[&made]).await;

    let empty = rig.base("empty").await;
    rig.store.provide(&empty.volume.name, SIZE).await.unwrap();
    rig.store.deactivate(&empty.volume.name).await.unwrap();
    let reduced = rig.store.reduce(&empty.volume.name).await.unwrap();
    assert_eq!(reduced.allocated_bytes, 4 * MIB);
    let report = run("lvs", &["--noheadings", "-o", "lv_active", "vg-0/empty"]).await;
    assert_eq!(report.trim(), "", "it is left as it was found");
    assert_eq!(rig.store.stat(&empty.volume.name).await.unwrap(), reduced);
    rig.clear(&[&empty]).await;
}

pub(crate) async fn a_full_group_says_so(rig: &Rig) {
    let large = NewVolume {
        name: name("large"),
        virtual_bytes: 1 << 40,
        parent: None,
    };
    let made = rig.store.create(&large).await.unwrap();
    run(
        "lvcreate",
        &["-q", "--yes", "-l", "100%FREE", "-n", "rest", GROUP],
    )
    .await;
    assert_eq!(rig.store.space().await.unwrap().free_bytes, 0);
    let full = rig.store.provide(&large.name, 64 * MIB).await;
    assert!(
        matches!(full, Err(StorageError::NoSpace { needed, free: 0 }) if needed == 60 * MIB),
        "{full:?}"
    );
    let full = rig.create("another", None).await;
    assert!(
        matches!(full, Err(StorageError::NoSpace { free: 0, .. })),
        "{full:?}"
    );
    run("lvremove", &["-q", "--yes", "vg-0/rest"]).await;
    assert_eq!(rig.names().await, ["large"], "nothing is left half made");
    rig.clear(&[&made]).await;
}
