//! Neighbours in the group, and a group that is not whole.

use crate::rig::{GROUP, Rig, config, device, name, open, order, run};
use livemerge_storage::{LvmConfig, StorageError, VolumeStore as _};
use std::time::Duration;

pub(crate) async fn what_is_not_ours_is_told_and_never_touched(rig: &Rig) {
    run(
        "lvcreate",
        &["-q", "--yes", "-L", "4m", "-n", "swap", GROUP],
    )
    .await;
    let taken = rig.create("swap", None).await;
    assert!(matches!(taken, Err(StorageError::Invalid(_))), "{taken:?}");
    let missing = rig.store.stat(&name("swap")).await;
    assert!(
        matches!(missing, Err(StorageError::NotFound { .. })),
        "{missing:?}"
    );
    assert_eq!(rig.store.foreign().await.unwrap(), ["swap"]);
    // One that was ours and is not any more.
    let made = rig.base("given-away").await;
    run(
        "lvchange",
        &["-q", "--deltag", "livemerge", "vg-0/given-away"],
    )
    .await;
    let refused = rig.store.remove(&order(&made, Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(StorageError::Invalid(_))),
        "{refused:?}"
    );
    assert_eq!(rig.names().await, ["given-away", "swap"]);
    run("lvremove", &["-q", "--yes", GROUP]).await;
}

pub(crate) async fn a_foreign_image_holds_what_it_is_built_on(rig: &Rig) {
    let below = rig.base("below").await;
    run(
        "lvcreate",
        &["-q", "--yes", "-L", "4m", "-n", "theirs", GROUP],
    )
    .await;
    let create = [
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "/dev/vg-0/below",
    ];
    run(
        "qemu-img",
        &[&create[..], &["/dev/vg-0/theirs", "8M"]].concat(),
    )
    .await;
    for inactive in [false, true] {
        if inactive {
            run("lvchange", &["-an", "vg-0/theirs"]).await;
        }
        let refused = rig.store.remove(&order(&below, Duration::ZERO)).await;
        let Err(StorageError::InUse { by, .. }) = &refused else {
            panic!("{refused:?}");
        };
        assert!(by.contains("vg-0/theirs"), "{by}");
    }
    let told = rig
        .store
        .dependents(std::slice::from_ref(&below.locator))
        .await
        .unwrap();
    assert_eq!((told.len(), &told[0].volume), (1, &None));
    run("lvremove", &["-q", "--yes", "vg-0/theirs"]).await;
    // A snapshot of LVM's own would go with it.
    let snapshot = [
        "-q",
        "--yes",
        "-s",
        "-L",
        "4m",
        "-n",
        "theirs",
        "vg-0/below",
    ];
    run("lvcreate", &snapshot).await;
    let refused = rig.store.remove(&order(&below, Duration::ZERO)).await;
    let Err(StorageError::InUse { by, .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert!(by.contains("vg-0/theirs"), "{by}");
    run("lvremove", &["-q", "--yes", "vg-0/theirs"]).await;
    rig.clear(&[&below]).await;
}

pub(crate) async fn a_group_that_is_missing_or_lacks_a_device_removes_nothing(rig: &Rig) {
    let nowhere = LvmConfig {
        group: "nowhere".to_owned(),
        ..config()
    };
    let missing = open(nowhere).await;
    assert!(
        matches!(missing, Err(StorageError::Unreachable { .. })),
        "{missing:?}"
    );
    for bad in ["--help", "../etc", "a b", ""] {
        let refused = open(LvmConfig::of(bad)).await;
        assert!(
            matches!(refused, Err(StorageError::Invalid(_))),
            "{bad} {refused:?}"
        );
    }
    let made = rig.base("stays").await;
    run("vgextend", &["-q", GROUP, "/dev/vdb"]).await;
    // This domain may look at the first of them only.
    let answers = [
        rig.store
            .remove(&order(&made, Duration::ZERO))
            .await
            .map(drop),
        rig.store.stat(&made.volume.name).await.map(drop),
        rig.create("new", None).await.map(drop),
    ];
    for answer in answers {
        assert!(
            matches!(answer, Err(StorageError::Unreachable { .. })),
            "{answer:?}"
        );
    }
    run("vgreduce", &["-q", GROUP, "/dev/vdb"]).await;
    assert_eq!(rig.names().await, ["stays"]);
    assert!(device("stays").exists());
    rig.clear(&[&made]).await;
}
