//! What a merge's host shows, as news for the audit log. Pure.
//!
//! The host shows states, not steps, and the server may look late. So what has happened is told
//! from what proves it (a pivot was begun: the merge had caught up before), and [`Told`], which is
//! written down with the events, keeps it from being told again.

use super::types::{EventKind, Severity, Told};
use crate::hosts::{MergePhase, MergeSeen};

/// Something that was not told before.
pub(super) struct News {
    pub(super) kind: EventKind,
    pub(super) severity: Severity,
    pub(super) text: &'static str,
}

/// What is new, in the order in which it happened; `told` has it from then on.
pub(super) fn of_merge(told: &mut Told, seen: &MergeSeen) -> Vec<News> {
    let ready = seen.phase == MergePhase::Ready;
    let begun = seen.pivot_attempts;
    let news = [
        first(&mut told.lifted, seen.limit_lifted).then_some(News {
            kind: EventKind::LiveMergeLimitLifted,
            severity: Severity::Warning,
            text: "the copy does not catch up with the guest: it goes on without its limit",
        }),
        first(&mut told.throttled, seen.guest_bytes_per_second > 0).then_some(News {
            kind: EventKind::LiveMergeGuestThrottled,
            severity: Severity::Warning,
            text: "the copy does not catch up with the guest: its writes are limited meanwhile",
        }),
        first(&mut told.overlaid, seen.overlaid).then_some(News {
            kind: EventKind::LiveMergeOverlaid,
            severity: Severity::Warning,
            text: "the copy never catches up with the guest: it writes a fresh overlay, which stays, and what \
                   lies below is merged",
        }),
        first(&mut told.ready, ready || begun > 0).then_some(News {
            kind: EventKind::LiveMergeReady,
            severity: Severity::Info,
            text: "the merge has caught up with the guest",
        }),
        first(&mut told.pivoting, begun > 0).then_some(News {
            kind: EventKind::LiveMergePivoting,
            severity: Severity::Info,
            text: "the pivot has begun",
        }),
        first(&mut told.put_off, begun > 1 || ready && begun > 0).then_some(News {
            kind: EventKind::LiveMergePivotPutOff,
            severity: Severity::Warning,
            text: "a pivot was called off and is tried again",
        }),
    ];
    news.into_iter().flatten().collect()
}

/// Whether something is so, and was not told.
fn first(told: &mut bool, so: bool) -> bool {
    let first = so && !*told;
    *told |= so;
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn seen(phase: MergePhase, pivot_attempts: u32) -> MergeSeen {
        MergeSeen {
            phase,
            done_bytes: 0,
            total_bytes: 0,
            pivot_attempts,
            longest_pause: Duration::ZERO,
            copy_time: Duration::ZERO,
            bytes_per_second: 0,
            limit_lifted: false,
            guest_bytes_per_second: 0,
            waiting: None,
            overlaid: false,
            revision: 1,
        }
    }

    /// What is told of these sights, one after the other.
    fn story(sights: &[(MergePhase, u32)]) -> Vec<EventKind> {
        let mut told = Told::default();
        let mut story = Vec::new();
        for (phase, attempts) in sights {
            let news = of_merge(&mut told, &seen(phase.clone(), *attempts));
            story.extend(news.into_iter().map(|news| news.kind));
        }
        story
    }

    #[test]
    fn each_is_told_once_however_often_it_is_seen() {
        use EventKind::{LiveMergePivotPutOff, LiveMergePivoting, LiveMergeReady};
        use MergePhase::{Copying, Merged, Pending, Pivoting, Ready, Verifying};
        let all = [LiveMergeReady, LiveMergePivoting, LiveMergePivotPutOff];
        assert_eq!(story(&[(Pending, 0), (Copying, 0), (Merged, 0)]), []);
        assert_eq!(story(&[(Ready, 0), (Ready, 0)]), all[..1]);
        assert_eq!(story(&[(Ready, 0), (Pivoting, 1)]), all[..2]);
        let again = [
            (Ready, 0),
            (Pivoting, 1),
            (Ready, 1),
            (Pivoting, 2),
            (Ready, 2),
        ];
        assert_eq!(story(&again), all);
        assert_eq!(story(&[(Merged, 1)]), all[..2], "seen late");
        assert_eq!(story(&[(Verifying, 3), (Merged, 3)]), all, "seen late");
    }
}
