//! Applies the repair of one finding: looks again, and acts only on that very finding.
//!
//! ```text
//!   request id known ─▶ its operation
//!   fresh look ─┬─ that very finding, a safe repair ─▶ event ─▶ act ─▶ event
//!               ├─ that very finding, none ──────────▶ NO_SAFE_REPAIR, or what could not be told
//!               ├─ its subject is another by now ────▶ CONCURRENT_CHANGE
//!               ├─ not there, all was looked at ─────▶ gone already
//!               └─ not there, something was not ─────▶ what could not be told
//! ```
//!
//! A repair that is not an operation of its own is safe to repeat: a removal has an id that comes
//! from the finding's, a change of a snapshot names the revision that it builds on.

use super::Consistency;
use super::finding::{Finding, FindingId, Kind, Remedy, Repair};
use crate::hosts::{HostError, RemovalOrder, no_host};
use crate::snapshot::{
    DeleteOrder, EventKind, Mark, MergeOptions, NewEvent, OperationView, Severity, Snapshot,
    SnapshotState,
};
use crate::store::{RequestRecord, SnapshotChange};
use livemerge_proto::ids::{DiskTarget, HostId, SnapshotId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::RemovalId;
use uuid::Uuid;

/// Asks for a repair.
#[derive(Debug, Clone)]
pub struct RepairOrder {
    /// The request.
    pub request: RequestRecord,
    /// Who asks.
    pub caller: String,
    /// Of which finding.
    pub finding: FindingId,
}

/// What came of a repair.
#[derive(Debug, Clone, PartialEq)]
pub enum Repaired {
    /// It is done.
    Done {
        /// Bytes given back to storage.
        freed_bytes: u64,
    },
    /// The host goes on with it.
    GoesOn,
    /// An operation does it.
    Started(Box<OperationView>),
    /// There is no such finding any more.
    AlreadyGone,
}

impl Consistency {
    /// Applies the repair of a finding.
    ///
    /// # Errors
    /// Says why not; nothing was done then, unless the host did not answer.
    pub async fn repair(&self, order: RepairOrder) -> Result<Repaired, Problem> {
        let _in_turn = self.repairing.lock().await;
        if let Some(operation) = self.store.repeated(&order.request).await? {
            let view = self.snapshots.shown(operation);
            return Ok(Repaired::Started(Box::new(view)));
        }
        let findings = self.findings().await?;
        let Some(finding) = again(&findings, &order.finding)? else {
            return Ok(Repaired::AlreadyGone);
        };
        match &finding.remedy {
            Remedy::Safe(repair) => self.act(finding, repair, &order).await,
            Remedy::Nothing(why) => Err(unsafe_to_repair(finding, why)),
            Remedy::Unclear(cause) => Err(untold(cause)),
        }
    }

    async fn act(
        &self,
        finding: &Finding,
        repair: &Repair,
        order: &RepairOrder,
    ) -> Result<Repaired, Problem> {
        tracing::info!(finding = %order.finding, ?repair, "a repair is applied");
        match repair {
            Repair::RemoveVolume(host, mark) => {
                let id = removal_for(&order.finding);
                self.remove(finding, order, host, id, mark).await
            }
            Repair::ResumeRemoval(host, id, mark) => {
                self.remove(finding, order, host, *id, mark).await
            }
            Repair::DeleteSnapshot(id, revision) => self.delete(order, *id, *revision).await,
            Repair::MarkIncomplete(snapshot) => {
                let text = format!("snapshot {} was marked as INCOMPLETE", snapshot.name);
                let change = SnapshotChange::Put(Snapshot {
                    state: SnapshotState::Incomplete,
                    ..(**snapshot).clone()
                });
                self.change(finding, order, change, text).await
            }
            Repair::ForgetDisk(snapshot, disk) => {
                let text = format!(
                    "snapshot {} no longer names a volume of disk {disk}",
                    snapshot.name
                );
                let change = without_disk(snapshot, disk);
                self.change(finding, order, change, text).await
            }
        }
    }

    async fn remove(
        &self,
        finding: &Finding,
        order: &RepairOrder,
        host: &HostId,
        id: RemovalId,
        mark: &Mark,
    ) -> Result<Repaired, Problem> {
        let handle = self.hosts.handle(host).ok_or_else(|| no_host(host))?;
        let text = format!("the removal of {} was asked for", mark.volume);
        let asked = self.event(EventKind::RepairRequested, finding, order, text);
        self.store.add_events(&[asked]).await?;
        let removal = RemovalOrder {
            id,
            volume: mark.clone(),
        };
        let removed = handle.agent.remove_volume(&removal).await;
        let removed = removed.map_err(HostError::into_problem)?;
        if !removed.over() {
            return Ok(Repaired::GoesOn);
        }
        let text = match removed.kept_until {
            None => format!("{} was removed from storage", mark.volume),
            Some(until) => format!("{} was removed, and is kept until {until}", mark.volume),
        };
        let mut done = self.event(EventKind::RepairApplied, finding, order, text);
        let freed_bytes = removed.freed_bytes;
        done.details
            .insert("freed_bytes".to_owned(), freed_bytes.to_string());
        self.note(done).await;
        Ok(Repaired::Done { freed_bytes })
    }

    /// What is done is done: the answer does not fail for its entry in the log.
    async fn note(&self, event: NewEvent) {
        if let Err(error) = self.store.add_events(&[event]).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a repair was applied and could not be noted"
            );
        }
    }

    /// The operation writes the log itself, from the request on.
    async fn delete(
        &self,
        order: &RepairOrder,
        snapshot: SnapshotId,
        revision: u64,
    ) -> Result<Repaired, Problem> {
        let delete = DeleteOrder {
            request: order.request.clone(),
            caller: order.caller.clone(),
            vm: None,
            snapshots: vec![snapshot],
            revision: Some(revision),
            allow_missing: true,
            options: MergeOptions::default(),
        };
        let started = self.snapshots.delete(delete).await.map_err(changed)?;
        let started = started.map(|view| Repaired::Started(Box::new(view)));
        Ok(started.unwrap_or(Repaired::AlreadyGone))
    }

    async fn change(
        &self,
        finding: &Finding,
        order: &RepairOrder,
        change: SnapshotChange,
        text: String,
    ) -> Result<Repaired, Problem> {
        let event = self.event(EventKind::RepairApplied, finding, order, text);
        self.store.put_snapshots(&[change], &[event]).await?;
        Ok(Repaired::Done { freed_bytes: 0 })
    }

    fn event(
        &self,
        kind: EventKind,
        finding: &Finding,
        order: &RepairOrder,
        message: String,
    ) -> NewEvent {
        let mut details = finding.details.clone();
        details.insert("finding".to_owned(), order.finding.to_string());
        NewEvent {
            kind,
            severity: Severity::Info,
            occurred_at: self.clock.now(),
            host: finding.hosts.first().cloned(),
            vm: finding.vm,
            snapshot: finding.snapshot,
            operation: None,
            actor: Some(order.caller.clone()),
            message,
            details,
        }
    }
}

