//! The dynamic values of an event's text, by name.

use super::types::{DeletePhase, DiskTask, NewEvent, Operation, Work};
use std::fmt::Display;

/// Adds one.
pub(super) fn add(event: &mut NewEvent, key: &str, value: impl Display) {
    event.details.insert(key.to_owned(), value.to_string());
}

/// Adds what tells a disk's merge and removal from others.
pub(super) fn of_disk(event: &mut NewEvent, task: &DiskTask) {
    add(event, "disk", &task.disk);
    add(event, "kept", &task.kept.volume);
    add(event, "removed", removed(task).join(" "));
    add(event, "merge", task.merge);
}

/// The names of the volumes that leave, oldest first.
pub(super) fn removed(task: &DiskTask) -> Vec<String> {
    let removed = task.removed.iter();
    removed
        .map(|leaving| leaving.volume.volume.to_string())
        .collect()
}

/// The same of the disk that the operation is at, if it is at one.
pub(super) fn of_current(event: &mut NewEvent, operation: &Operation) {
    if let Work::Delete(DeletePhase::Disks(tasks)) = &operation.work
        && let Some(task) = tasks.iter().find(|task| !task.is_removed())
    {
        of_disk(event, task);
    }
}
