//! One difference at a time, of chains, headers and snapshots; and what could not be looked at.

use super::*;
use crate::consistency::Repair;

#[test]
fn where_nothing_differs_nothing_is_found() {
    assert_eq!(World::sound().findings(), []);
}

#[test]
fn a_foreign_snapshot_leaves_a_layer_that_nobody_accounts_for() {
    let mut world = World::sound();
    let b = ours(0xb);
    world.chain().layers.push(layer("foreign.qcow2"));
    world.volumes().push(listed("foreign.qcow2", Some(&b)));
    let found = world.finding();
    assert_eq!(
        (found.kind, found.severity),
        (Kind::ChainUnknownToRecord, Severity::Warning)
    );
    assert_eq!(found.volume, Some(volume(&b)));
    nothing(&found.remedy, "virsh blockcommit");

    // What others are built on is a template rather than a snapshot.
    world.chain().layers[2].shared_with = vec!["/images/clone.qcow2".to_owned()];
    assert_eq!(world.finding().severity, Severity::Info);
    world.chain().layers[2].shared_with.clear();
    // The volumes of an unfinished delete are accounted for: the overlay of a commit, and that of
    // a pull, which is kept.
    for left in [
        merging(&ours(0xa), &[&b]),
        merging("foreign.qcow2", &[&ours(0xa), &b]),
        merging(&b, &[&ours(0xa)]),
    ] {
        world.record.snapshots[1].disks[0].merging = Some(left);
        assert_eq!(world.findings(), []);
    }
}

#[test]
fn a_snapshot_without_its_volume_is_an_error() {
    let mut world = World::sound();
    let a = ours(0xa);
    world
        .volumes()
        .retain(|seen| seen.mark.volume != volume(&a));
    world.chain().layers[1].mark = None;
    let kinds = world.kinds();
    assert_eq!(
        kinds,
        [Kind::RecordWithoutVolume, Kind::ChainUnknownToRecord]
    );
    let found = &world.findings()[0];
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(found.snapshot, Some(id(2)));
    nothing(&found.remedy, "backup");
    world.removals().push(removal(7, &a));
    let found = world.findings();
    assert_eq!(found[0].removal, Some(id(7)), "{found:?}");
}

#[test]
fn a_volume_outside_its_disks_chain_is_an_error() {
    type Way = fn(&mut World);
    let elsewhere: [(&str, Way); 3] = [
        ("not in the chain", |world| {
            drop(world.chain().layers.remove(0));
            world.volumes()[1].parent = None;
        }),
        ("the guest writes to it", |world| {
            world.chain().layers.truncate(1);
            world.record.snapshots.truncate(1);
            world
                .volumes()
                .retain(|seen| !seen.mark.volume.name.as_str().starts_with('0'));
        }),
        ("shows no disk", |world| {
            world.chain().disk = "vdb".parse().unwrap();
            world.record.snapshots.truncate(1);
            world.chain().layers.truncate(2);
            world.volumes().truncate(2);
        }),
    ];
    for (what, way) in elsewhere {
        let mut world = World::sound();
        way(&mut world);
        let found = world.finding();
        assert_eq!(
            (found.kind, found.severity),
            (Kind::SnapshotNotInChain, Severity::Error),
            "{what}"
        );
        assert!(found.message.contains(what), "{}", found.message);
        nothing(&found.remedy, "cannot be told");
    }
}

#[test]
fn a_volume_that_a_forgotten_pull_took_from_the_chain_can_be_forgotten_too() {
    let mut world = World::sound();
    world.record.snapshots.truncate(1);
    let first = &mut world.record.snapshots[0];
    first.disks[0].volume = volume(&ours(0xa));
    first.disks[0].merging = Some(merging(&ours(0xb), &[&ours(0xa)]));
    world.chain().layers.remove(1);
    let (disk, not_in_chain) = (world.chain().disk.clone(), Kind::SnapshotNotInChain);
    let remedy = |world: &World| {
        let findings = world.findings();
        let found = findings.iter().find(|found| found.kind == not_in_chain);
        found.unwrap().remedy.clone()
    };
    // One that may be reverted to is never given up.
    nothing(&remedy(&world), "cannot be told");
    world.record.snapshots[0].state = SnapshotState::Incomplete;
    let snapshot = Box::new(world.record.snapshots[0].clone());
    let forget = Remedy::Safe(Repair::ForgetDisk(snapshot, disk));
    assert_eq!(remedy(&world), forget);
}

#[test]
fn a_base_that_an_unfinished_delete_made_active_is_right() {
    let mut world = World::sound();
    world.record.snapshots.truncate(1);
    let first = &mut world.record.snapshots[0];
    first.disks[0].merging = Some(merging("base.qcow2", &[&ours(0xa)]));
    first.state = SnapshotState::Incomplete;
    world.chain().layers.truncate(1);
    world.volumes().truncate(2);
    assert_eq!(world.kinds(), [Kind::SnapshotIncomplete]);
}

