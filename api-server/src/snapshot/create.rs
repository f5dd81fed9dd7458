//! Taking a snapshot, step by step. Pure.

use super::plan::{Mint, encrypted, mark};
use super::step::{Answer, Ask, Draft, Step, put};
use super::types::{
    Consistency, CreatePhase, EventKind, Failure, NewEvent, NewOverlay, OperationState, Quiesce,
    Severity, Snapshot, SnapshotDisk, SnapshotState, Work,
};
use crate::hosts::{Chain, HostError, Layer, OverlayOrder, VmChains};
use crate::store::SnapshotChange;
use livemerge_proto::ids::DiskTarget;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{VolumeName, VolumeRef};

pub(super) fn step(phase: &CreatePhase, draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    match phase {
        CreatePhase::Planning => planning(draft, mint),
        CreatePhase::Overlaying(overlays) => overlaying(overlays, draft),
        CreatePhase::Refused(overlays, failure) => refused(overlays, failure, draft),
    }
}

fn planning(draft: &Draft<'_>, mint: Mint<'_>) -> Step {
    let chains = match draft.seen.answer {
        Some(Answer::Chains(chains)) => chains,
        Some(Answer::Error(HostError::Refused(problem))) => return fail(draft, problem.clone()),
        Some(Answer::Error(HostError::Unknown(problem))) => return draft.again(problem),
        _ => return Step::Ask(Ask::Chains(draft.operation.vm)),
    };
    let overlays = match plan_create(chains, mint) {
        Ok(overlays) => overlays,
        Err(problem) => return fail(draft, problem),
    };
    let Some(snapshot) = draft.seen.snapshots.first() else {
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
        Some(Answer::OverlaysOn(consistency)) => taken(*consistency, draft),
        Some(Answer::Error(HostError::Refused(problem))) => {
            let refused = CreatePhase::Refused(overlays.to_vec(), problem.clone().into());
            draft.enter(Work::Create(refused), vec![], vec![])
        }
        Some(Answer::Error(HostError::Unknown(problem))) => draft.again(problem),
        _ => Step::Ask(Ask::Overlays(OverlayOrder {
            request: draft.operation.request.into(),
            vm: draft.operation.vm,
            overlays: overlays.to_vec(),
            quiesce: draft.operation.quiesce,
        })),
    }
}

/// Whatever the host has said: overlays that are on are the snapshot. They come on together. Whether
/// the guest was frozen then, nobody has said.
fn refused(overlays: &[NewOverlay], failure: &Failure, draft: &Draft<'_>) -> Step {
    match draft.seen.answer {
        Some(Answer::Chains(vm)) if overlays.iter().any(|new| is_on(new, &vm.chains)) => {
            taken(Consistency::Unknown, draft)
        }
        Some(Answer::Chains(_) | Answer::Error(HostError::Refused(_))) => {
            fail(draft, failure.clone())
        }
        Some(Answer::Error(HostError::Unknown(problem))) => draft.again(problem),
        _ => Step::Ask(Ask::Chains(draft.operation.vm)),
    }
}

fn is_on(new: &NewOverlay, chains: &[Chain]) -> bool {
    let is = |layer: &Layer| layer.mark.as_ref().is_some_and(|m| m.volume == new.overlay);
    chains
        .iter()
        .any(|chain| chain.disk == new.disk && chain.layers.iter().any(is))
}

fn taken(consistency: Consistency, draft: &Draft<'_>) -> Step {
    let Some(snapshot) = draft.seen.snapshots.first() else {
        return fail(draft, record_gone(draft));
    };
    let ready = Snapshot {
        state: SnapshotState::Ready,
        consistency,
        ..snapshot.clone()
    };
    let event = told(consistency, draft);
    draft.end(
        OperationState::Succeeded,
        draft.operation.work.clone(),
        vec![SnapshotChange::Put(ready)],
        vec![event],
    )
}

/// That it was taken, and what of; a warning when that is not what was asked for.
fn told(consistency: Consistency, draft: &Draft<'_>) -> NewEvent {
    let (word, what) = match consistency {
        Consistency::Unknown => ("unknown", "whether the guest was frozen is not known"),
        Consistency::Crash => ("crash", "the guest was not frozen"),
        Consistency::Frozen => ("frozen", "the guest's file systems were frozen"),
        Consistency::Off => ("off", "the machine was off"),
    };
    let as_asked = draft.operation.quiesce != Quiesce::Required
        || matches!(consistency, Consistency::Frozen | Consistency::Off);
    let severity = match as_asked {
        true => Severity::Info,
        false => Severity::Warning,
    };
    let name = &draft.operation.snapshot_name;
    let text = format!("snapshot {name} was taken: {what}");
    let mut event = draft.event(EventKind::SnapshotCreated, severity, text);
    event
        .details
        .insert("consistency".to_owned(), word.to_owned());
    event
}

/// Nothing of the snapshot is left: its record goes with the operation's end.
fn fail(draft: &Draft<'_>, failure: impl Into<Failure>) -> Step {
    let failure = failure.into();
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

/// Which overlays a new snapshot needs: one on each disk of the machine, or none.
///
/// # Errors
/// Says what refuses it. Nothing has been touched then.
pub(super) fn plan_create(vm: &VmChains, mint: Mint<'_>) -> Result<Vec<NewOverlay>, Problem> {
    // It would be a snapshot of some disks, and be taken for one of all.
    if let Some(other) = vm.unsupported.first() {
        return Err(other.refusal());
    }
    if vm.chains.is_empty() {
        return Err(Problem::new(
            Reason::DiskNotFound,
            "the virtual machine has no disk",
        ));
    }
    vm.chains
        .iter()
        .map(|chain| plan_overlay(chain, mint))
        .collect()
}

fn plan_overlay(chain: &Chain, mint: Mint<'_>) -> Result<NewOverlay, Problem> {
    if chain.job_running {
        let text = format!("a block job runs on disk {}", chain.disk);
        return Err(Problem::new(Reason::ConcurrentChange, text).with("disk", &chain.disk));
    }
    let active = chain.layers.last().ok_or_else(|| no_layers(&chain.disk))?;
    // The overlay would get what the guest writes unencrypted.
    if let Some(refusal) = encrypted(active) {
        return Err(refusal.with("disk", &chain.disk));
    }
    let below = mark(active)?.volume;
    let name: VolumeName = format!("{}.qcow2", mint())
        .parse()
        .expect("a UUID and a suffix are a volume's name");
    let overlay = VolumeRef {
        storage: below.storage.clone(),
        name,
    };
    Ok(NewOverlay {
        disk: chain.disk.clone(),
        below,
        overlay,
    })
}

fn no_layers(disk: &DiskTarget) -> Problem {
    Problem::new(
        Reason::ChainCorrupt,
        format!("the chain of disk {disk} is empty"),
    )
    .with("disk", disk)
}
