//! What a plan refuses, and what it has nothing to do for.

use super::*;
use crate::snapshot::create::plan_create;
use crate::snapshot::plan::{Plan, Wanted, plan_all, plan_delete};

const DEFAULT: MergeOptions = MergeOptions {
    direction: None,
    bytes_per_second: 0,
};

/// A plan of a delete, with nothing measured.
pub(super) fn plan(deletes: &[Snapshot], vm: &VmChains) -> Result<Vec<DiskTask>, Problem> {
    let wanted = Wanted {
        deletes,
        others: &[],
        options: &DEFAULT,
    };
    plan_delete(&wanted, vm, &[], &mut Uuid::now_v7)
}

#[test]
fn what_an_earlier_delete_has_not_merged_is_merged_again() {
    let mut snapshot = snapshot("s", &[("vda", "a")]);
    snapshot.disks[0].merging = Some(merging("a", &["b"]));
    let vm = running(vec![chain("vda", &["a", "b"])]);
    let planned = plan(&[snapshot], &vm).unwrap();
    assert_eq!(
        (&planned[0].state, planned[0].kind),
        (&DiskState::Pending, MergeKind::ActiveCommit)
    );
    let earlier = planned[0].deletes[0].earlier.as_ref();
    assert_eq!(earlier, Some(&merging("a", &["b"])));
}

#[test]
fn plans_refuse_what_cannot_be_done() {
    let snapshot = [snapshot("s", &[("vda", "a")])];
    let refused = |chain: Chain| plan(&snapshot, &running(vec![chain])).unwrap_err();
    let whole = || chain("vda", &["a", "b"]);
    let active = refused(chain("vda", &["z", "a"]));
    assert_eq!(active.reason, Reason::SnapshotIsActiveLayer);
    assert_eq!(active.metadata["volume"], volume("a").to_string());
    assert_eq!(active.metadata["snapshot"], snapshot[0].id.to_string());
    let elsewhere = refused(chain("vda", &["x", "y"]));
    assert_eq!(elsewhere.reason, Reason::ChainDiverged);
    let no_disk = refused(chain("vdb", &["a", "b"]));
    assert_eq!(no_disk.reason, Reason::DiskNotFound);
    let mut vm = running(vec![]);
    vm.unsupported = vec![UnsupportedDisk {
        disk: "vda".parse().unwrap(),
        why: "has the layer /images/a.qcow2, which is encrypted".to_owned(),
        locators: vec![],
    }];
    let unsupported = plan(&snapshot, &vm).unwrap_err();
    assert_eq!(unsupported.reason, Reason::StrategyUnsupported);
    let why = &vm.unsupported[0].why;
    assert!(unsupported.message.contains(why), "{unsupported}");
    let busy = refused(Chain {
        job_running: true,
        ..whole()
    });
    assert_eq!(busy.reason, Reason::ConcurrentChange);
    let mut foreign = whole();
    foreign.layers[1].mark = None;
    assert_eq!(refused(foreign).reason, Reason::StrategyUnsupported);
}

/// What the headers have against a merge is known before it is accepted.
#[test]
fn encrypted_layers_and_those_that_leave_with_bitmaps_are_refused() {
    let all = [
        snapshot("s1", &[("vda", "a")]),
        snapshot("s2", &[("vda", "b")]),
    ];
    let with = |change: &dyn Fn(&mut Chain)| {
        let mut chain = chain("vda", &["z", "a", "b", "c"]);
        change(&mut chain);
        running(vec![chain])
    };
    let refused = |vm: &VmChains, direction| {
        let options = MergeOptions {
            direction,
            ..DEFAULT
        };
        let wanted = Wanted {
            deletes: &all,
            others: &[],
            options: &options,
        };
        plan_delete(&wanted, vm, &[], &mut Uuid::now_v7)
    };
    for place in 1..=3 {
        let vm = with(&|chain| chain.layers[place].encrypted = true);
        for direction in [None, Some(Direction::Commit), Some(Direction::Pull)] {
            let refused = refused(&vm, direction).unwrap_err();
            assert_eq!(refused.reason, Reason::StrategyUnsupported, "{place}");
            assert_eq!(refused.metadata["disk"], "vda");
            assert!(refused.message.contains("is encrypted"), "{refused}");
        }
    }
    plan(&all, &with(&|chain| chain.layers[0].encrypted = true)).unwrap();
    // The volume that is kept keeps its bitmaps; where only one way has them leave, the other is taken.
    for (place, by_commit, by_pull) in [
        (1, Ok(()), Err(())),
        (2, Err(()), Err(())),
        (3, Err(()), Ok(())),
    ] {
        let vm = with(&|chain| chain.layers[place].bitmaps = vec!["backup".to_owned()]);
        let one = |direction| {
            let planned = refused(&vm, Some(direction));
            planned.map(drop).map_err(|refused| {
                assert_eq!(refused.reason, Reason::StrategyUnsupported);
                assert_eq!(refused.metadata["bitmaps"], "backup");
            })
        };
        assert_eq!(one(Direction::Commit), by_commit, "{place}");
        assert_eq!(one(Direction::Pull), by_pull, "{place}");
        let free = refused(&vm, None).map(|tasks| tasks[0].kind);
        let expected = match (by_commit, by_pull) {
            (Ok(()), _) => Some(MergeKind::ActiveCommit),
            (_, Ok(())) => Some(MergeKind::Pull),
            _ => None,
        };
        assert_eq!(free.ok(), expected, "{place}");
    }
}

