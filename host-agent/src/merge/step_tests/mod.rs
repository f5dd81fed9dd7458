//! The decisions of a merge, row by row, and what must hold for all of them.

mod again;
mod copying;
mod overlaying;
mod pivot;
mod properties;
mod release;
mod window;

use super::pivot::runs_unwritten;
use super::samples::{disk, job, mirror, now, record, seen};
use super::step::{Action, Machine, Observation, Outcome, PivotMode, Policy, Step, Told, step};
use super::types::{Help, MergeRecord, Phase, Throttle, Window};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, DiskView, JobProgress, MirrorState, VmState,
};
use livemerge_proto::reason::Reason;
use std::time::Duration;

const BEFORE: [&str; 3] = ["old", "base", "top"];
const AFTER: [&str; 2] = ["old", "base"];

fn decide(record: &MergeRecord, seen: &Observation) -> Step {
    step(record, seen, &Policy::default(), now())
}

fn at(phase: Phase) -> MergeRecord {
    MergeRecord {
        phase,
        ..record(true)
    }
}

fn copying() -> Phase {
    Phase::Copying {
        starts: 1,
        since: now(),
    }
}

fn pivoting(window: Window) -> Phase {
    Phase::Pivoting {
        window,
        since: now(),
        suspended_at: Some(now()),
    }
}

fn with_mirror(state: MirrorState) -> DiskView {
    DiskView {
        mirror: mirror(state),
        ..disk(&BEFORE)
    }
}

fn failed_with(step: &Step) -> Option<Reason> {
    match step {
        Step::Finish(Outcome::Failed(failure)) => Some(failure.reason),
        _ => None,
    }
}

fn fresh(seen: Observation) -> Observation {
    Observation {
        fresh_start: true,
        ..seen
    }
}

fn late(seen: Observation) -> Observation {
    Observation {
        in_phase: Duration::from_secs(60),
        ..seen
    }
}

fn released() -> Step {
    Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
}

fn stopped(mirror: MirrorState) -> Observation {
    let same = job(BlockJobKind::ActiveCommit, 9, 9);
    seen(VmState::Paused, with_mirror(mirror), same)
}
