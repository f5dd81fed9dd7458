//! Volumes that leave together reach their domain together, and each has its own answer.

use crate::domains::Domain;
use crate::rig::Rig;
use crate::volumes::Volumes;
use livemerge_proto::reason::Reason;
use livemerge_storage::faulty::{Call, Faulty};
use livemerge_storage::{
    FileStore, NewVolume, RemovalOrder, RemovalState, StorageId, VolumeInfo, VolumeStore as _,
};
use std::sync::Arc;
use uuid::Uuid;

fn order(volume: &VolumeInfo, id: u128) -> (StorageId, RemovalOrder) {
    let (name, identity) = (volume.volume.name.clone(), volume.identity.clone());
    let order = RemovalOrder::new(Uuid::from_u128(id).into(), name, identity);
    (volume.volume.storage.clone(), order)
}

fn removals(store: &Faulty<FileStore>) -> usize {
    let calls = store.calls();
    let together = calls.iter().filter(|call| **call == Call::RemoveAll);
    together.count()
}

#[tokio::test]
async fn volumes_of_one_domain_are_one_call_of_its_store() {
    let rig = Rig::new().await;
    let mut orders = vec![];
    let mut below = None;
    for (id, name) in (1..).zip(["a.qcow2", "b.qcow2", "c.qcow2"]) {
        orders.push(order(&rig.volume(name, below).await, id));
        below = Some(name);
    }
    // As the server orders them: the youngest first. A chain goes whole in any order.
    for _repeated in 0..2 {
        let answers = rig.volumes.remove_all(&orders).await;
        assert_eq!(answers.len(), 3);
        for (answer, (_, order)) in answers.into_iter().zip(&orders) {
            let removal = answer.unwrap();
            assert_eq!(removal.id, order.id);
            assert_eq!(removal.volume.name, order.volume);
            assert_eq!(removal.state, RemovalState::Gone);
        }
    }
    assert_eq!(removals(&rig.store), 2, "one each time");
}

#[tokio::test]
async fn a_volume_that_a_machine_has_keeps_those_alone_that_it_is_built_on() {
    let rig = Rig::new().await;
    let mut orders = vec![];
    for (id, (name, below)) in (1..).zip([
        ("base.qcow2", None),
        ("used.qcow2", Some("base.qcow2")),
        ("free.qcow2", None),
    ]) {
        orders.push(order(&rig.volume(name, below).await, id));
    }
    let (base, used) = (rig.locator("base.qcow2"), rig.locator("used.qcow2"));
    rig.host.images().create(&base, None);
    rig.host.images().create(&used, Some(&base));
    rig.machine(1, &[base, used]);
    orders.push((orders[0].0.clone(), {
        let (name, identity) = (
            "never-was.qcow2".parse().unwrap(),
            orders[0].1.identity.clone(),
        );
        RemovalOrder::new(Uuid::from_u128(9).into(), name, identity)
    }));
    orders.push(("elsewhere".parse().unwrap(), orders[0].1.clone()));
    let answers = rig.volumes.remove_all(&orders).await;
    let told: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|problem| problem.reason))
        .collect();
    let in_use = Some(Reason::VolumeInUse);
    let no_such_domain = Some(Reason::VolumeNotFound);
    assert_eq!(told, [in_use, in_use, None, None, no_such_domain]);
    let there = ["base.qcow2", "used.qcow2", "free.qcow2"].map(|name| rig.path(name).exists());
    assert_eq!(there, [true, true, false]);
    assert_eq!(removals(&rig.store), 1);
}

#[tokio::test]
async fn each_domain_gets_its_own_and_one_that_fails_is_no_other_s_trouble() {
    let rig = Rig::new().await;
    let here = rig.volume("a.qcow2", None).await;
    let dir = tempfile::tempdir().unwrap();
    let second = FileStore::open("second".parse().unwrap(), dir.path()).await;
    let second = Arc::new(Faulty::new(second.unwrap()));
    let new = NewVolume {
        name: "b.qcow2".parse().unwrap(),
        virtual_bytes: 1 << 20,
        parent: None,
    };
    let there = second.create(&new).await.unwrap();
    let domains = [Arc::clone(&rig.store), Arc::clone(&second)];
    let domains = domains.map(|store| Domain::plain(store as _)).into();
    let volumes = Volumes::new(domains, Arc::new(rig.host.clone()));
    second.lose(Call::Remove, livemerge_storage::faulty::Moment::Before);
    let orders = [order(&there, 1), order(&here, 2)];
    let answers = volumes.remove_all(&orders).await;
    let lost = answers[0].as_ref().unwrap_err();
    assert_eq!(lost.reason, Reason::StorageUnreachable);
    assert_eq!(answers[1].as_ref().unwrap().state, RemovalState::Gone);
    let again = volumes.remove_all(&orders).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    assert_eq!((removals(&rig.store), removals(&second)), (2, 2));
}