#[test]
fn no_overlay_is_planned_on_an_encrypted_layer() {
    let mut chain = chain("vda", &["a", "b"]);
    chain.layers[0].encrypted = true;
    plan_create(&running(vec![chain.clone()]), &mut Uuid::now_v7).unwrap();
    chain.layers[1].encrypted = true;
    let refused = plan_create(&running(vec![chain]), &mut Uuid::now_v7).unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
}

#[test]
fn what_another_chain_needs_is_neither_written_nor_removed() {
    let all = ["s1", "s2", "s3"].map(|name| match name {
        "s1" => snapshot(name, &[("vda", "a")]),
        "s2" => snapshot(name, &[("vda", "b")]),
        _ => snapshot(name, &[("vda", "c")]),
    });
    let vm = |shared: usize| {
        let mut chain = chain("vda", &["z", "a", "b", "c", "d", "e"]);
        chain.layers[shared].shared_with = vec!["/images/clone.qcow2".to_owned()];
        running(vec![chain])
    };
    // The kept one, those that leave, and the last of them, which no deleted snapshot froze.
    for shared in 1..=4 {
        let refused = plan(&all, &vm(shared)).unwrap_err();
        assert_eq!(refused.reason, Reason::SnapshotSharedBase, "{shared}");
        assert_eq!(refused.metadata["shared_with"], "/images/clone.qcow2");
    }
    for beside in [0, 5] {
        plan(&all, &vm(beside)).unwrap();
    }
}

#[test]
fn a_machine_that_is_off_is_merged_offline() {
    let snapshot = [snapshot("s", &[("vda", "a")])];
    let plan_in = |state| {
        let chains = vec![chain("vda", &["a", "b"])];
        plan(
            &snapshot,
            &VmChains {
                state,
                chains,
                unsupported: vec![],
            },
        )
        .unwrap()
        .remove(0)
    };
    let off = plan_in(Some(VmState::ShutOff));
    assert_eq!(off.kind, MergeKind::OfflineCommit);
    assert_eq!(off.merging(), merging("a", &["b"]));
    // Whoever cannot tell is believed to run: the host has the last word.
    for on in [Some(VmState::Running), Some(VmState::Paused), None] {
        assert_eq!(plan_in(on).kind, MergeKind::ActiveCommit);
    }
}

#[test]
fn a_dry_run_lists_what_refuses_it_disk_by_disk() {
    let deletes = [
        snapshot("s1", &[("vda", "a"), ("vdb", "x"), ("vdc", "m")]),
        snapshot("s2", &[("vdd", "q")]),
    ];
    let vm = running(vec![
        chain("vda", &["a", "b"]),
        chain("vdb", &["y", "z"]),
        chain("vdc", &["m"]),
    ]);
    let wanted = Wanted {
        deletes: &deletes,
        others: &[],
        options: &DEFAULT,
    };
    let Plan { tasks, blockers } = plan_all(&wanted, &vm, &[], &mut Uuid::now_v7);
    let reasons: Vec<_> = blockers.iter().map(|blocker| blocker.reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::ChainDiverged,
            Reason::SnapshotIsActiveLayer,
            Reason::DiskNotFound
        ]
    );
    assert_eq!(blockers[2].metadata["disk"], "vdd");
    assert_eq!(tasks.len(), 1, "what can be done is planned all the same");
    // A delete that is refused is refused for the first of them.
    assert_eq!(plan(&deletes, &vm).unwrap_err(), blockers[0]);
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
        let wanted = Wanted {
            deletes: std::slice::from_ref(snapshot),
            others,
            options: &DEFAULT,
        };
        let vm = running(vec![chain("vda", layers)]);
        plan_delete(&wanted, &vm, &[], &mut Uuid::now_v7)
    };
    assert!(plan(&stuck(), &[], &["z", "a"]).unwrap().is_empty());
    let young = snapshot("young", &[("vda", "a")]);
    let left = plan(&stuck(), std::slice::from_ref(&young), &["a", "b"]);
    assert!(left.unwrap().is_empty(), "b is the young one's overlay");
    let own = plan(&stuck(), &[], &["a", "b"]).unwrap();
    let overlay = merging("a", &["b"]);
    assert_eq!(own[0].merging(), overlay, "its overlay may have come on");
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
        let mut delete = operation(&snapshot, planning());
        let mut answer = Some(surveyed(vec![chain("vda", &["z", "a"])]));
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
