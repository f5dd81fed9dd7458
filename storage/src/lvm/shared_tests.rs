//! A group that several hosts have, on one that is files.

use super::scripted::{Scripted, order};
use crate::{LiveVolumes as _, RemovalState, StorageError, VolumeStore as _};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// The lock that a volume has which is active in shared mode, and that LVM asks for to extend it, exclude
/// each other.
#[tokio::test]
async fn a_volume_that_other_hosts_may_have_active_is_extended_under_its_shared_lock() {
    let name = "base".parse().unwrap();
    for shared in [true, false] {
        let group = Scripted::new();
        group.volume("base", None);
        let store = match shared {
            true => group.open_shared().await,
            false => group.open().await,
        };
        let info = store.provide(&name, 8 << 20).await.unwrap();
        assert_eq!(info.allocated_bytes, 8 << 20);
        let calls = group.calls();
        let told = calls[0].contains("--lockopt shupdate,norefresh");
        assert!(
            calls[0].starts_with("lvextend") && told == shared,
            "{calls:?}"
        );
        assert_eq!(calls[0].contains("use_lvmlockd=1"), shared, "{calls:?}");
    }
}

#[tokio::test]
async fn a_volume_is_activated_so_that_other_hosts_can_do_so_too() {
    for (shared, mode) in [(true, "sy"), (false, "y")] {
        let group = Scripted::new();
        group.volume("base", None);
        let store = match shared {
            true => group.open_shared().await,
            false => group.open().await,
        };
        store.activate(&"base".parse().unwrap()).await.unwrap();
        let calls = group.calls();
        let activated = format!("--activate {mode} -- vg/base");
        assert!(calls[0].ends_with(&activated), "{calls:?}");
    }
}

/// Another host may build on it between the gate and the change.
#[tokio::test]
async fn a_removal_from_a_shared_group_takes_the_name_first_and_looks_again() {
    let group = Scripted::new();
    let base = group.volume("base", None);
    let top = group.volume("top", Some("/dev/vg/base"));
    let store = group.open_shared().await;
    // As the other host writes it just before the name is taken.
    let at: u64 = group.get(&top, "at").parse().unwrap();
    let mut built = vec![0; 1 << 16];
    let disk = File::open(group.dir().join("pv")).unwrap();
    disk.read_exact_at(&mut built, at * (4 << 20)).unwrap();
    std::fs::write(group.dir().join("built"), built).unwrap();
    group.image(&top, None);
    let place = format!("of=pv bs=4194304 seek={at} conv=notrunc status=none");
    group.on("lvrename", &format!("dd if=built {place}; rm on-lvrename"));
    let refused = store.remove(&order("base", &base, Duration::ZERO)).await;
    let Err(StorageError::InUse { by, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(by.contains("vg/top"), "{by}");
    assert_eq!(group.get(&base, "name"), "base");

    group.image(&top, None);
    let before = group.calls().len();
    let removed = store.remove(&order("base", &base, Duration::ZERO)).await;
    assert_eq!(removed.unwrap().state, RemovalState::Gone);
    let calls = group.calls().split_off(before);
    let commands: Vec<_> = calls
        .iter()
        .filter_map(|call| call.split(' ').next())
        .collect();
    assert_eq!(commands, ["lvchange", "lvrename", "lvremove"]);
}
