//! What a snapshot's owner notes of it, and the protection against deletion.

use super::*;
use std::collections::HashMap;

impl Rig {
    pub(super) async fn snapshot(&mut self, id: &str) -> v1::Snapshot {
        let request = v1::GetSnapshotRequest {
            snapshot_id: id.to_owned(),
        };
        let answer = self.snapshots.get_snapshot(request).await.unwrap();
        answer.into_inner().snapshot.unwrap()
    }

    async fn update(&mut self, request: v1::UpdateSnapshotRequest) -> v1::Snapshot {
        let answer = self.snapshots.update_snapshot(request).await.unwrap();
        answer.into_inner().snapshot.unwrap()
    }

    /// How often the audit log has a change of a snapshot.
    async fn updates(&mut self, snapshot: &str) -> usize {
        let events = self.events.list_events(v1::ListEventsRequest::default());
        let events = events.await.unwrap().into_inner().events;
        let of_it = events.iter().filter(|event| event.snapshot_id == snapshot);
        of_it
            .filter(|event| event.r#type() == v1::EventType::SnapshotUpdated)
            .count()
    }
}

fn change(snapshot: &str) -> v1::UpdateSnapshotRequest {
    v1::UpdateSnapshotRequest {
        request_id: any_id(),
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    }
}

fn protection(snapshot: &str, protected: bool) -> v1::UpdateSnapshotRequest {
    v1::UpdateSnapshotRequest {
        deletion_protected: Some(protected),
        ..change(snapshot)
    }
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn deletion(snapshot: &str) -> v1::DeleteSnapshotRequest {
    v1::DeleteSnapshotRequest {
        request_id: any_id(),
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn only_what_is_named_changes_and_a_repetition_changes_nothing() {
    let mut rig = Rig::open(&["vda"]).await;
    let id = rig.take(1).await.remove(0);
    let before = rig.snapshot(&id).await;
    let noted = labels(&[("owner", "ann"), ("tier", "1")]);
    let request = v1::UpdateSnapshotRequest {
        description: Some("before the upgrade".to_owned()),
        labels: Some(v1::SnapshotLabels {
            labels: noted.clone(),
        }),
        etag: before.etag.clone(),
        ..change(&id)
    };
    let after = rig.update(request.clone()).await;
    assert_eq!(after.name, before.name);
    assert_eq!(after.description, "before the upgrade");
    assert_eq!(after.labels, noted);
    assert!(!after.deletion_protected);
    assert_eq!(after.disks, before.disks);
    assert_ne!(after.etag, before.etag);
    assert_eq!(rig.snapshot(&id).await, after);
    // With the etag from before: it is as was asked for.
    assert_eq!(rig.update(request).await, after);
    assert_eq!(rig.updates(&id).await, 1);

    let renamed = v1::UpdateSnapshotRequest {
        name: Some("monday".to_owned()),
        labels: Some(v1::SnapshotLabels::default()),
        ..change(&id)
    };
    let renamed = rig.update(renamed).await;
    assert_eq!(renamed.name, "monday");
    assert_eq!(renamed.labels, labels(&[]));
    assert_eq!(renamed.description, "before the upgrade");
    assert_eq!(rig.updates(&id).await, 2);
}

#[tokio::test]
async fn a_change_is_refused_with_the_reason_and_nothing_is_changed() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let before = rig.snapshot(&ids[0]).await;
    let describe = |request| v1::UpdateSnapshotRequest {
        description: Some("other".to_owned()),
        ..request
    };
    let cases = [
        (
            v1::UpdateSnapshotRequest {
                etag: "r4711".to_owned(),
                ..describe(change(&ids[0]))
            },
            Reason::EtagMismatch,
        ),
        (
            v1::UpdateSnapshotRequest {
                name: Some("s2".to_owned()),
                ..change(&ids[0])
            },
            Reason::SnapshotAlreadyExists,
        ),
        (
            v1::UpdateSnapshotRequest {
                name: Some(" blanks ".to_owned()),
                ..change(&ids[0])
            },
            Reason::FieldInvalid,
        ),
        (describe(change(&any_id())), Reason::SnapshotNotFound),
    ];
    for (request, reason) in cases {
        let refused = refusal(rig.snapshots.update_snapshot(request).await);
        assert_eq!(refused.reason, reason);
    }
    assert_eq!(rig.snapshot(&ids[0]).await, before);
    assert_eq!(rig.updates(&ids[0]).await, 0);
}

#[tokio::test]
async fn a_protected_snapshot_is_not_deleted_alone_nor_with_others() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    assert!(
        rig.update(protection(&ids[0], true))
            .await
            .deletion_protected
    );
    let alone = refusal(rig.snapshots.delete_snapshot(deletion(&ids[0])).await);
    let both = rig.batch(&[&ids[0], &ids[1]]);
    let both = refusal(rig.snapshots.batch_delete_snapshots(both).await);
    for refused in [alone, both] {
        assert_eq!(refused.reason, Reason::SnapshotProtected);
        assert_eq!(refused.metadata["snapshot"], ids[0]);
    }
    for id in &ids {
        assert_eq!(rig.state(id).await, Some(v1::SnapshotState::Ready));
    }
    assert_eq!(rig.agent.open_merges(), []);

    rig.update(protection(&ids[0], false)).await;
    rig.agent.merge_all();
    let accepted = rig.snapshots.delete_snapshot(deletion(&ids[0])).await;
    let operation = accepted.unwrap().into_inner().operation.unwrap();
    let ended = rig.ended(&operation.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.state(&ids[0]).await, None);
}

#[tokio::test]
async fn one_that_is_taken_protected_is_protected() {
    let mut rig = Rig::open(&["vda"]).await;
    let request = v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: rig.vm.clone(),
        name: "kept".to_owned(),
        labels: labels(&[("owner", "ann")]),
        deletion_protected: true,
        ..Default::default()
    };
    let answer = rig.snapshots.create_snapshot(request).await.unwrap();
    let taken = rig.ended(&answer.into_inner().operation.unwrap().id).await;
    let snapshot = rig.snapshot(&taken.snapshot_id).await;
    assert!(snapshot.deletion_protected);
    assert_eq!(snapshot.labels, labels(&[("owner", "ann")]));
    let refused = refusal(rig.snapshots.delete_snapshot(deletion(&snapshot.id)).await);
    assert_eq!(refused.reason, Reason::SnapshotProtected);
}
