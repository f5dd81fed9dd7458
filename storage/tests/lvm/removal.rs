//! Removals that overwrite, and those that are refused.

use crate::rig::{DISK, Daemon, GROUP, LONG, MIB, Rig, SIZE, config, device, open, order, run};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{LvmConfig, RemovalOrder, RemovalState, StorageError, VolumeStore as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// What no zeros and no metadata look like.
const MARK: u8 = 0xa7;
/// An image lays data out in multiples of it.
const BLOCK: usize = 4096;

pub(crate) async fn a_wiped_volume_has_left_nothing_on_the_disk(rig: &Rig) {
    for (label, wipe, discard) in [("plain", false, false), ("both", true, true)] {
        let made = rig.base(label).await;
        rig.write(&made, 0, SIZE, MARK).await;
        let places = places(label).await;
        assert!(marks(&places) >= SIZE as usize);
        let order = RemovalOrder {
            wipe,
            discard,
            ..order(&made, Duration::ZERO)
        };
        let removal = rig.store.remove(&order).await.unwrap();
        assert_eq!(removal.state, RemovalState::Gone);
        assert!(removal.freed_bytes >= SIZE, "{removal:?}");
        assert_eq!(marks(&places) == 0, wipe, "{label}");
        assert!(rig.names().await.is_empty());
    }
    // Kept, and wiped when its time is over, as it was first ordered.
    let made = rig.base("kept").await;
    rig.write(&made, 0, SIZE, MARK).await;
    let places = places("kept").await;
    let kept = RemovalOrder {
        wipe: true,
        keep_for: Duration::from_millis(1),
        ..order(&made, LONG)
    };
    let first = rig.store.remove(&kept).await.unwrap();
    let plain = RemovalOrder {
        wipe: false,
        ..kept
    };
    if first.state != RemovalState::Gone {
        assert_eq!(
            rig.store.remove(&plain).await.unwrap().state,
            RemovalState::Gone
        );
    }
    assert_eq!(marks(&places), 0);
}

/// Wipes are one after the other, and each may take hours.
pub(crate) async fn a_wiped_volume_is_gone_before_the_next_one_is_wiped(rig: &Rig) {
    let made = [rig.base("first").await, rig.base("second").await];
    let slowly = open(LvmConfig {
        // A second or more for each.
        wipe_bytes_per_second: 2 * MIB,
        ..config()
    });
    let slowly = slowly.await.unwrap();
    let orders = made.map(|made| RemovalOrder {
        wipe: true,
        ..order(&made, Duration::ZERO)
    });
    let removing = tokio::spawn(async move { slowly.remove_all(&orders).await });
    let mut seen = Vec::new();
    while !removing.is_finished() {
        seen.push(rig.names().await.len());
    }
    for answer in removing.await.unwrap() {
        assert_eq!(answer.unwrap().state, RemovalState::Gone);
    }
    assert!(seen.contains(&1), "{seen:?}");
    assert!(rig.names().await.is_empty());
}

/// Where the volume lies on the disk, in bytes.
async fn places(volume: &str) -> Vec<(u64, u64)> {
    let start = run(
        "pvs",
        &[
            "--noheadings",
            "--nosuffix",
            "--units",
            "b",
            "-o",
            "pe_start",
            DISK,
        ],
    )
    .await;
    let start: u64 = start.trim().parse().unwrap();
    let name = format!("{GROUP}/{volume}");
    let ranges = run("lvs", &["--noheadings", "-o", "seg_pe_ranges", &name]).await;
    let place = |range: &str| {
        let (_, range) = range.rsplit_once(':').unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        (start + first * (4 << 20), (last - first + 1) * (4 << 20))
    };
    ranges.split_whitespace().map(place).collect()
}

/// How many bytes of these places are the mark. What is read was not looked at before.
fn marks(places: &[(u64, u64)]) -> usize {
    use std::os::unix::fs::FileExt as _;
    let disk = std::fs::File::open(DISK).unwrap();
    rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut found = 0;
    for (at, bytes) in places {
        let mut read = vec![0; usize::try_from(*bytes).unwrap()];
        disk.read_exact_at(&mut read, *at).unwrap();
        let blocks = read.chunks(BLOCK).filter(|block| *block == [MARK; BLOCK]);
        found += blocks.count() * BLOCK;
    }
    found
}

/// As libvirt's namespaces give QEMU nodes of its own, whose locks nobody else sees.
pub(crate) async fn a_volume_that_another_node_has_open_is_in_use(rig: &Rig) {
    let made = rig.base("opened").await;
    let number = std::fs::metadata(device("opened")).unwrap().rdev();
    let dir = tempfile::tempdir_in("/dev").unwrap();
    let node = dir.path().join("node");
    let (major, minor) = (
        rustix::fs::major(number).to_string(),
        rustix::fs::minor(number).to_string(),
    );
    run("mknod", &[node.to_str().unwrap(), "b", &major, &minor]).await;
    let opened = Daemon::open(node.to_str().unwrap().to_owned()).await;
    let refused = [
        rig.store
            .remove(&order(&made, Duration::ZERO))
            .await
            .map(drop),
        rig.store.remove(&order(&made, LONG)).await.map(drop),
        rig.store.grow(&made.volume.name, 2 * SIZE).await.map(drop),
    ];
    for answer in refused {
        assert!(
            matches!(answer, Err(StorageError::InUse { .. })),
            "{answer:?}"
        );
    }
    assert!(rig.store.in_use(&made.volume.name).await.unwrap());
    opened.stop().await;
    rig.clear(&[&made]).await;
}

/// Between its beginning and its name it has no header, only a tag.
pub(crate) async fn whoever_is_being_made_on_a_volume_holds_it(rig: &Rig) {
    let made = rig.base("parent").await;
    let draft = [
        "-n",
        "livemerge.new.draft",
        "--addtag",
        "livemerge",
        "--addtag",
        "livemerge.parent=parent",
    ];
    run(
        "lvcreate",
        &[&["-q", "--yes", "-L", "4m"][..], &draft, &[GROUP]].concat(),
    )
    .await;
    let refused = rig.store.remove(&order(&made, Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    // Nobody makes it any more: the next start sweeps it.
    rig.reopened().await;
    assert_eq!(rig.names().await, ["parent"]);
    rig.clear(&[&made]).await;
}
