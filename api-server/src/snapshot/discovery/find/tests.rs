use super::*;
use crate::hosts::LayerFormat;
use crate::snapshot::Merging;
use crate::store::conformance::records::{at, id, snapshot};
use livemerge_storage::VolumeRef;

fn mark(name: &str) -> Mark {
    Mark {
        volume: VolumeRef {
            storage: "default".parse().unwrap(),
            name: name.parse().unwrap(),
        },
        identity: format!("of-{name}").parse().unwrap(),
    }
}

fn layer(name: &str) -> Layer {
    Layer {
        mark: Some(mark(name)),
        locator: format!("/images/{name}"),
        format: LayerFormat::Qcow2,
        virtual_bytes: 1,
        allocated_bytes: 1,
        shared_with: vec![],
        encrypted: false,
        bitmaps: vec![],
    }
}

fn chain(disk: &str, layers: &[&str]) -> Chain {
    Chain {
        disk: disk.parse().unwrap(),
        layers: layers.iter().map(|name| layer(name)).collect(),
        job_running: false,
        libvirt_snapshots: vec![],
        guest_discards: false,
    }
}

fn of(number: u64, volume: &str, origin: Origin) -> Snapshot {
    Snapshot {
        origin,
        state: SnapshotState::Ready,
        disks: vec![SnapshotDisk {
            disk: "vda".parse().unwrap(),
            volume: mark(volume).volume,
            merging: None,
        }],
        revision: 1,
        ..snapshot(number, 1, &format!("s{number}"))
    }
}

/// The names that are new, and the ids that go.
fn found(chains: &[Chain], snapshots: &[Snapshot]) -> (Vec<String>, Vec<SnapshotId>) {
    let machine = Machine {
        vm: id(1),
        host: &"host-1".parse().unwrap(),
        chains,
        snapshots,
        now: at(5),
    };
    let mut number = 100;
    let found = find(&machine, &mut || {
        number += 1;
        Uuid::from_u128(number)
    });
    assert_eq!(found.snapshots.len(), found.events.len());
    let (mut new, mut gone) = (vec![], vec![]);
    for (change, event) in found.snapshots.into_iter().zip(found.events) {
        assert_eq!(event.vm, Some(id(1)));
        match change {
            SnapshotChange::Put(snapshot) => {
                assert_eq!(event.kind, EventKind::SnapshotDiscovered);
                assert_eq!(event.snapshot, Some(snapshot.id));
                assert_eq!(snapshot.origin, Origin::Discovered);
                assert_eq!((snapshot.revision, snapshot.created_at), (0, at(5)));
                let [disk] = snapshot.disks.as_slice() else {
                    panic!("{snapshot:?}");
                };
                new.push(format!("{}: {}", snapshot.name, disk.volume.name));
            }
            SnapshotChange::Delete(id) => {
                assert_eq!(event.kind, EventKind::SnapshotVanished);
                assert_eq!(event.snapshot, Some(id));
                gone.push(id);
            }
        }
    }
    (new, gone)
}

const NONE: ([String; 0], [SnapshotId; 0]) = ([], []);

#[track_caller]
fn nothing(chains: &[Chain], snapshots: &[Snapshot]) {
    let (new, gone) = found(chains, snapshots);
    assert_eq!((&*new, &*gone), (&NONE.0[..], &NONE.1[..]));
}

#[test]
fn a_machine_without_a_frozen_layer_has_no_snapshot() {
    nothing(&[chain("vda", &["base.qcow2"]), chain("vdb", &[])], &[]);
}

#[test]
fn each_frozen_layer_of_each_disk_is_one_oldest_first() {
    let chains = [
        chain("vda", &["base.qcow2", "a", "active"]),
        chain("vdb", &["data", "top"]),
    ];
    let (new, gone) = found(&chains, &[]);
    let wanted = [
        "discovered-vda-base: base.qcow2",
        "discovered-vda-a: a",
        "discovered-vdb-data: data",
    ];
    assert_eq!(new, wanted);
    assert_eq!(gone, []);
}

#[test]
fn what_the_record_accounts_for_is_not_found_again() {
    let chains = [chain("vda", &["base", "a", "b", "active"])];
    let merging = Snapshot {
        state: SnapshotState::Incomplete,
        disks: vec![SnapshotDisk {
            merging: Some(Merging {
                kept: mark("a"),
                removed: vec![mark("b")],
                chain_tells: true,
            }),
            ..of(2, "a", Origin::Requested).disks[0].clone()
        }],
        ..of(2, "a", Origin::Requested)
    };
    let known = [of(1, "base", Origin::Discovered), merging];
    nothing(&chains, &known);
    let (new, _) = found(&chains, &known[1..]);
    assert_eq!(new, ["discovered-vda-base: base"]);
    // The same volume of another disk is no account.
    let (new, gone) = found(&[chain("vdb", &["base", "top"])], &known);
    assert_eq!(new, ["discovered-vdb-base: base"]);
    assert_eq!(gone, [], "nothing is told of vda");
}

#[test]
fn a_template_and_what_is_below_it_is_no_snapshot() {
    let mut shared = chain("vda", &["base", "template", "a", "active"]);
    shared.layers[1].shared_with = vec!["/images/clone".to_owned()];
    let (new, _) = found(&[shared], &[]);
    assert_eq!(new, ["discovered-vda-a: a"]);
}

#[test]
fn a_layer_outside_the_storage_domains_is_left_alone() {
    let mut outside = chain("vda", &["base", "a", "active"]);
    outside.layers[0].mark = None;
    let (new, _) = found(&[outside], &[]);
    assert_eq!(new, ["discovered-vda-a: a"]);
}

#[test]
fn nothing_is_told_of_a_disk_on_which_a_job_runs() {
    let mut busy = chain("vda", &["base", "a", "active"]);
    busy.job_running = true;
    nothing(&[busy], &[of(1, "gone", Origin::Discovered)]);
}

#[test]
fn names_are_short_and_unique() {
    let long = "v".repeat(190);
    let chains = [chain("vda", &["a", "a.qcow2", &long, "active"])];
    let first = Snapshot {
        name: "discovered-vda-a".parse().unwrap(),
        ..of(1, "else", Origin::Requested)
    };
    let (new, _) = found(&chains, &[first]);
    let short = "v".repeat(64);
    let wanted = [
        "discovered-vda-a-2: a".to_owned(),
        "discovered-vda-a-3: a.qcow2".to_owned(),
        format!("discovered-vda-{short}: {long}"),
    ];
    assert_eq!(new, wanted);
}

#[test]
fn one_whose_layer_somebody_has_merged_goes() {
    let known = [
        of(1, "base", Origin::Discovered),
        of(2, "a", Origin::Discovered),
        of(3, "asked", Origin::Requested),
    ];
    let (new, gone) = found(&[chain("vda", &["base", "active"])], &known);
    assert_eq!((new.len(), gone), (0, vec![id(2)]));
    // Back to the base: the guest writes what was frozen.
    let (_, gone) = found(&[chain("vda", &["base"])], &known);
    assert_eq!(gone, [id(1), id(2)]);
}

#[test]
fn one_that_may_be_there_stays() {
    let known = [of(1, "a", Origin::Discovered)];
    let mut unread = chain("vda", &["a", "active"]);
    unread.layers[0].mark = None;
    nothing(&[unread], &known);
    nothing(&[chain("vdb", &["other"])], &known);
    let mut begun = of(1, "a", Origin::Discovered);
    begun.state = SnapshotState::Incomplete;
    nothing(&[chain("vda", &["other"])], &[begun]);
}
