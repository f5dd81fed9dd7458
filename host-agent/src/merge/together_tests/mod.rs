//! The decisions of merges that go together, that are given up, that pull, and that remove several
//! layers.

mod barrier;
mod cancel;
mod ends;
mod layers;
mod properties;
mod restore;
mod ways_out;

use super::samples::{disk, job, locator, mirror, now, puller, record, seen};
use super::step::{Action, Machine, Observation, Outcome, Peers, Policy, Step, Told, job_of, step};
use super::types::{Direction, MergeKind, MergeRecord, Phase, Window};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, DiskView, JobProgress, MirrorState, VmState,
};
use livemerge_proto::reason::Reason;
use proptest::prelude::*;
use std::time::Duration;

const LOST: Peers = Peers {
    lost: true,
    ..Peers::NONE
};
const PASSED: Peers = Peers {
    passed: true,
    ..LOST
};
const BEHIND: Peers = Peers {
    ready: false,
    ..Peers::NONE
};

/// A merge with its chain before and after.
#[derive(Debug, Clone)]
struct Case {
    record: MergeRecord,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

fn case(
    kind: MergeKind,
    removed: &[&str],
    before: &'static [&'static str],
    after: &'static [&'static str],
) -> Case {
    let pulls = kind == MergeKind::Pull;
    let (direction, kept) = if pulls {
        (Direction::Pull, "top")
    } else {
        (Direction::Commit, "base")
    };
    let mut record = record(kind == MergeKind::ActiveCommit);
    record.order.id = puller();
    record.order.direction = direction;
    record.kind = kind;
    record.kept = locator(kept);
    record.relinked = match kind {
        MergeKind::Pull => Some(locator(kept)),
        MergeKind::Commit => after.last().map(|above| locator(above)),
        _ => None,
    };
    record.removed = removed.iter().map(|name| locator(name)).collect();
    record.below = (pulls && before[0] != removed[0]).then(|| locator(before[0]));
    Case {
        record,
        before,
        after,
    }
}

fn active_of_three() -> Case {
    let before = &["old", "base", "one", "two", "three"];
    let removed = &["one", "two", "three"];
    case(MergeKind::ActiveCommit, removed, before, &["old", "base"])
}

fn inner_of_three() -> Case {
    let before = &["old", "base", "one", "two", "three", "newer"];
    let (removed, after) = (&["one", "two", "three"], &["old", "base", "newer"]);
    case(MergeKind::Commit, removed, before, after)
}

fn pull_onto_another() -> Case {
    let before = &["old", "one", "two", "top"];
    case(MergeKind::Pull, &["one", "two"], before, &["old", "top"])
}

fn pull_of_all() -> Case {
    let before = &["one", "two", "top"];
    case(MergeKind::Pull, &["one", "two"], before, &["top"])
}

fn cases() -> [Case; 4] {
    [
        active_of_three(),
        inner_of_three(),
        pull_onto_another(),
        pull_of_all(),
    ]
}

impl Case {
    fn at(&self, phase: Phase) -> MergeRecord {
        MergeRecord {
            phase,
            ..self.record.clone()
        }
    }

    fn kind(&self) -> BlockJobKind {
        job_of(self.record.kind)
    }

    /// Its job has so much left to copy.
    fn running(&self, left: u64) -> Observation {
        let state = if left == 0 {
            MirrorState::Ready
        } else {
            MirrorState::Copying
        };
        let mut view = disk(self.before);
        if self.record.pivots() {
            view.mirror = mirror(state);
        }
        seen(VmState::Running, view, job(self.kind(), 9 - left, 9))
    }

    /// No job is there, for so long.
    fn quiet(&self, chain: &[&str], time: Duration) -> Observation {
        Observation {
            job_missing_for: time,
            in_phase: time,
            ..seen(VmState::Running, disk(chain), None)
        }
    }
}

fn decide(record: &MergeRecord, seen: &Observation) -> Step {
    step(record, seen, &Policy::default(), now())
}

fn with(seen: &Observation, peers: Peers) -> Observation {
    Observation {
        peers,
        ..seen.clone()
    }
}

fn told(seen: Observation, told: Told) -> Observation {
    Observation {
        told: Some(told),
        ..seen
    }
}

fn copying(starts: u32) -> Phase {
    let since = now();
    Phase::Copying { starts, since }
}

fn ready() -> Phase {
    Phase::Ready { not_before: now() }
}

fn cancelling() -> Phase {
    Phase::Cancelling { since: now() }
}

fn gives_up() -> Step {
    Step::Enter(cancelling(), Some(Action::AbortJob))
}

fn restoring(tries: u32) -> Phase {
    Phase::Restoring { tries }
}

/// What follows on a chain that is as it must be.
fn verifies(case: &Case) -> Step {
    if case.record.kind == MergeKind::Pull {
        Step::Enter(stops(Window::Suspending), Some(Action::Suspend))
    } else {
        Step::Enter(Phase::Verifying { suspended_at: None }, None)
    }
}

fn stops(window: Window) -> Phase {
    Phase::Pivoting {
        window,
        since: now(),
        suspended_at: Some(now()),
    }
}

fn settle() -> Duration {
    Policy::default().settle
}

fn failed_with(step: &Step) -> Option<Reason> {
    match step {
        Step::Finish(Outcome::Failed(failure)) => Some(failure.reason),
        _ => None,
    }
}

fn waits(step: &Step) -> bool {
    matches!(step, Step::Wait(_))
}

fn any_case() -> impl Strategy<Value = Case> {
    proptest::sample::select(cases().to_vec())
}

fn any_phase() -> impl Strategy<Value = Phase> {
    let windows = vec![Window::Suspending, Window::Intent, Window::Releasing];
    let suspended = any::<bool>().prop_map(|yes| yes.then(now));
    let pivoting = (proptest::sample::select(windows), suspended.clone());
    prop_oneof![
        Just(Phase::Pending),
        (1..4_u32).prop_map(copying),
        Just(ready()),
        pivoting.prop_map(|(window, suspended_at)| Phase::Pivoting {
            window,
            since: now(),
            suspended_at,
        }),
        Just(cancelling()),
        suspended.prop_map(|suspended_at| Phase::Verifying { suspended_at }),
    ]
}

fn any_peers() -> impl Strategy<Value = Peers> {
    any::<[bool; 3]>().prop_map(|[ready, lost, passed]| Peers {
        ready,
        lost,
        passed,
    })
}

fn begun(phase: &Phase) -> bool {
    let intent = Window::Intent;
    matches!(phase, Phase::Pivoting { window, .. } if *window == intent)
}
