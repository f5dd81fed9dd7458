//! What stands in an operation's way, as the record and the audit log have it. Pure.
//!
//! ```text
//!   goes on ──a cause: tell──▶ obstacle ─┬─ another reason: tell ──▶ obstacle
//!      ▲                                 ├─ the same reason ───────▶ obstacle
//!      └────────────── tell ─────────────┴─ the work moves, or waits for no cause
//! ```
//!
//! One event a reason and one for its end, not one a try. How often it was tried, and when it is
//! tried next, is shown meanwhile (`hub`); the event of its end says how often it was.

use super::details;
use super::step::{Answer, Draft, Step, Wait};
use super::types::{EventKind, Failure, NewEvent, Obstacle, OperationState, Severity};
use crate::hosts::HostError;
use crate::store::Change;
use livemerge_proto::reason::Reason;
use std::time::Duration;

/// A host that could not be seen or heard for a shorter time is no news: lines break, and a server
/// that has just started has not heard its hosts.
pub(super) const UNSEEN: Duration = Duration::from_secs(5);

/// How often the host must have tried for what it waits for to be news: libvirt is gone for a moment
/// whenever it is started again.
pub(super) const TRIED: u32 = 3;

/// The same step, with what it tells of an obstacle.
pub(super) fn told(step: Step, draft: &Draft<'_>) -> Step {
    match step {
        Step::Enter(mut change) => {
            removed(&mut change, draft);
            Step::Enter(change)
        }
        Step::Wait(wait) => waits(wait, draft),
        Step::Note(_) | Step::Ask(_) => step,
    }
}

/// The work has moved, so nothing is in its way; one that failed or was cancelled has not
/// recovered.
fn removed(change: &mut Change, draft: &Draft<'_>) {
    change.operation.obstacle = None;
    let state = &change.operation.state;
    let goes_on = !state.ended() || *state == OperationState::Succeeded;
    if let Some(obstacle) = draft.operation.obstacle.as_ref().filter(|_| goes_on) {
        change.events.insert(0, recovered(obstacle, draft));
    }
}

fn waits(wait: Wait, draft: &Draft<'_>) -> Step {
    let known = draft.operation.obstacle.as_ref();
    // Of a pivot that was put off the log is told by what the merge shows (`news`).
    let cause = wait.cause.as_ref();
    let cause = cause.filter(|cause| cause.reason != Reason::PivotPutOff);
    let (obstacle, event) = match (cause, known) {
        (None, None) => return Step::Wait(wait),
        (None, Some(over)) => (None, recovered(over, draft)),
        (Some(cause), Some(known)) if cause.reason == known.cause.reason => {
            return Step::Wait(wait);
        }
        (Some(cause), _) if lasts(&wait, draft) => {
            let cause = Failure::from(cause.clone());
            let event = waiting(&cause, draft);
            let since = draft.now;
            (Some(Obstacle { cause, since }), event)
        }
        (Some(_), _) => return Step::Wait(wait),
    };
    draft.note(|operation| operation.obstacle = obstacle, vec![event])
}

/// An answer counts at once; silence has to last, and what the host waits for as well.
fn lasts(wait: &Wait, draft: &Draft<'_>) -> bool {
    let error = draft.seen.answer.and_then(Answer::error);
    error.is_some_and(|error| !error.is_silence())
        || !draft.seen.needed.is_empty()
        || draft.seen.unseen >= UNSEEN
        || wait.by_host.is_some_and(|(_, tries)| tries >= TRIED)
}

fn waiting(cause: &Failure, draft: &Draft<'_>) -> NewEvent {
    // Of all that may be refused, only a removal is asked for again.
    let (kind, what) = match draft.seen.answer.and_then(Answer::error) {
        _ if !draft.seen.needed.is_empty() => (
            EventKind::VolumeRemovalRefused,
            "the host is not asked for the removal yet",
        ),
        Some(HostError::Refused(_)) => (
            EventKind::VolumeRemovalRefused,
            "the host does not remove the volume yet",
        ),
        _ => (EventKind::OperationWaiting, "the operation waits"),
    };
    let mut event = draft.failed(kind, what, cause);
    event.severity = Severity::Warning;
    details::of_current(&mut event, draft.operation);
    event
}

fn recovered(obstacle: &Obstacle, draft: &Draft<'_>) -> NewEvent {
    let reason = obstacle.cause.reason;
    let text = format!("the operation goes on after {reason}");
    let mut event = draft.event(EventKind::OperationRecovered, Severity::Info, text);
    let waited = draft.now.duration_since(obstacle.since).as_millis().max(0);
    details::add(&mut event, "reason", reason);
    details::add(&mut event, "waited_ms", waited);
    if draft.seen.attempts > 0 {
        details::add(&mut event, "attempts", draft.seen.attempts);
    }
    details::of_current(&mut event, draft.operation);
    event
}