#[test]
fn the_chain_of_a_machine_that_is_off_is_what_its_headers_say() {
    let mut world = World::sound();
    world.vm().state = VmState::ShutOff;
    let layers = &mut world.chain().layers;
    layers.drain(..2);
    assert_eq!(world.findings(), []);
    world.volumes()[2].parent = Some(locator("base.qcow2"));
    assert_eq!(world.kinds(), [Kind::SnapshotNotInChain]);
    // A circle ends.
    world.volumes()[0].parent = Some(locator(&ours(0xb)));
    world.findings();
}

#[test]
fn a_header_that_leads_elsewhere_is_an_error() {
    let b = ours(0xb);
    let headers: [(usize, Option<String>); 3] = [
        (2, Some(locator("template.qcow2"))),
        (2, None),
        (0, Some(locator("template.qcow2"))),
    ];
    for (place, parent) in headers {
        let mut world = World::sound();
        world.volumes()[place].parent = parent.clone();
        let found = world.finding();
        assert_eq!(
            (found.kind, found.severity),
            (Kind::HeaderDiffersFromChain, Severity::Error),
            "{parent:?}"
        );
        nothing(&found.remedy, "next start");
    }
    // One way to write it is as good as another.
    let mut world = World::sound();
    world.volumes()[2].parent = Some(format!("/mnt/elsewhere/{}", ours(0xa)));
    assert_eq!(world.findings(), []);
    // A name that was used again has a header of its own.
    let mut world = World::sound();
    world.volumes()[2].parent = None;
    world.volumes()[2].mark.identity = "another".parse().unwrap();
    assert!(
        !world.kinds().contains(&Kind::HeaderDiffersFromChain),
        "{b}"
    );
}

#[test]
fn a_state_that_no_operation_stands_behind_is_stuck() {
    for state in [SnapshotState::Creating, SnapshotState::Deleting] {
        let mut world = World::sound();
        world.record.snapshots[0].state = state;
        let found = world.finding();
        assert_eq!(
            (found.kind, found.severity),
            (Kind::SnapshotStuck, Severity::Error)
        );
        let snapshot = Box::new(world.record.snapshots[0].clone());
        let repair = Repair::MarkIncomplete(snapshot);
        assert_eq!(found.remedy, Remedy::Safe(repair));
        let task = task("base.qcow2", &ours(0xa), DiskState::Merging);
        world.record.at_work = vec![deleting(9, task)];
        assert_eq!(world.kinds(), [Kind::Unknown]);
        assert_eq!(world.finding().severity, Severity::Info);
    }
}

#[test]
fn an_incomplete_snapshot_is_deleted_again_while_its_machine_is_seen() {
    let mut world = World::sound();
    world.record.snapshots[0].state = SnapshotState::Incomplete;
    for state in [VmState::Running, VmState::Paused, VmState::ShutOff] {
        world.vm().state = state;
        let repair = Repair::DeleteSnapshot(id(1), 3);
        assert_eq!(world.finding().remedy, Remedy::Safe(repair), "{state:?}");
    }
    world.add_host(HOST, Err(silent()));
    let findings = world.findings();
    let found = findings.iter().find(|f| f.kind == Kind::SnapshotIncomplete);
    assert_eq!(found.unwrap().remedy, Remedy::Unclear(silent()));
}

#[test]
fn what_could_not_be_looked_at_is_listed() {
    let mut host = World::sound();
    host.add_host(HOST, Err(silent()));
    let found = host.findings();
    assert_eq!(host.kinds(), [Kind::Unknown, Kind::Unknown]);
    assert_eq!(found[0].hosts, [host_id()]);
    assert_eq!(found[1].vm, Some(id(1)), "its machine has snapshots");
    assert_eq!(found[0].details["reason"], "HOST_UNREACHABLE");

    let mut vm = World::sound();
    vm.vm().chains = Err(silent());
    assert_eq!(vm.finding().vm, Some(id(1)));
    let mut storage = World::sound();
    storage.storage().volumes = Err(silent());
    assert_eq!(storage.finding().details["storage"], "default");
    let mut removals = World::sound();
    removals.storage().removals = Err(silent());
    assert_eq!(removals.finding().details["storage"], "default");
    let mut elsewhere = World::sound();
    elsewhere.host().storages.clear();
    assert_eq!(elsewhere.finding().details["reason"], "VOLUME_NOT_FOUND");
    let mut job = World::sound();
    job.chain().job_running = true;
    assert_eq!(job.finding().severity, Severity::Info);
    for world in [vm, storage, removals, elsewhere, job] {
        assert_eq!(world.kinds(), [Kind::Unknown]);
    }
}
