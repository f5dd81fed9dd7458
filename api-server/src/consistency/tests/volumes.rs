//! Leaked volumes and removals that are left over: when they are found, and when nothing is safe.

use super::*;
use crate::consistency::Repair;

#[test]
fn a_volume_that_a_failed_create_made_is_leaked_and_can_be_removed() {
    let mut world = World::sound();
    let name = ours(0xc);
    world.volumes().push(listed(&name, Some(&ours(0xb))));
    world.record.ended = vec![failed_create(9, 1, &name)];
    let found = world.finding();
    assert_eq!(
        (found.kind, found.severity),
        (Kind::LeakedVolume, Severity::Warning)
    );
    assert_eq!(found.vm, Some(id(1)));
    let repair = Repair::RemoveVolume(host_id(), mark(&name));
    assert_eq!(found.remedy, Remedy::Safe(repair));
}

#[test]
fn a_merged_volume_is_leaked_and_can_be_removed_by_its_identity_only() {
    let mut world = World::sound();
    let name = ours(0xc);
    world.volumes().push(listed(&name, None));
    let mut ended = deleting(9, task("base.qcow2", &name, removed()));
    ended.state = OperationState::Succeeded;
    world.record.ended = vec![ended.clone()];
    let repair = Repair::RemoveVolume(host_id(), mark(&name));
    assert_eq!(world.finding().remedy, Remedy::Safe(repair));

    // Its name was used again: nobody knows what the new one holds.
    let before = world.finding().id();
    world.volumes().last_mut().unwrap().mark.identity = "another".parse().unwrap();
    let found = world.finding();
    nothing(&found.remedy, "no operation of the record");
    assert!(found.id() != before && found.id().same_subject(&before));

    // A merge that was never seen done says nothing about the data of its volumes.
    for state in [DiskState::Pending, DiskState::Merging, DiskState::Cancelled] {
        let mut world = World::sound();
        world.volumes().push(listed(&name, None));
        let task = task("base.qcow2", &name, state);
        ended.work = Work::Delete(DeletePhase::Disks(vec![task]));
        world.record.ended = vec![ended.clone()];
        nothing(&world.finding().remedy, "no operation of the record");
    }
}

#[test]
fn a_layer_of_others_that_nothing_names_is_told_and_left_alone() {
    let mut world = World::sound();
    world
        .volumes()
        .push(listed("theirs.qcow2", Some("base.qcow2")));
    let found = world.finding();
    assert_eq!(
        (found.kind, found.severity),
        (Kind::LeakedVolume, Severity::Info)
    );
    nothing(&found.remedy, "no operation of the record");
    // It is a layer of a disk whose chain cannot be told as a whole.
    world.vm().unsupported = vec![UnsupportedDisk {
        disk: "vdb".parse().unwrap(),
        why: "has a layer of the kind rbd".to_owned(),
        locators: vec![locator("theirs.qcow2")],
    }];
    let found = world.finding();
    assert_eq!(
        (found.kind, found.severity),
        (Kind::Unknown, Severity::Info)
    );
    assert!(
        found.message.contains("of the kind rbd"),
        "{}",
        found.message
    );
}

#[test]
fn a_leak_that_no_record_explains_is_never_removed() {
    let mut world = World::sound();
    let name = ours(0xc);
    world.volumes().push(listed(&name, None));
    nothing(&world.finding().remedy, "no operation of the record");
    // A create that succeeded has put it on: it may have been written since.
    let mut succeeded = failed_create(9, 1, &name);
    succeeded.state = OperationState::Succeeded;
    world.record.ended = vec![succeeded];
    nothing(&world.finding().remedy, "no operation of the record");
    // Its machine may come back with it.
    world.record.ended = vec![failed_create(9, 2, &name)];
    nothing(&world.finding().remedy, "is on no host");
}

#[test]
fn who_cannot_be_asked_takes_the_repair_away() {
    let name = ours(0xc);
    let leaky = || {
        let mut world = World::sound();
        world.volumes().push(listed(&name, None));
        world.record.ended = vec![failed_create(9, 1, &name)];
        assert!(matches!(world.finding().remedy, Remedy::Safe(_)));
        world
    };
    let mut silent_host = leaky();
    silent_host.add_host("host-2", Err(silent()));
    let mut silent_vm = leaky();
    let mut other = silent_vm.vm().clone();
    other.chains = Err(silent());
    silent_vm.host().vms.insert(id(5), other);
    let mut silent_storage = leaky();
    let unread = StorageSeen {
        volumes: Err(silent()),
        removals: Ok(vec![]),
    };
    let storage = "other".parse().unwrap();
    silent_storage.host().storages.insert(storage, unread);
    for world in [silent_host, silent_vm, silent_storage] {
        assert_eq!(world.kinds(), [Kind::LeakedVolume, Kind::Unknown]);
        assert_eq!(world.findings()[0].remedy, Remedy::Unclear(silent()));
        // Without a record of it, it may be theirs who are silent.
        let mut unexplained = world;
        unexplained.record.ended.clear();
        assert_eq!(unexplained.kinds(), [Kind::Unknown]);
    }
}

