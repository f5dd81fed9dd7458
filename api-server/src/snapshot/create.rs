//! Taking a snapshot, step by step. Pure.

use super::plan::{Mint, plan_create};
use super::step::{Answer, Ask, Draft, Step, Wait, put};
use super::types::{
    CreatePhase, EventKind, NewOverlay, OperationState, Severity, SnapshotDisk, SnapshotState, Work,
};
use crate::hosts::{HostError, OverlayOrder};
use crate::store::SnapshotChange;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

pub(super) fn step(phase: &CreatePhase, draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    match phase {
        CreatePhase::Planning => planning(draft, mint),
        CreatePhase::Overlaying(overlays) => overlaying(overlays, draft),
    }
}

fn planning(draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    let chains = match draft.seen.answer {
        Some(Answer::Chains(chains)) => chains,
        Some(Answer::Error(HostError::Refused(problem))) => return fail(draft, problem.clone()),
        Some(Answer::Error(HostError::Unknown(problem))) => return again(draft, problem),
        _ => return Step::Ask(Ask::Chains(draft.operation.vm)),
    };
    let overlays = match plan_create(draft.seen.vm_state, chains, mint) {
        Ok(overlays) => overlays,
        Err(problem) => return fail(draft, problem),
    };
    let Some(snapshot) = draft.seen.snapshot else {
        return fail(draft, record_gone(draft));
    };
    let frozen = overlays.iter().map(|overlay| SnapshotDisk {
        disk: overlay.disk.clone(),
        volume: overlay.below.clone(),
        merging: None,
    });
    let snapshot = put(snapshot, SnapshotState::Creating, frozen.collect());
    draft.enter(
        Work::Create(CreatePhase::Overlaying(overlays)),
        vec![snapshot],
        vec![],
    )
}

fn overlaying(overlays: &[NewOverlay], draft: &Draft<'_>) -> Step {
    match draft.seen.answer {
        Some(Answer::OverlaysOn) => taken(draft),
        Some(Answer::Error(HostError::Refused(problem))) => fail(draft, problem.clone()),
        Some(Answer::Error(HostError::Unknown(problem))) => again(draft, problem),
        _ => Step::Ask(Ask::Overlays(OverlayOrder {
            request: draft.operation.request.into(),
            vm: draft.operation.vm,
            overlays: overlays.to_vec(),
        })),
    }
}

fn taken(draft: &Draft<'_>) -> Step {
    let Some(snapshot) = draft.seen.snapshot else {
        return fail(draft, record_gone(draft));
    };
    let text = format!("snapshot {} was taken", draft.operation.snapshot_name);
    let event = draft.event(EventKind::SnapshotCreated, Severity::Info, text);
    let ready = put(snapshot, SnapshotState::Ready, snapshot.disks.clone());
    draft.end(
        OperationState::Succeeded,
        draft.operation.work.clone(),
        vec![ready],
        vec![event],
    )
}

fn again(draft: &Draft<'_>, problem: &Problem) -> Step {
    Step::Wait(Wait::to_ask_again(problem.clone(), draft.seen.attempts))
}

/// Nothing of the snapshot is left: its record goes with the operation's end.
fn fail(draft: &Draft<'_>, problem: Problem) -> Step {
    let failure = problem.into();
    let what = format!("snapshot {} was not taken", draft.operation.snapshot_name);
    let event = draft.failed(EventKind::SnapshotCreateFailed, &what, &failure);
    let gone = SnapshotChange::Delete(draft.operation.snapshot);
    draft.end(
        OperationState::Failed(failure),
        draft.operation.work.clone(),
        vec![gone],
        vec![event],
    )
}

pub(super) fn record_gone(draft: &Draft<'_>) -> Problem {
    let text = format!(
        "the record of snapshot {} is gone",
        draft.operation.snapshot_name
    );
    Problem::new(Reason::InternalBug, text).with("snapshot", draft.operation.snapshot)
}
