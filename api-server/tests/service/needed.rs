//! A volume that anybody in the record needs is not removed.

use super::*;
use livemerge_api_server::snapshot::{
    Consistency, Origin, Snapshot, SnapshotDisk, SnapshotState as State,
};
use livemerge_api_server::store::SnapshotChange;
use livemerge_storage::VolumeRef;

/// A snapshot of another machine, in this volume.
fn elsewhere(volume: &str) -> Snapshot {
    let disk = SnapshotDisk {
        disk: "vda".parse().unwrap(),
        volume: VolumeRef {
            storage: "default".parse().unwrap(),
            name: volume.parse().unwrap(),
        },
        merging: None,
    };
    Snapshot {
        id: Uuid::now_v7().into(),
        vm: Uuid::new_v4().into(),
        name: "theirs".parse().unwrap(),
        description: String::new(),
        origin: Origin::Requested,
        labels: Default::default(),
        deletion_protected: false,
        consistency: Consistency::Unknown,
        state: State::Ready,
        was_incomplete: false,
        disks: vec![disk],
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        revision: 0,
    }
}

#[tokio::test]
async fn a_removal_waits_while_a_snapshot_of_another_machine_names_the_volume() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let top = rig.agent.script().chains["vda"].last().unwrap().0.clone();
    let theirs = elsewhere(&top);
    let put = [SnapshotChange::Put(theirs.clone())];
    rig.store.put_snapshots(&put, &[]).await.unwrap();
    rig.agent.merge_all();
    let deletion = rig.delete(&[&ids[0]]).await;
    let refused = v1::EventType::VolumeRemovalRefused;
    let told = until("the refusal", async || {
        rig.events_of(refused).await.into_iter().next()
    })
    .await;
    assert_eq!(told.details["snapshot"], theirs.id.to_string());
    assert_eq!(told.details["vm"], theirs.vm.to_string());
    let waits = until("the wait", async || {
        rig.operation(&deletion.id).await.waiting
    })
    .await;
    assert_eq!(waits.reason, Reason::VolumeInUse.as_str());
    assert_eq!(rig.agent.was_asked("remove"), 0);
    let gone = [SnapshotChange::Delete(theirs.id)];
    rig.store.put_snapshots(&gone, &[]).await.unwrap();
    let ended = rig.ended(&deletion.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.agent.was_asked("remove"), 1);
    assert_eq!(rig.events_of(refused).await.len(), 1);
}