/// A snapshot that names nothing any more is no longer one.
pub(super) fn without_disk(snapshot: &Snapshot, disk: &DiskTarget) -> SnapshotChange {
    let mut left = snapshot.clone();
    left.disks.retain(|own| own.disk != *disk);
    if left.disks.is_empty() {
        SnapshotChange::Delete(left.id)
    } else {
        SnapshotChange::Put(left)
    }
}

/// The very finding, if it is still there.
///
/// # Errors
/// When it is another one by now, or when that cannot be told.
pub(super) fn again<'a>(
    findings: &'a [Finding],
    id: &FindingId,
) -> Result<Option<&'a Finding>, Problem> {
    if let Some(finding) = findings.iter().find(|finding| finding.id() == *id) {
        return Ok(Some(finding));
    }
    if let Some(other) = findings.iter().find(|other| other.id().same_subject(id)) {
        let text = format!(
            "it is another one by now, finding {}: {}",
            other.id(),
            other.message
        );
        return Err(Problem::new(Reason::ConcurrentChange, text).with("finding", other.id()));
    }
    let mut unknown = findings
        .iter()
        .filter(|finding| finding.kind == Kind::Unknown && finding.severity != Severity::Info);
    match unknown.find_map(|finding| match &finding.remedy {
        Remedy::Unclear(cause) => Some(cause),
        _ => None,
    }) {
        Some(cause) => Err(untold(cause)),
        None => Ok(None),
    }
}

fn untold(cause: &Problem) -> Problem {
    let mut problem = cause.clone();
    problem.message = format!(
        "whether the repair is safe cannot be told: {}",
        cause.message
    );
    problem
}

fn unsafe_to_repair(finding: &Finding, why: &str) -> Problem {
    let text = format!("nothing is safe to apply: {why}");
    Problem::new(Reason::NoSafeRepair, text).with("finding", finding.id())
}

/// The snapshot was looked at just now; another revision is somebody else's doing.
fn changed(problem: Problem) -> Problem {
    match problem.reason {
        Reason::EtagMismatch | Reason::SnapshotNotReady => Problem {
            reason: Reason::ConcurrentChange,
            ..problem
        },
        _ => problem,
    }
}

/// The same finding makes the same removal, however often it is asked for.
fn removal_for(finding: &FindingId) -> RemovalId {
    let name = format!("livemerge repair {finding}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into()
}
