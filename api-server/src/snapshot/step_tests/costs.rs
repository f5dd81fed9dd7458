//! Which way the data go: what costs less, of what is possible, unless it was said.

use super::*;
use crate::snapshot::plan::{Wanted, measurable, plan_delete};

const MB: u64 = 1 << 20;

/// One disk's costs: of each way the bytes to copy, or that it is not possible.
fn measured(oldest: &str, commit: Option<u64>, pull: Option<u64>) -> Measured {
    let way = |direction, bytes: Option<u64>| MeasuredWay {
        direction,
        blocker: bytes.is_none().then(died),
        copy_bytes: bytes.unwrap_or(1),
        needed_bytes: bytes.unwrap_or(0) + 1,
        free_bytes: 1000,
        freed_bytes: bytes.unwrap_or(0) + 2,
        estimated: false,
    };
    Measured {
        disk: "vda".parse().unwrap(),
        oldest: volume(oldest),
        ways: vec![way(Direction::Commit, commit), way(Direction::Pull, pull)],
    }
}

/// A chain whose layers have so many bytes each.
fn sized(layers: &[(&str, u64)]) -> Chain {
    let names: Vec<_> = layers.iter().map(|(name, _)| *name).collect();
    let mut chain = chain("vda", &names);
    for (layer, (_, bytes)) in chain.layers.iter_mut().zip(layers) {
        layer.allocated_bytes = *bytes;
    }
    chain
}

struct Case {
    deletes: Vec<Snapshot>,
    vm: VmChains,
    options: MergeOptions,
}

impl Case {
    /// Snapshots of these volumes of a chain of `a` to `d`.
    fn of(frozen: &[&str]) -> Self {
        let deletes = frozen
            .iter()
            .map(|it| snapshot(&format!("of-{it}"), &[("vda", it)]));
        let layers = [
            ("a", 100 * MB),
            ("b", 50 * MB),
            ("c", 40 * MB),
            ("d", 30 * MB),
        ];
        Self {
            deletes: deletes.collect(),
            vm: running(vec![sized(&layers)]),
            options: MergeOptions::default(),
        }
    }

    fn forced(mut self, direction: Direction) -> Self {
        self.options.direction = Some(direction);
        self
    }

    fn off(mut self) -> Self {
        self.vm.state = Some(VmState::ShutOff);
        self
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            deletes: &self.deletes,
            others: &[],
            options: &self.options,
        }
    }

    fn plan(&self, costs: &[Measured]) -> Result<DiskTask, Problem> {
        let mut tasks = plan_delete(&self.wanted(), &self.vm, costs, &mut Uuid::now_v7)?;
        assert_eq!(tasks.len(), 1);
        Ok(tasks.remove(0))
    }
}

#[test]
fn the_cheaper_way_is_gone_and_a_tie_is_a_commit() {
    let case = Case::of(&["b", "c"]);
    let choice = |commit, pull| {
        let task = case.plan(&[measured("b", commit, pull)]).unwrap();
        (task.kind, task.planned_bytes)
    };
    use MergeKind::{ActiveCommit, Pull};
    assert_eq!(choice(Some(7), Some(6)), (Pull, 6));
    assert_eq!(choice(Some(6), Some(7)), (ActiveCommit, 6));
    assert_eq!(choice(Some(6), Some(6)), (ActiveCommit, 6));
    assert_eq!(choice(None, Some(9)), (Pull, 9), "a commit is not possible");
    assert_eq!(choice(Some(9), None), (ActiveCommit, 9));
    assert_eq!(choice(None, None), (ActiveCommit, 70 * MB));
}

#[test]
fn a_pull_keeps_the_active_volume_and_removes_those_below() {
    let case = Case::of(&["b", "c"]);
    let task = case.plan(&[measured("b", Some(7), Some(6))]).unwrap();
    assert_eq!(task.merging(), begun("d", &["b", "c"]));
    let committed = case.plan(&[measured("b", Some(6), Some(7))]).unwrap();
    assert_eq!(committed.merging(), merging("b", &["c", "d"]));
}

#[test]
fn what_was_not_measured_is_committed_by_what_the_layers_hold() {
    let active = Case::of(&["b", "c"]).plan(&[]).unwrap();
    assert_eq!(
        (active.kind, active.planned_bytes),
        (MergeKind::ActiveCommit, 70 * MB)
    );
    let below = Case::of(&["a"]).plan(&[]).unwrap();
    assert_eq!(
        (below.kind, below.planned_bytes),
        (MergeKind::Commit, 50 * MB)
    );
    let pulled = Case::of(&["b", "c"])
        .forced(Direction::Pull)
        .plan(&[])
        .unwrap();
    assert_eq!(
        (pulled.kind, pulled.planned_bytes),
        (MergeKind::Pull, 90 * MB)
    );
}

