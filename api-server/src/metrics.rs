//! What the server counts: operations, what they wait for, and hosts.
//!
//! ```text
//!   snapshot::Hub ─▶ OperationMeter    each change that is shown: ends, retries
//!   Hub, Hosts ◀─ each scrape          what is open, what waits, who answers
//! ```
//!
//! `docs/metrics.md` is made from the definitions.

use crate::hosts::{HostStatus, Hosts};
use crate::snapshot::{
    CreatePhase, DeletePhase, DiskState, Operation, OperationState, OperationView, Snapshots, Work,
};
use jiff::Timestamp;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use livemerge_runtime::metrics::{Counter, Definition, Gauge, Histogram, Metrics};
use std::sync::Arc;

/// Of each of so many hosts it is shown whether it answers; beyond that they are only counted.
const MOST_HOSTS: usize = 2000;

const OPEN: Definition = Definition::gauge(
    "livemerge_operations_open",
    &["kind", "phase"],
    "Operations that have not ended, by what they do and where they stand",
);
const WAITING: Definition = Definition::gauge(
    "livemerge_operations_waiting",
    &["reason"],
    "Open operations that something is in the way of, by its reason; VM_BUSY and MERGE_LIMIT_REACHED are queues",
);
const OLDEST: Definition = Definition::gauge(
    "livemerge_operation_oldest_seconds",
    &[],
    "For how long the oldest open operation has been accepted; 0 when none is open",
);
const ENDED: Definition = Definition::counter(
    "livemerge_operations_ended",
    &["kind", "outcome"],
    "Operations that have ended: succeeded, failed or cancelled",
);
const SECONDS: Definition = Definition::histogram(
    "livemerge_operation_seconds",
    &["kind", "outcome"],
    "How long operations took from their acceptance to their end",
    &[
        0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0,
    ],
);
const RETRIES: Definition = Definition::counter(
    "livemerge_operation_retries",
    &["reason"],
    "Tries of operations that something was in the way of, by its reason",
);
const HOSTS: Definition = Definition::gauge(
    "livemerge_hosts",
    &["state"],
    "Hosts that are known: up or unresponsive",
);
const HOST_UP: Definition = Definition::gauge(
    "livemerge_host_up",
    &["host"],
    "Whether a host's agent is heard: 1 or 0; of the first 2000 registered hosts",
);
const HOST_HYPERVISOR: Definition = Definition::gauge(
    "livemerge_host_hypervisor_connected",
    &["host"],
    "Whether libvirt answers the host's agent, as the agent says: 1 or 0",
);
const VMS: Definition = Definition::gauge(
    "livemerge_vms",
    &[],
    "Virtual machines that the hosts which are heard show",
);

/// Counts what becomes of operations.
#[derive(Debug)]
pub(crate) struct OperationMeter {
    ended: Counter,
    seconds: Histogram,
    retries: Counter,
}

impl OperationMeter {
    fn new(metrics: &Metrics) -> Self {
        let meter = Self {
            ended: metrics.counter(ENDED),
            seconds: metrics.histogram(SECONDS),
            retries: metrics.counter(RETRIES),
        };
        for kind in ["create", "delete"] {
            for outcome in ["succeeded", "failed", "cancelled"] {
                meter.ended.add(&[kind, outcome], 0);
            }
        }
        meter
    }

    /// An operation is shown in another state than before.
    pub(crate) fn seen(&self, before: &OperationView, now: &OperationView) {
        let tried = before
            .waiting
            .as_ref()
            .map_or(0, |waiting| waiting.attempts);
        if let Some(waiting) = now.waiting.as_ref().filter(|it| it.attempts > tried) {
            self.retries.inc(&[waiting.cause.reason.as_str()]);
        }
        let operation = &now.operation;
        let outcome = match &operation.state {
            OperationState::Queued | OperationState::Running => return,
            OperationState::Succeeded => "succeeded",
            OperationState::Failed(_) => "failed",
            OperationState::Cancelled => "cancelled",
        };
        if before.operation.state.ended() {
            return;
        }
        let labels = [kind(operation), outcome];
        self.ended.inc(&labels);
        let ended_at = operation.ended_at.unwrap_or(operation.created_at);
        self.seconds
            .observe(&labels, between(operation.created_at, ended_at));
    }
}

