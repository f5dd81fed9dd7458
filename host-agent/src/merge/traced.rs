//! The spans of merges: one of each, and in it one of each phase.
//!
//! A merge's span stands in its record and is recorded at its end. When a phase was entered is known to
//! the process that saw it; after a restart the phase's span begins with that.

use super::board::MergeView;
use super::types::{MergeRecord, Phase};
use crate::metrics::{kind, phase};
use jiff::Timestamp;
use livemerge_proto::ids::MergeId;
use livemerge_runtime::{Clock, DurableSpan, SystemClock};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// When the phases of open merges were entered.
#[derive(Debug, Default)]
pub(super) struct Traced {
    entered: Mutex<HashMap<MergeId, Timestamp>>,
}

impl Traced {
    /// A merge is shown in another state than before.
    pub(super) fn seen(&self, before: Option<&MergeView>, now: &MergeView) {
        let record = &now.record;
        let Some(span) = &record.trace else { return };
        let was = before.map(|before| &before.record.phase);
        let is = &record.phase;
        if was.is_some_and(|was| phase(was) == phase(is) || was.ended()) {
            return;
        }
        let at = SystemClock.now();
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let since = entered.insert(record.order.id, at).unwrap_or(at);
        if let Some(was) = was {
            let name = format!("merge {}", phase(was));
            span.part(name, (since.into(), at.into()), &[]);
        }
        if is.ended() {
            entered.remove(&record.order.id);
            end(span, record, at.into());
        }
    }
}

fn end(span: &DurableSpan, record: &MergeRecord, at: SystemTime) {
    let order = &record.order;
    let attributes = [
        ("livemerge.merge", order.id.to_string()),
        ("livemerge.vm", order.vm.to_string()),
        ("livemerge.disk", order.disk.to_string()),
        ("livemerge.kind", kind(record.kind).to_owned()),
        ("livemerge.outcome", phase(&record.phase).to_owned()),
        ("livemerge.copied_bytes", record.copied.bytes.to_string()),
        (
            "livemerge.longest_pause_ms",
            record.longest_pause.as_millis().to_string(),
        ),
    ];
    let error = match &record.phase {
        Phase::Failed { failure, .. } => Some(failure.reason.to_string()),
        _ => None,
    };
    span.end("merge", (record.accepted_at.into(), at), &attributes, error);
}
