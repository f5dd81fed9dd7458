//! What the agent counts: merges, what they do to guests, removals, and room that was given.
//!
//! ```text
//!   merge::Board ─▶ MergeMeter      each change that is shown: phases, bytes, ends
//!   Volumes ─▶ VolumeMeter          removals and room
//! ```
//!
//! `docs/metrics.md` is made from the definitions.

use crate::merge::{Help, MergeKind, MergeView, Merges, Phase};
use livemerge_proto::ids::MergeId;
use livemerge_proto::problem::Problem;
use livemerge_runtime::metrics::{Counter, Definition, Histogram, Metrics};
use livemerge_storage::{Removal, RemovalState};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

const OPEN: Definition = Definition::gauge(
    "livemerge_merges_open",
    &["kind", "phase"],
    "Merges that have not ended, by the block job that does them and where they stand",
);
const ENDED: Definition = Definition::counter(
    "livemerge_merges_ended",
    &["kind", "outcome"],
    "Merges that have ended: merged, cancelled or failed",
);
const PHASE_SECONDS: Definition = Definition::histogram(
    "livemerge_merge_phase_seconds",
    &["phase"],
    "How long merges stayed in a phase that they have left, as far as this process has seen it",
    &[
        0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0,
    ],
);
const COPIED: Definition = Definition::counter(
    "livemerge_merge_copied_bytes",
    &["kind"],
    "Bytes that block jobs have copied; its rate is the rate of all merges together",
);
const RATE: Definition = Definition::histogram(
    "livemerge_merge_rate_bytes_per_second",
    &["kind"],
    "How fast merges that are done have copied, each on the average",
    &[
        MIB,
        4.0 * MIB,
        16.0 * MIB,
        64.0 * MIB,
        128.0 * MIB,
        256.0 * MIB,
        512.0 * MIB,
        1024.0 * MIB,
        2048.0 * MIB,
    ],
);
const PAUSE: Definition = Definition::histogram(
    "livemerge_guest_pause_seconds",
    &["kind"],
    "The longest time that a guest's processors stood still for a merge, of each merge that stopped them",
    &[
        0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 5.0, 10.0,
    ],
);
const PIVOTS: Definition = Definition::counter(
    "livemerge_merge_pivots_begun",
    &[],
    "How often a guest was begun to be switched",
);
const PUT_OFF: Definition = Definition::counter(
    "livemerge_merge_pivots_put_off",
    &[],
    "How often that was called off, since the guest would have stood still for too long",
);
const RETRIES: Definition = Definition::counter(
    "livemerge_merge_retries",
    &["reason"],
    "Tries of merges that something was in the way of, by its reason",
);
const HELPS: Definition = Definition::counter(
    "livemerge_merge_helps",
    &["what"],
    "What was done for copies that fell behind their guests: unlimited, throttled or overlaid",
);
const REMOVALS: Definition = Definition::counter(
    "livemerge_removals",
    &["outcome"],
    "Tries to remove a volume: removed, kept for a while, or the reason why not",
);
const FREED: Definition = Definition::counter(
    "livemerge_removal_freed_bytes",
    &[],
    "Bytes that removals gave back",
);
const ROOM: Definition = Definition::counter(
    "livemerge_room_given",
    &["outcome"],
    "Times that a volume was to be given room as it fills or for a merge: given, or the reason why not",
);
const HYPERVISOR: Definition = Definition::gauge(
    "livemerge_hypervisor_connected",
    &[],
    "Whether libvirt answers: 1 or 0",
);

/// Counts what happens to merges.
#[derive(Debug)]
pub(crate) struct MergeMeter {
    ended: Counter,
    phase_seconds: Histogram,
    copied: Counter,
    rate: Histogram,
    pause: Histogram,
    pivots: Counter,
    put_off: Counter,
    retries: Counter,
    helps: Counter,
    /// When the phases were entered.
    entered: Mutex<HashMap<MergeId, Instant>>,
}

