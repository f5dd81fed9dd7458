//! What the hypervisor is asked for: the block job of a merge, and the header that it changes.

use super::step::job_of;
use super::types::{Direction, MergeRecord};
use crate::hypervisor::{JobOrder, Layer};

/// The block job that does the merge.
pub fn job_order(record: &MergeRecord) -> JobOrder {
    let [base, top] = match record.order.direction {
        Direction::Commit => [Some(&record.kept), record.removed.last()],
        Direction::Pull => [record.below.as_ref(), Some(&record.kept)],
    };
    JobOrder {
        disk: record.order.disk.clone(),
        kind: job_of(record.kind),
        base: base.cloned(),
        top: top.unwrap_or(&record.kept).clone(),
        bytes_per_second: record.bytes_per_second,
        merge: Some(record.order.id),
    }
}

/// What the relinked layer names as the one below it as long as the job is not done.
pub fn backing_of(record: &MergeRecord) -> Layer {
    Layer {
        locator: record.removed.last().unwrap_or(&record.kept).clone(),
        format: record.backing_format,
    }
}
