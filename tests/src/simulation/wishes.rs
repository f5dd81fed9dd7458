//! What is wished of merges under way: that they are given up, or copy no faster.
//!
//! On the server a wish goes into the record, and whoever works on the operation reads it anew. On
//! the agent it goes to the merges' driver, between two of its rounds.

use std::time::Duration;

use livemerge_api_server::hosts::{MergePhase, MergeSight};
use livemerge_api_server::snapshot::{
    EventKind, NewEvent, Operation, OperationState, Severity, Snapshot, SnapshotState, Work,
};
use livemerge_api_server::store::{Change, SnapshotChange};
use livemerge_host_agent::merge::step::Action;
use livemerge_host_agent::merge::{MergeRecord, Phase};
use livemerge_proto::ids::{MergeId, OperationId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

use super::agent::{Agent, Process};
use super::driver::Granted;
use super::server::Server;

impl Server {
    /// A client asks that an operation ends. True when that is written down.
    pub(super) fn cancel(&mut self, id: OperationId, now: Duration) -> bool {
        let wall = self.clock.at(now);
        let Some(process) = &self.process else {
            return false;
        };
        let mut operation = self.record.operations[&id].clone();
        let forward = process.merges(&operation).values().any(passed);
        let refused = operation.state.ended()
            || operation.cancel_requested
            || matches!(operation.work, Work::Create(_))
            || forward
            || !operation.may_turn_back();
        if refused {
            return false;
        }
        operation.cancel_requested = true;
        let mut snapshots = Vec::new();
        let mut events = Vec::new();
        if operation.state == OperationState::Queued {
            operation.state = OperationState::Cancelled;
            operation.ended_at = Some(wall);
            events.push(NewEvent {
                kind: EventKind::OperationCancelled,
                severity: Severity::Info,
                occurred_at: wall,
                host: None,
                vm: Some(operation.vm),
                snapshot: Some(operation.snapshot),
                operation: Some(operation.id),
                actor: None,
                message: String::new(),
                details: Default::default(),
            });
            for id in operation.snapshots() {
                if let Some(snapshot) = self.record.snapshots.get(&id) {
                    snapshots.push(SnapshotChange::Put(undeleted(snapshot.clone())));
                }
            }
        }
        self.wished(operation, snapshots, events)
    }

    /// A client asks that an operation's jobs copy no more than that in a second.
    pub(super) fn limit(&mut self, id: OperationId, bytes_per_second: u64) -> bool {
        let mut operation = self.record.operations[&id].clone();
        let refused = self.process.is_none()
            || operation.state.ended()
            || matches!(operation.work, Work::Create(_));
        operation.options.bytes_per_second = bytes_per_second;
        !refused && self.wished(operation, vec![], vec![])
    }

    fn wished(
        &mut self,
        operation: Operation,
        snapshots: Vec<SnapshotChange>,
        events: Vec<NewEvent>,
    ) -> bool {
        let id = operation.id;
        let change = Change {
            operation,
            snapshots,
            events,
        };
        let written = self.record.apply(&change).is_ok();
        if let Some(process) = self.process.as_mut().filter(|_| written) {
            process.was_asked(id, &self.record);
        }
        written
    }
}

fn passed(sight: &MergeSight) -> bool {
    use MergePhase::{Merged, Pivoting, Verifying};
    matches!(sight, MergeSight::Seen(seen) if matches!(seen.phase, Pivoting | Verifying | Merged))
}

fn undeleted(snapshot: Snapshot) -> Snapshot {
    let state = if snapshot.was_incomplete {
        SnapshotState::Incomplete
    } else {
        SnapshotState::Ready
    };
    Snapshot { state, ..snapshot }
}

impl Process {
    /// Whether whoever drives these merges hears wishes now; also when nobody does.
    pub(super) fn may_be_wished(&self, merges: &[MergeId]) -> bool {
        let drives = |place: &usize| merges.iter().any(|id| self.drivers[*place].has(*id));
        let mut drivers = (0..self.drivers.len()).filter(drives);
        drivers.all(|place| place > 0 || self.drivers[place].hears_wishes())
    }
}

impl Agent {
    /// Gives a merge up, as long as that can be done. What goes together with it follows.
    pub(super) fn cancel(
        &mut self,
        merge: MergeId,
        now: Duration,
        journal_fails: bool,
    ) -> Result<(), Problem> {
        let (wall, record) = (self.clock.at(now), self.known(merge)?);
        let lost = is_lost(&record.phase);
        let Some(place) = self.driver_of(merge) else {
            return match &record.phase {
                _ if lost => Ok(()),
                Phase::Merged { .. } => Err(past_return()),
                _ => Err(stopping()),
            };
        };
        if lost {
            return Ok(());
        }
        let drivers = &self.process.as_ref().ok_or_else(stopping)?.drivers;
        let passed = drivers[place].peers(merge, &self.journal).passed;
        let (phase, action) = match &record.phase {
            Phase::Pending if !passed => (Phase::Cancelled { at: wall }, None),
            Phase::Copying { .. } | Phase::Ready { .. } if !passed => {
                (Phase::Cancelling { since: wall }, Some(Action::AbortJob))
            }
            _ => return Err(past_return()),
        };
        if journal_fails {
            return Err(unwritten());
        }
        let together: Vec<_> = drivers[place].members.iter().map(|it| it.merge).collect();
        self.enter(merge, phase);
        for other in together {
            // Of these nothing was touched, and they may have long to wait for their turn.
            if matches!(self.journal[&other].phase, Phase::Pending) {
                self.enter(other, Phase::Cancelled { at: wall });
            }
        }
        if let Some(process) = self.process.as_mut() {
            process.drivers[place].granted(merge, Granted::Cancel(action), now);
        }
        self.end_drivers();
        Ok(())
    }

    /// Lets a merge's job copy so many bytes a second from now on.
    pub(super) fn limit(
        &mut self,
        merge: MergeId,
        bytes_per_second: u64,
        now: Duration,
        journal_fails: bool,
    ) -> Result<(), Problem> {
        let record = self.known(merge)?;
        if record.phase.ended() {
            let text = format!("merge {merge} has ended");
            return Err(Problem::new(Reason::ConcurrentChange, text));
        }
        let copies = matches!(record.phase, Phase::Copying { .. } | Phase::Ready { .. });
        let place = self.driver_of(merge).ok_or_else(stopping)?;
        if journal_fails {
            return Err(unwritten());
        }
        if let Some(record) = self.journal.get_mut(&merge) {
            record.bytes_per_second = bytes_per_second;
            record.revision += 1;
        }
        if let Some(process) = self.process.as_mut().filter(|_| copies) {
            let limit = Granted::Limit(bytes_per_second);
            process.drivers[place].granted(merge, limit, now);
        }
        Ok(())
    }

    fn enter(&mut self, merge: MergeId, phase: Phase) {
        if let Some(record) = self.journal.get_mut(&merge) {
            record.phase = phase;
            record.revision += 1;
        }
    }

    fn known(&self, merge: MergeId) -> Result<MergeRecord, Problem> {
        let record = self.journal.get(&merge).cloned();
        record.ok_or_else(|| {
            let text = format!("merge {merge} is not in this host's journal");
            Problem::new(Reason::MergeNotFound, text)
        })
    }

    fn driver_of(&self, merge: MergeId) -> Option<usize> {
        let drivers = &self.process.as_ref()?.drivers;
        drivers.iter().position(|driver| driver.has(merge))
    }
}

fn is_lost(phase: &Phase) -> bool {
    use Phase::{Cancelled, Cancelling, Failed, Restoring};
    matches!(
        phase,
        Cancelling { .. } | Cancelled { .. } | Restoring { .. } | Failed { .. }
    )
}

fn past_return() -> Problem {
    let text = "the guest is being switched, or was";
    Problem::new(Reason::PointOfNoReturn, text)
}

fn stopping() -> Problem {
    Problem::new(Reason::ServerDraining, "the agent is stopping")
}

fn unwritten() -> Problem {
    let text = "the agent's journal cannot be written";
    Problem::new(Reason::StoreUnavailable, text)
}