impl MergeMeter {
    fn new(metrics: &Metrics) -> Self {
        let meter = Self {
            ended: metrics.counter(ENDED),
            phase_seconds: metrics.histogram(PHASE_SECONDS),
            copied: metrics.counter(COPIED),
            rate: metrics.histogram(RATE),
            pause: metrics.histogram(PAUSE),
            pivots: metrics.counter(PIVOTS),
            put_off: metrics.counter(PUT_OFF),
            retries: metrics.counter(RETRIES),
            helps: metrics.counter(HELPS),
            entered: Mutex::default(),
        };
        for kind in KINDS.map(kind) {
            meter.copied.add(&[kind], 0);
            for outcome in ["merged", "cancelled", "failed"] {
                meter.ended.add(&[kind, outcome], 0);
            }
        }
        meter.pivots.add(&[], 0);
        meter.put_off.add(&[], 0);
        meter
    }

    /// A merge is shown in another state than before.
    pub(crate) fn seen(&self, before: Option<&MergeView>, now: &MergeView) {
        let Some(before) = before else {
            self.entered().insert(now.record.order.id, Instant::now());
            return;
        };
        let kind = kind(now.record.kind);
        self.copied
            .add(&[kind], now.done_bytes.saturating_sub(before.done_bytes));
        let begun =
            now.record.pivot_attempts - before.record.pivot_attempts.min(now.record.pivot_attempts);
        self.pivots.add(&[], begun.into());
        let (was, is) = (&before.record.phase, &now.record.phase);
        if matches!((was, is), (Phase::Pivoting { .. }, Phase::Ready { .. })) {
            self.put_off.inc(&[]);
        }
        self.helped(before, now);
        let tried = before
            .waiting
            .as_ref()
            .map_or(0, |waiting| waiting.attempts);
        if let Some(waiting) = now.waiting.as_ref().filter(|it| it.attempts > tried) {
            self.retries.inc(&[waiting.cause.reason.as_str()]);
        }
        if phase(was) != phase(is) {
            self.left(now.record.order.id, was);
        }
        if !was.ended() && is.ended() {
            self.over(now, kind);
        }
    }

    fn helped(&self, before: &MergeView, now: &MergeView) {
        let (
            Help {
                unlimited,
                throttle,
            },
            is,
        ) = (before.record.help, now.record.help);
        let helps = [
            ("unlimited", is.unlimited && !unlimited),
            ("throttled", is.throttle.is_some() && throttle.is_none()),
            ("overlaid", now.record.overlaid && !before.record.overlaid),
        ];
        for (what, _) in helps.iter().filter(|(_, came)| *came) {
            self.helps.inc(&[what]);
        }
    }

    fn left(&self, merge: MergeId, was: &Phase) {
        let now = Instant::now();
        if let Some(entered) = self.entered().insert(merge, now) {
            let time = now.duration_since(entered).as_secs_f64();
            self.phase_seconds.observe(&[phase(was)], time);
        }
    }

    fn over(&self, view: &MergeView, kind: &str) {
        let record = &view.record;
        self.entered().remove(&record.order.id);
        self.ended.inc(&[kind, phase(&record.phase)]);
        if record.longest_pause > Duration::ZERO {
            self.pause
                .observe(&[kind], record.longest_pause.as_secs_f64());
        }
        let took = record.copied.took.as_secs_f64();
        if matches!(record.phase, Phase::Merged { .. }) && took > 0.0 {
            self.rate
                .observe(&[kind], record.copied.bytes as f64 / took);
        }
    }

    fn entered(&self) -> std::sync::MutexGuard<'_, HashMap<MergeId, Instant>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts removals, and room that was given.
#[derive(Debug)]
pub(crate) struct VolumeMeter {
    removals: Counter,
    freed: Counter,
    room: Counter,
}

impl VolumeMeter {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let meter = Self {
            removals: metrics.counter(REMOVALS),
            freed: metrics.counter(FREED),
            room: metrics.counter(ROOM),
        };
        meter.removals.add(&["removed"], 0);
        meter.freed.add(&[], 0);
        meter
    }

    /// What came of a removal.
    pub(crate) fn removed(&self, removed: &Result<Removal, Problem>) {
        let outcome = match removed {
            Ok(removal) => match removal.state {
                RemovalState::Gone => "removed",
                RemovalState::Condemned { .. } => "kept",
            },
            Err(problem) => problem.reason.as_str(),
        };
        self.removals.inc(&[outcome]);
        if let Ok(removal) = removed {
            self.freed.add(&[], removal.freed_bytes);
        }
    }

