//! What a plan does to each disk, and what refuses it.

use super::*;
use crate::snapshot::plan::{plan_create, plan_delete};

#[test]
fn what_an_earlier_delete_has_not_merged_is_merged_again() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(mark("b"));
    let planned = plan_delete(
        &snapshot,
        &[],
        &running(vec![chain("vda", &["a", "b"])]),
        &mut Uuid::now_v7,
    )
    .unwrap();
    assert_eq!(
        (planned[0].state.clone(), planned[0].active),
        (DiskState::Pending, true)
    );
}

#[test]
fn plans_refuse_what_cannot_be_done() {
    let snapshot = snapshot("s", &[("vda", "a")]);
    let plan = |state, chain: Chain| {
        let chains = vec![chain];
        plan_delete(
            &snapshot,
            &[],
            &VmChains { state, chains },
            &mut Uuid::now_v7,
        )
        .map_err(|problem| problem.reason)
    };
    let whole = || chain("vda", &["a", "b"]);
    assert_eq!(
        plan(None, chain("vda", &["z", "a"])).unwrap_err(),
        Reason::SnapshotIsActiveLayer
    );
    assert_eq!(
        plan(None, chain("vda", &["x", "y"])).unwrap_err(),
        Reason::ChainDiverged
    );
    assert_eq!(
        plan(None, chain("vdb", &["a", "b"])).unwrap_err(),
        Reason::DiskNotFound
    );
    assert_eq!(
        plan(Some(VmState::ShutOff), whole()).unwrap_err(),
        Reason::VmNotRunning
    );
    assert_eq!(
        plan(
            None,
            Chain {
                job_running: true,
                ..whole()
            }
        )
        .unwrap_err(),
        Reason::ConcurrentChange
    );
    for shared in [0, 1] {
        let mut chain = whole();
        chain.layers[shared].shared_with = vec!["/images/clone.qcow2".to_owned()];
        assert_eq!(plan(None, chain).unwrap_err(), Reason::SnapshotSharedBase);
    }
    let mut foreign = whole();
    foreign.layers[1].mark = None;
    assert_eq!(
        plan(None, foreign).unwrap_err(),
        Reason::StrategyUnsupported
    );
}

#[test]
fn a_snapshot_freezes_the_active_volume_of_every_disk() {
    let chains = running(vec![chain("vda", &["a", "b"]), chain("vdb", &["c"])]);
    let overlays = plan_create(&chains, &mut Uuid::now_v7).unwrap();
    let below: Vec<_> = overlays
        .iter()
        .map(|overlay| overlay.below.clone())
        .collect();
    assert_eq!(below, [volume("b"), volume("c")]);
    assert_ne!(overlays[0].overlay, overlays[1].overlay);
}

/// A snapshot that was being taken and was then marked as INCOMPLETE.
fn stuck() -> Snapshot {
    Snapshot {
        state: SnapshotState::Incomplete,
        ..snapshot("s", &[("vda", "a")])
    }
}

#[test]
fn a_disk_that_was_never_frozen_goes_with_the_row() {
    let plan = |snapshot: &Snapshot, others: &[Snapshot], layers: &[&str]| {
        let vm = running(vec![chain("vda", layers)]);
        plan_delete(snapshot, others, &vm, &mut Uuid::now_v7)
    };
    assert!(plan(&stuck(), &[], &["z", "a"]).unwrap().is_empty());
    let young = snapshot("young", &[("vda", "a")]);
    let left = plan(&stuck(), std::slice::from_ref(&young), &["a", "b"]);
    assert!(left.unwrap().is_empty(), "b is the young one's overlay");
    let own = plan(&stuck(), &[], &["a", "b"]).unwrap();
    assert_eq!(own[0].top, mark("b"), "its overlay may have come on");
    let whole = plan(&young, &[], &["a"]).unwrap_err();
    assert_eq!(whole.reason, Reason::SnapshotIsActiveLayer);
}

#[test]
fn a_snapshot_without_anything_to_merge_loses_its_row_alone() {
    for snapshot in [
        stuck(),
        Snapshot {
            disks: vec![],
            ..stuck()
        },
    ] {
        let mut snapshot = snapshot.deleting();
        let mut delete = operation(&snapshot, Work::Delete(DeletePhase::Planning));
        let mut answer = Some(read(vec![chain("vda", &["z", "a"])]));
        while !delete.state.ended() {
            let seen = Seen {
                answer: answer.take(),
                ..Seen::of(&snapshot)
            };
            let next = change(seen.decide(&delete));
            delete = next.operation.clone();
            if let Some(next) = put(&next, snapshot.id) {
                snapshot = next.clone();
            } else {
                assert!(deletes(&next, snapshot.id));
            }
        }
        assert_eq!(delete.state, OperationState::Succeeded);
    }
}