/// Adds what is counted of operations, and shows those that are open and the hosts.
pub(crate) fn observe(
    metrics: &Metrics,
    snapshots: &Arc<Snapshots>,
    hosts: &Arc<Hosts>,
    clock: Arc<dyn Clock>,
) {
    snapshots.hub().observe(OperationMeter::new(metrics));
    let shown = Shown {
        open: metrics.gauge(OPEN),
        waiting: metrics.gauge(WAITING),
        oldest: metrics.gauge(OLDEST),
        hosts: metrics.gauge(HOSTS),
        host_up: metrics.gauge(HOST_UP),
        host_hypervisor: metrics.gauge(HOST_HYPERVISOR),
        vms: metrics.gauge(VMS),
    };
    // Who reads metrics does not keep the database open.
    let (snapshots, hosts) = (Arc::downgrade(snapshots), Arc::downgrade(hosts));
    metrics.refresh(move || {
        if let (Some(snapshots), Some(hosts)) = (snapshots.upgrade(), hosts.upgrade()) {
            shown.operations(&snapshots.hub().all(), clock.now());
            shown.of_hosts(&hosts);
        }
    });
}

struct Shown {
    open: Gauge,
    waiting: Gauge,
    oldest: Gauge,
    hosts: Gauge,
    host_up: Gauge,
    host_hypervisor: Gauge,
    vms: Gauge,
}

impl Shown {
    fn operations(&self, views: &[OperationView], now: Timestamp) {
        self.open.clear();
        for kind in ["create", "delete"] {
            self.open.set(&[kind, "queued"], 0.0);
        }
        self.waiting.clear();
        for queue in [Reason::VmBusy, Reason::MergeLimitReached] {
            self.waiting.set(&[queue.as_str()], 0.0);
        }
        let mut oldest = 0.0_f64;
        for view in views {
            let operation = &view.operation;
            self.open.add(&[kind(operation), phase(operation)], 1.0);
            if let Some(waiting) = &view.waiting {
                self.waiting.add(&[waiting.cause.reason.as_str()], 1.0);
            }
            oldest = oldest.max(between(operation.created_at, now));
        }
        self.oldest.set(&[], oldest);
    }

    fn of_hosts(&self, hosts: &Hosts) {
        let all = hosts.all();
        let is_up = |status: HostStatus| status == HostStatus::Up;
        let up = all.iter().filter(|(_, view)| is_up(view.status)).count();
        self.hosts.set(&["up"], up as f64);
        self.hosts.set(&["unresponsive"], (all.len() - up) as f64);
        let vms = all.iter().filter_map(|(_, view)| view.vms.as_ref());
        self.vms
            .set(&[], vms.map(|vms| vms.len()).sum::<usize>() as f64);
        self.host_up.clear();
        self.host_hypervisor.clear();
        for (record, view) in all.iter().take(MOST_HOSTS) {
            let host = record.id.to_string();
            let flag = |is: bool| f64::from(u8::from(is));
            self.host_up.set(&[&host], flag(is_up(view.status)));
            self.host_hypervisor
                .set(&[&host], flag(view.hypervisor_connected));
        }
    }
}

fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

fn kind(operation: &Operation) -> &'static str {
    match &operation.work {
        Work::Create(_) => "create",
        Work::Delete(_) => "delete",
    }
}

/// Where an open operation stands. Of a delete of several disks it is what is done now.
fn phase(operation: &Operation) -> &'static str {
    if operation.state == OperationState::Queued {
        return "queued";
    }
    match &operation.work {
        Work::Create(CreatePhase::Planning) | Work::Delete(DeletePhase::Planning) => "planning",
        Work::Create(CreatePhase::Overlaying(_)) => "overlaying",
        Work::Create(CreatePhase::Refused(..)) => "refused",
        Work::Delete(DeletePhase::Disks(tasks)) => {
            let any = |is: fn(&DiskState) -> bool| tasks.iter().any(|task| is(&task.state));
            if any(|state| matches!(state, DiskState::Merging)) {
                "merging"
            } else if any(|state| matches!(state, DiskState::Removing { .. })) {
                "removing"
            } else {
                "between"
            }
        }
    }
}