    /// What came of an attempt to give room.
    pub(crate) fn provided<T>(&self, given: &Result<T, Problem>) {
        let outcome = given
            .as_ref()
            .err()
            .map_or("given", |problem| problem.reason.as_str());
        self.room.inc(&[outcome]);
    }
}

/// Adds what is counted of merges, and shows how many there are.
pub(crate) fn observe(
    metrics: &Metrics,
    merges: &Arc<Merges>,
    connected: impl Fn() -> bool + Send + Sync + 'static,
) {
    merges.observe(MergeMeter::new(metrics));
    let (open, hypervisor) = (metrics.gauge(OPEN), metrics.gauge(HYPERVISOR));
    let views = merges.watch();
    metrics.refresh(move || {
        hypervisor.set(&[], f64::from(u8::from(connected())));
        open.clear();
        for kind in KINDS.map(kind) {
            open.set(&[kind, "copying"], 0.0);
        }
        let views = views.borrow();
        let records = views.values().map(|view| &view.record);
        for record in records.filter(|record| !record.phase.ended()) {
            open.add(&[kind(record.kind), phase(&record.phase)], 1.0);
        }
    });
}

const KINDS: [MergeKind; 4] = [
    MergeKind::ActiveCommit,
    MergeKind::Commit,
    MergeKind::Pull,
    MergeKind::OfflineCommit,
];

/// A kind as a label.
pub(crate) fn kind(kind: MergeKind) -> &'static str {
    match kind {
        MergeKind::ActiveCommit => "active_commit",
        MergeKind::Commit => "commit",
        MergeKind::Pull => "pull",
        MergeKind::OfflineCommit => "offline_commit",
    }
}

/// A phase as a label.
pub(crate) fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Copying { .. } => "copying",
        Phase::Ready { .. } => "ready",
        Phase::Pivoting { .. } => "pivoting",
        Phase::Overlaying { .. } => "overlaying",
        Phase::Cancelling { .. } => "cancelling",
        Phase::Restoring { .. } => "restoring",
        Phase::Verifying { .. } => "verifying",
        Phase::Merged { .. } => "merged",
        Phase::Cancelled { .. } => "cancelled",
        Phase::Failed { .. } => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::samples;
    use livemerge_proto::reason::Reason;

    #[test]
    fn a_merge_is_counted_by_what_became_of_it() {
        let metrics = Metrics::default();
        let meter = MergeMeter::new(&metrics);
        let record = samples::record(true);
        let at = |phase: Phase, done_bytes| {
            let mut view = MergeView::new(record.clone());
            view.record.phase = phase;
            view.done_bytes = done_bytes;
            view
        };
        let now = samples::now();
        let copying = at(
            Phase::Copying {
                starts: 1,
                since: now,
            },
            70,
        );
        let ready = at(Phase::Ready { not_before: now }, 100);
        let mut merged = at(Phase::Merged { at: now }, 100);
        merged.record.longest_pause = Duration::from_millis(40);
        merged.record.pivot_attempts = record.pivot_attempts + 1;
        meter.seen(None, &at(Phase::Pending, 0));
        meter.seen(Some(&at(Phase::Pending, 0)), &copying);
        meter.seen(Some(&copying), &ready);
        meter.seen(Some(&ready), &merged);
        let text = metrics.text();
        for line in [
            "livemerge_merges_ended_total{kind=\"active_commit\",outcome=\"merged\"} 1",
            "livemerge_merge_copied_bytes_total{kind=\"active_commit\"} 100",
            "livemerge_merge_pivots_begun_total 1",
            "livemerge_guest_pause_seconds_bucket{le=\"0.03\",kind=\"active_commit\"} 0",
            "livemerge_guest_pause_seconds_bucket{le=\"0.05\",kind=\"active_commit\"} 1",
            "livemerge_merge_phase_seconds_count{phase=\"copying\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(meter.entered().is_empty());
    }

    #[test]
    fn what_is_not_removed_is_counted_by_its_reason() {
        let metrics = Metrics::default();
        let meter = VolumeMeter::new(&metrics);
        meter.removed(&Err(Problem::new(Reason::VolumeInUse, "in use")));
        meter.provided(&Ok(()));
        let text = metrics.text();
        assert!(text.contains("livemerge_removals_total{outcome=\"VOLUME_IN_USE\"} 1"));
        assert!(text.contains("livemerge_room_given_total{outcome=\"given\"} 1"));
    }
}