#[test]
fn what_was_measured_of_other_volumes_decides_nothing() {
    let case = Case::of(&["b", "c"]);
    let task = case.plan(&[measured("a", Some(9), Some(1))]).unwrap();
    assert_eq!(task.kind, MergeKind::ActiveCommit);
    let elsewhere = Measured {
        disk: "vdb".parse().unwrap(),
        ..measured("b", Some(9), Some(1))
    };
    assert_eq!(
        case.plan(&[elsewhere]).unwrap().kind,
        MergeKind::ActiveCommit
    );
}

#[test]
fn who_says_which_way_gets_it_whatever_it_costs() {
    let costs = [measured("b", Some(6), Some(7))];
    let pulled = Case::of(&["b", "c"])
        .forced(Direction::Pull)
        .plan(&costs)
        .unwrap();
    assert_eq!((pulled.kind, pulled.planned_bytes), (MergeKind::Pull, 7));
    let costs = [measured("b", Some(7), Some(6))];
    let committed = Case::of(&["b", "c"])
        .forced(Direction::Commit)
        .plan(&costs)
        .unwrap();
    assert_eq!(
        (committed.kind, committed.planned_bytes),
        (MergeKind::ActiveCommit, 7)
    );
}

#[test]
fn a_pull_that_is_not_possible_is_refused_with_the_reason() {
    let below = Case::of(&["a"])
        .forced(Direction::Pull)
        .plan(&[])
        .unwrap_err();
    assert_eq!(below.reason, Reason::StrategyUnsupported);
    assert!(
        below.message.contains("not the one that the guest writes"),
        "{below}"
    );
    assert_eq!(below.metadata["disk"], "vda");
    let off = Case::of(&["b", "c"])
        .forced(Direction::Pull)
        .off()
        .plan(&[])
        .unwrap_err();
    assert_eq!(off.reason, Reason::StrategyUnsupported);
    assert!(off.message.contains("does not run"), "{off}");
    // A pull that costs less is no choice there either.
    let cheap = [measured("a", Some(9), Some(1))];
    assert_eq!(
        Case::of(&["a"]).plan(&cheap).unwrap().kind,
        MergeKind::Commit
    );
    let cheap = [measured("b", Some(9), Some(1))];
    let off = Case::of(&["b", "c"]).off().plan(&cheap).unwrap();
    assert_eq!(off.kind, MergeKind::OfflineCommit);
}

#[test]
fn all_runs_are_measured_and_little_is_committed_nevertheless() {
    let disk = "vda".parse().unwrap();
    let case = Case::of(&["b", "c"]);
    assert_eq!(
        measurable(&case.wanted(), &case.vm),
        [(disk, mark("b"), mark("d"))],
        "the oldest and the youngest volume"
    );
    let forced = Case::of(&["b", "c"]).forced(Direction::Commit);
    for case in [Case::of(&["a"]), Case::of(&["b", "c"]).off(), forced] {
        assert_eq!(measurable(&case.wanted(), &case.vm).len(), 1);
    }
    let mut little = Case::of(&["b", "c"]);
    little.vm.chains = vec![sized(&[("b", 100 * MB), ("c", 8 * MB), ("d", 8 * MB)])];
    let costs = [measured("b", Some(9), Some(1))];
    let kind = |case: &Case| case.plan(&costs).unwrap().kind;
    assert_eq!(kind(&little), MergeKind::ActiveCommit);
    little.vm.chains[0].layers[2].allocated_bytes += 1;
    assert_eq!(kind(&little), MergeKind::Pull);
}

#[test]
fn what_was_foreseen_is_kept_with_the_plan() {
    let case = Case::of(&["b", "c"]);
    let task = case.plan(&[measured("b", Some(7), Some(6))]).unwrap();
    let foreseen = Foreseen {
        needed_bytes: 7,
        kept_bytes: 30 << 20,
        free_bytes: 1000,
        freed_bytes: 8,
        other_way_bytes: 7,
        guessed: false,
        guest_discards: false,
        time: None,
    };
    assert_eq!(task.foreseen, foreseen);
    let alone = case.plan(&[measured("b", Some(7), None)]).unwrap();
    assert_eq!(alone.foreseen.other_way_bytes, 0, "it is not possible");
    let mut guess = measured("b", Some(6), Some(7));
    guess.ways[0].estimated = true;
    assert!(case.plan(&[guess]).unwrap().foreseen.guessed);
    assert!(case.plan(&[]).unwrap().foreseen.guessed);
}

/// A discard of the guest is of account while QEMU copies, into qcow2.
#[test]
fn that_the_guest_may_discard_is_foreseen_of_a_machine_that_runs() {
    let foreseen = |case: &Case| {
        let task = case.plan(&[measured("b", Some(7), Some(9))]).unwrap();
        task.foreseen.guest_discards
    };
    let mut case = Case::of(&["b", "c"]);
    assert!(!foreseen(&case));
    case.vm.chains[0].guest_discards = true;
    assert!(foreseen(&case));
    case.vm.chains[0].layers[1].format = LayerFormat::Raw;
    assert!(!foreseen(&case), "the volume that is kept is raw");
    case.vm.chains[0].layers[1].format = LayerFormat::Qcow2;
    assert!(!foreseen(&case.off()));
}
