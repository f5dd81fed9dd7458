//! Where an operation stands, in words.

use crate::output::text::escape;
use livemerge_proto::v1;
use v1::{MergePhase, OperationPhase, OperationState};

/// One line: the phase, the disks' phases while it merges, and what it waits for.
pub(crate) fn describe(operation: &v1::Operation) -> String {
    let disks = current(operation).map(|disk| disk.describe());
    let disks: Vec<String> = disks.collect();
    let merges = is_running(operation) && operation.phase() == OperationPhase::Merging;
    let disks = if merges && !disks.is_empty() {
        format!(" ({})", disks.join(", "))
    } else {
        String::new()
    };
    with_the_rest(operation, &disks)
}

/// The same without the disks.
pub(super) fn headline(operation: &v1::Operation) -> String {
    with_the_rest(operation, "")
}

fn with_the_rest(operation: &v1::Operation, disks: &str) -> String {
    let position = operation.waiting.as_ref().map(|it| it.queue_position);
    let queued = match position {
        Some(position @ 1..) => format!("queued at place {position}"),
        _ => "queued".to_owned(),
    };
    let phase = match operation.state() {
        OperationState::Queued => queued.as_str(),
        OperationState::Succeeded => "done",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
        OperationState::Running | OperationState::Unspecified => running(operation.phase()),
    };
    let cancel = if operation.cancel_requested && is_running(operation) {
        ", its end was asked for"
    } else {
        ""
    };
    let waits = operation
        .waiting
        .as_ref()
        .map(|waiting| format!(", waits: {}", escape(&waiting.message)));
    format!("{phase}{disks}{cancel}{}", waits.unwrap_or_default())
}

fn is_running(operation: &v1::Operation) -> bool {
    let state = operation.state();
    matches!(state, OperationState::Running | OperationState::Unspecified)
}

fn running(phase: OperationPhase) -> &'static str {
    match phase {
        OperationPhase::Unspecified => "running",
        OperationPhase::Planning => "planning",
        OperationPhase::CreatingOverlays => "creating overlays",
        OperationPhase::Removing => "removing merged volumes",
        OperationPhase::Merging => "merging",
    }
}

/// The merge of a disk that is under way or comes next; the last one when all have ended.
pub(super) struct Current<'a> {
    pub(super) merge: &'a v1::DiskProgress,
    /// Its place among the disk's, from 1, and how many there are.
    place: (usize, usize),
}

impl Current<'_> {
    /// The disk, and its place among several merges of it.
    pub(super) fn name(&self) -> String {
        let disk = escape(&self.merge.disk);
        match self.place {
            (_, 1) => disk,
            (place, several) => format!("{disk} {place}/{several}"),
        }
    }

    fn describe(&self) -> String {
        format!("{} {}", self.name(), of_disk(self.merge.phase()))
    }
}

/// One merge a disk, in the order in which the disks are first named.
pub(super) fn current(operation: &v1::Operation) -> impl Iterator<Item = Current<'_>> {
    let mut disks: Vec<(&str, Vec<&v1::DiskProgress>)> = Vec::new();
    for merge in &operation.disks {
        match disks.iter_mut().find(|(disk, _)| *disk == merge.disk) {
            Some((_, merges)) => merges.push(merge),
            None => disks.push((&merge.disk, vec![merge])),
        }
    }
    disks.into_iter().map(|(_, mut merges)| {
        merges.sort_by_key(|merge| merge.round);
        let open = merges.iter().position(|merge| !has_ended(merge.phase()));
        let index = open.unwrap_or(merges.len() - 1);
        Current {
            merge: merges[index],
            place: (index + 1, merges.len()),
        }
    })
}

fn has_ended(phase: MergePhase) -> bool {
    matches!(
        phase,
        MergePhase::Failed | MergePhase::Cancelled | MergePhase::Removed
    )
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
        MergePhase::Overlaying => "giving the guest an overlay",
        MergePhase::Cancelling => "cancelling",
        MergePhase::Cancelled => "cancelled",
        MergePhase::Removing => "removing the volume",
        MergePhase::Removed => "volume removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(disk: &str, round: i32, phase: MergePhase) -> v1::DiskProgress {
        v1::DiskProgress {
            disk: disk.into(),
            round,
            phase: phase.into(),
            ..Default::default()
        }
    }

    fn merging(disks: Vec<v1::DiskProgress>) -> v1::Operation {
        v1::Operation {
            state: OperationState::Running.into(),
            phase: OperationPhase::Merging.into(),
            disks,
            ..Default::default()
        }
    }

    #[test]
    fn each_disk_is_shown_where_it_stands() {
        let operation = merging(vec![
            merge("vda", 1, MergePhase::Copying),
            merge("vdb", 0, MergePhase::Cancelling),
            merge("vda", 0, MergePhase::Removed),
            merge("vdc", 0, MergePhase::Failed),
        ]);
        let shown = describe(&operation);
        assert_eq!(
            shown,
            "merging (vda 2/2 copying, vdb cancelling, vdc failed)"
        );
        assert_eq!(headline(&operation), "merging");
    }

    #[test]
    fn who_waits_for_its_turn_says_for_what_and_where() {
        let waiting = v1::Waiting {
            message: "as many operations merge at host h as may at once".into(),
            queue_position: 2,
            ..Default::default()
        };
        let operation = v1::Operation {
            state: OperationState::Queued.into(),
            waiting: Some(waiting),
            ..Default::default()
        };
        let shown = "queued at place 2, waits: as many operations merge at host h as may at once";
        assert_eq!(describe(&operation), shown);
    }

    #[test]
    fn a_cancel_is_told_until_the_end() {
        let mut operation = merging(vec![]);
        operation.cancel_requested = true;
        assert_eq!(describe(&operation), "merging, its end was asked for");
        operation.set_state(OperationState::Cancelled);
        assert_eq!(describe(&operation), "cancelled");
    }
}
