//! Where an operation stands, in words.

use crate::output::text::escape;
use livemerge_proto::v1;
use v1::{MergePhase, OperationPhase, OperationState};

/// One line: the phase, the disks' phases while it merges, and what it waits for.
pub(crate) fn describe(operation: &v1::Operation) -> String {
    let phase = match operation.state() {
        OperationState::Queued => "queued".to_owned(),
        OperationState::Succeeded => "done".to_owned(),
        OperationState::Failed => "failed".to_owned(),
        OperationState::Running | OperationState::Unspecified => running(operation),
    };
    match &operation.waiting {
        Some(waiting) => format!("{phase}, waits: {}", escape(&waiting.message)),
        None => phase,
    }
}

fn running(operation: &v1::Operation) -> String {
    let disk =
        |disk: &v1::DiskProgress| format!("{} {}", escape(&disk.disk), of_disk(disk.phase()));
    let disks: Vec<String> = operation.disks.iter().map(disk).collect();
    match operation.phase() {
        OperationPhase::Unspecified => "running".to_owned(),
        OperationPhase::Planning => "planning".to_owned(),
        OperationPhase::CreatingOverlays => "creating overlays".to_owned(),
        OperationPhase::Removing => "removing merged volumes".to_owned(),
        OperationPhase::Merging if disks.is_empty() => "merging".to_owned(),
        OperationPhase::Merging => format!("merging ({})", disks.join(", ")),
    }
}

/// The phase of one disk.
pub(crate) fn of_disk(phase: MergePhase) -> &'static str {
    match phase {
        MergePhase::Unspecified | MergePhase::Pending => "planned",
        MergePhase::Copying => "copying",
        MergePhase::Ready => "caught up",
        MergePhase::Pivoting => "pivoting",
        MergePhase::Verifying => "verifying",
        MergePhase::Merged => "merged",
        MergePhase::Failed => "failed",
        MergePhase::Removing => "removing the volume",
        MergePhase::Removed => "volume removed",
    }
}
