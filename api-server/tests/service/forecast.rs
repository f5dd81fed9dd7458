//! What a delete would do.

use super::*;

fn way(direction: v1::MergeDirection, copy_bytes: i64) -> v1::MergeOption {
    v1::MergeOption {
        direction: direction.into(),
        copy_bytes,
        space_needed_bytes: copy_bytes + 1,
        free_bytes: 1000,
        freed_bytes: copy_bytes + 2,
        ..v1::MergeOption::default()
    }
}

fn numbers_of(disk: &v1::DiskProgress) -> [i64; 5] {
    [
        disk.planned_bytes,
        disk.space_needed_bytes,
        disk.space_free_bytes,
        disk.planned_freed_bytes,
        disk.other_way_bytes,
    ]
}

fn numbers_said(merge: &v1::MergePlan) -> [i64; 5] {
    [
        merge.copy_bytes,
        merge.space_needed_bytes,
        merge.space_free_bytes,
        merge.freed_bytes,
        merge.other_way_bytes,
    ]
}

impl Rig {
    async fn plan(
        &mut self,
        ids: &[&String],
        direction: v1::MergeDirection,
    ) -> Result<Response<v1::PlanDeleteSnapshotResponse>, Status> {
        let request = v1::PlanDeleteSnapshotRequest {
            snapshot_ids: ids.iter().map(|id| (*id).clone()).collect(),
            options: Some(v1::MergeOptions {
                direction: direction.into(),
                bytes_per_second: 0,
            }),
        };
        self.snapshots.plan_delete_snapshot(request).await
    }
}

#[tokio::test]
async fn the_numbers_are_the_hosts_and_nothing_is_changed() {
    use v1::MergeDirection::{Commit, Pull, Unspecified};
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(3).await;
    let options = vec![way(Commit, 70), way(Pull, 50)];
    rig.agent
        .script()
        .measured
        .insert("vda".to_owned(), options);
    let mut blocked = way(Pull, 9);
    blocked.blocker = Some(v1::Failure::default());
    let options = vec![way(Commit, 30), blocked];
    rig.agent
        .script()
        .measured
        .insert("vdb".to_owned(), options);
    let before = rig.operation_count().await;
    let answer = rig.plan(&[&ids[2], &ids[0]], Unspecified).await;
    let plan = answer.unwrap().into_inner();
    assert_eq!(plan.blockers, []);
    let drawn: Vec<_> = plan
        .merges
        .iter()
        .map(|it| (it.disk.as_str(), it.round, it.kind(), it.copy_bytes))
        .collect();
    use v1::MergeKind::{ActiveCommit, IntermediateCommit};
    let wanted = [
        ("vda", 0, IntermediateCommit, 70),
        ("vdb", 0, IntermediateCommit, 30),
        ("vda", 1, v1::MergeKind::Pull, 50),
        ("vdb", 1, ActiveCommit, 30),
    ];
    assert_eq!(drawn, wanted);
    let pull = &plan.merges[2];
    let numbers = [
        pull.space_needed_bytes,
        pull.space_free_bytes,
        pull.freed_bytes,
        pull.other_way_bytes,
    ];
    assert_eq!(numbers, [51, 1000, 52, 70]);
    assert_eq!(plan.merges[3].other_way_bytes, 0, "it is not possible");
    assert_eq!(plan.copy_bytes, 70 + 30 + 50 + 30);
    assert_eq!(plan.freed_bytes, 72 + 32 + 52 + 32);
    assert_eq!(rig.operation_count().await, before);
    for id in &ids {
        assert_eq!(rig.state(id).await, Some(v1::SnapshotState::Ready));
    }
    for call in ["start", "remove"] {
        assert_eq!(rig.agent.was_asked(call), 0);
    }
    // A delete of the same does what was said.
    let delete = rig.delete(&[&ids[0], &ids[2]]).await;
    rig.agent.merge_all();
    let ended = rig.ended(&delete.id).await;
    let done: Vec<_> = ended
        .disks
        .iter()
        .map(|it| (it.disk.as_str(), it.round, it.kind()))
        .collect();
    let said: Vec<_> = drawn
        .iter()
        .map(|(disk, round, kind, _)| (*disk, *round, *kind))
        .collect();
    assert_eq!(done.len(), said.len());
    assert_eq!(done[..2], said[..2]);
    let stored: Vec<_> = ended.disks.iter().map(numbers_of).collect();
    let wanted: Vec<_> = plan.merges.iter().map(numbers_said).collect();
    assert_eq!(stored, wanted, "the plan that ran is kept with it");
    assert_eq!(plan.estimated_time, None, "nothing was ever measured");
}

#[tokio::test]
async fn all_that_is_in_the_way_is_listed() {
    use v1::MergeDirection::{Commit, Pull, Unspecified};
    let mut rig = Rig::open(&["vda", "vdb"]).await;
    let ids = rig.take(2).await;
    let plan = rig.plan(&[&ids[0]], Pull).await.unwrap().into_inner();
    let reasons: Vec<_> = plan
        .blockers
        .iter()
        .map(|it| (it.disk.as_str(), it.reason.as_str()))
        .collect();
    let unsupported = "STRATEGY_UNSUPPORTED";
    assert_eq!(reasons, [("vda", unsupported), ("vdb", unsupported)]);

    let mut full = way(Commit, 70);
    full.blocker = Some(v1::Failure {
        reason: "INSUFFICIENT_SPACE".to_owned(),
        message: "full".to_owned(),
        ..v1::Failure::default()
    });
    rig.agent
        .script()
        .measured
        .insert("vda".to_owned(), vec![full]);
    let delete = rig.delete(&[&ids[1]]).await;
    rig.merges(2).await;
    // Somebody has taken the second disk back to its base.
    rig.agent
        .script()
        .chains
        .get_mut("vdb")
        .unwrap()
        .truncate(1);
    let plan = rig.plan(&[&ids[0], &ids[1]], Unspecified).await;
    let plan = plan.unwrap().into_inner();
    let mut reasons: Vec<_> = plan
        .blockers
        .iter()
        .map(|it| {
            (
                it.reason.as_str(),
                it.disk.as_str(),
                it.snapshot_id.as_str(),
            )
        })
        .collect();
    reasons.sort_unstable();
    let wanted = [
        ("INSUFFICIENT_SPACE", "vda", ""),
        ("SNAPSHOT_IS_ACTIVE_LAYER", "vdb", ids[0].as_str()),
        ("SNAPSHOT_NOT_READY", "", ids[1].as_str()),
    ];
    assert_eq!(reasons, wanted);
    assert_eq!(plan.merges.len(), 1, "what could be done is said too");
    assert_eq!(rig.operation(&delete.id).await.disks.len(), 2);
}

#[tokio::test]
async fn a_plan_needs_the_snapshots_and_their_host() {
    use v1::MergeDirection::Unspecified;
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let missing = any_id();
    let refused = refusal(rig.plan(&[&ids[0], &missing], Unspecified).await);
    assert_eq!(refused.reason, Reason::SnapshotNotFound);
    let refused = refusal(rig.plan(&[], Unspecified).await);
    assert_eq!(refused.reason, Reason::FieldInvalid);
    rig.agent.script().silent.insert("chains");
    let refused = refusal(rig.plan(&[&ids[0]], Unspecified).await);
    assert_eq!(refused.reason, Reason::HostUnreachable);
}

impl Rig {
    async fn operation_count(&mut self) -> usize {
        let request = v1::ListOperationsRequest::default();
        let answer = self.operations.list_operations(request).await.unwrap();
        answer.into_inner().operations.len()
    }
}
