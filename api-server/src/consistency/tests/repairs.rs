//! Finding a finding again, and its id.

use super::*;
use crate::consistency::finding::FindingId;
use crate::consistency::repair::{again, without_disk};
use crate::store::SnapshotChange;

/// A sound world but for one leak.
fn leaky() -> World {
    let mut world = World::sound();
    let name = ours(0xc);
    world.volumes().push(listed(&name, None));
    world.record.ended = vec![failed_create(9, 1, &name)];
    world
}

#[test]
fn the_very_finding_is_found_again() {
    let id = leaky().finding().id();
    let findings = leaky().findings();
    assert_eq!(again(&findings, &id).unwrap(), Some(&findings[0]));
}

#[test]
fn another_of_the_same_subject_is_a_change() {
    let id = leaky().finding().id();
    let mut changed = leaky();
    changed.volumes().last_mut().unwrap().mark.identity = "another".parse().unwrap();
    let problem = again(&changed.findings(), &id).unwrap_err();
    assert_eq!(problem.reason, Reason::ConcurrentChange);
}

#[test]
fn what_is_gone_is_gone_only_if_everybody_was_asked() {
    let id = leaky().finding().id();
    assert_eq!(again(&World::sound().findings(), &id), Ok(None));
    let mut half = World::sound();
    half.add_host("host-2", Err(silent()));
    let problem = again(&half.findings(), &id).unwrap_err();
    assert_eq!(problem.reason, Reason::HostUnreachable);
    // What merely moves hides no leak.
    let mut moving = World::sound();
    moving.chain().job_running = true;
    assert_eq!(again(&moving.findings(), &id), Ok(None));
}

#[test]
fn a_snapshot_that_changed_is_another_finding() {
    let mut world = World::sound();
    world.record.snapshots[0].state = SnapshotState::Deleting;
    let id = world.finding().id();
    world.record.snapshots[0].revision += 1;
    assert_eq!(
        again(&world.findings(), &id).unwrap_err().reason,
        Reason::ConcurrentChange
    );
}

#[test]
fn an_id_has_one_spelling() {
    let id = leaky().finding().id();
    assert_eq!(id.to_string().parse(), Ok(id));
    let text = id.to_string();
    for bad in [
        "",
        "-",
        "1-2",
        &text.to_uppercase(),
        &text.replace('-', ""),
        &format!("{text}0"),
        &format!("+{}", &text[1..]),
    ] {
        assert!(bad == text || bad.parse::<FindingId>().is_err(), "{bad}");
    }
}

#[test]
fn a_snapshot_that_names_no_volume_any_more_goes() {
    let mut world = World::sound();
    let snapshot = &mut world.record.snapshots[0];
    let (vda, vdb) = (snapshot.disks[0].clone(), "vdb".parse().unwrap());
    snapshot.disks.push(SnapshotDisk {
        disk: vdb,
        ..vda.clone()
    });
    let SnapshotChange::Put(left) = without_disk(snapshot, &snapshot.disks[1].disk) else {
        panic!("it still names one");
    };
    assert_eq!(left.disks, std::slice::from_ref(&vda));
    assert_eq!(left.revision, snapshot.revision, "of the very one");
    let gone = without_disk(&left, &vda.disk);
    assert!(matches!(gone, SnapshotChange::Delete(id) if id == left.id));
}