#[test]
fn whatever_names_a_volume_keeps_it_from_being_leaked() {
    let name = ours(0xc);
    let leaky = || {
        let mut world = World::sound();
        world.volumes().push(listed(&name, None));
        world.record.ended = vec![failed_create(9, 1, &name)];
        world
    };
    type Naming<'a> = (&'a str, &'a dyn Fn(&mut World));
    let ways: [Naming<'_>; 10] = [
        ("a header", &|world| {
            let child = listed("clone.img", Some(&name));
            world.volumes().push(child);
        }),
        ("a header as another host writes it", &|world| {
            let mut child = listed("clone.img", None);
            child.parent = Some(format!("/mnt/elsewhere/{name}"));
            world.volumes().push(child);
        }),
        ("a header's description", &|world| {
            let mut child = listed("clone.img", None);
            child.parent = Some(format!("json:{{\"file\":{{\"filename\":\"{name}\"}}}}"));
            world.volumes().push(child);
        }),
        ("a machine whose chains are not known", &|world| {
            world.vm().active = vec![format!("/mnt/elsewhere/{name}")];
            world.vm().chains = Err(silent());
        }),
        ("a chain of another host", &|world| {
            let mut look = world.vm().clone();
            look.chains = Ok(vec![chain("vda", &[&name])]);
            let vms = BTreeMap::from([(id(5), look)]);
            let host = HostSeen {
                vms,
                ..HostSeen::default()
            };
            world.add_host("host-2", Ok(host));
        }),
        ("a layer whose name is gone", &|world| {
            let mut look = world.vm().clone();
            let mut chain = chain("vda", &[&name]);
            chain.layers[0].mark = None;
            look.chains = Ok(vec![chain]);
            world.host().vms.insert(id(5), look);
        }),
        ("an overlay of an operation at work", &|world| {
            let mut create = failed_create(10, 1, &name);
            create.state = OperationState::Running;
            world.record.at_work = vec![create];
        }),
        ("a volume that an operation at work removes", &|world| {
            let task = task("base.qcow2", &name, DiskState::Merging);
            world.record.at_work = vec![deleting(10, task)];
        }),
        ("an unfinished delete that removes it", &|world| {
            let left = merging("base.qcow2", &[&ours(0xa), &name]);
            world.record.snapshots[0].disks[0].merging = Some(left);
        }),
        ("an unfinished delete that keeps it", &|world| {
            let left = merging(&name, &["base.qcow2"]);
            world.record.snapshots[0].disks[0].merging = Some(left);
        }),
    ];
    for (what, way) in ways {
        let mut world = leaky();
        let is_leaked = |world: &World| {
            let mut leaked = world.findings().into_iter();
            leaked.any(|it| it.kind == Kind::LeakedVolume && it.volume == Some(volume(&name)))
        };
        assert!(is_leaked(&world), "{what}");
        way(&mut world);
        assert!(!is_leaked(&world), "{what}");
    }
}

#[test]
fn volumes_of_other_names_are_nobodys_business() {
    let mut world = World::sound();
    for name in ["disk.qcow2", "a.img", "00000000.qcow2", "backup-1.raw"] {
        world.volumes().push(listed(name, None));
    }
    assert_eq!(world.findings(), []);
}

#[test]
fn one_leak_on_a_shared_domain_is_one_finding() {
    let mut world = World::sound();
    world.volumes().push(listed(&ours(0xc), None));
    let storages = world.host().storages.clone();
    let host = HostSeen {
        storages,
        ..HostSeen::default()
    };
    world.add_host("host-2", Ok(host));
    let found = world.finding();
    assert_eq!(found.hosts.len(), 2);
    // Another volume of that name on the second host is another finding.
    let Some(Ok(second)) = world.seen.hosts.get_mut(&"host-2".parse().unwrap()) else {
        panic!("the second host answers");
    };
    let storage = second.storages.values_mut().next().unwrap();
    let volumes = storage.volumes.as_mut().unwrap();
    volumes.last_mut().unwrap().mark.identity = "another".parse().unwrap();
    assert_eq!(world.kinds(), [Kind::LeakedVolume, Kind::LeakedVolume]);
}

#[test]
fn a_condemned_volume_is_left_over_unless_it_is_kept_or_driven() {
    let mut world = World::sound();
    let name = ours(0xc);
    world.removals().push(removal(7, &name));
    let found = world.finding();
    assert_eq!(found.kind, Kind::CondemnedLeftover);
    let repair = Repair::ResumeRemoval(host_id(), id(7), mark(&name));
    assert_eq!(found.remedy, Remedy::Safe(repair));

    world.removals()[0].keep_until = Some(at(10_000));
    assert_eq!(world.kinds(), [Kind::CondemnedLeftover], "the time is over");
    world.removals()[0].keep_until = Some(at(10_001));
    assert_eq!(world.findings(), [], "it can be restored");

    world.removals()[0] = removal(2, &name);
    let driven = task("base.qcow2", &name, removed());
    world.record.at_work = vec![deleting(10, driven)];
    assert!(!world.kinds().contains(&Kind::CondemnedLeftover));
    // The host takes an unused overlay away under an id of its own.
    world.removals()[0] = removal(7, &name);
    assert!(world.kinds().contains(&Kind::CondemnedLeftover));
    world.record.at_work = vec![failed_create(10, 1, &name)];
    assert!(!world.kinds().contains(&Kind::CondemnedLeftover));
}
