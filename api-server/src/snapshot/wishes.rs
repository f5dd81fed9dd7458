//! What is asked of an operation that was accepted: that it ends, or keeps to a limit.
//!
//! A wish is written into the operation's record, and its lane is told. The lane's own writes name
//! the revision that they build on, so neither overwrites the other: who comes second reads again.

use super::hub::OperationView;
use super::service::{Snapshots, about};
use super::step::awaited_merges;
use super::types::{EventKind, NewEvent, Operation, OperationState, Snapshot, SnapshotState, Work};
use crate::store::{Change, SnapshotChange, StoreError};
use livemerge_proto::ids::OperationId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;

/// What may be asked of an operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it ends before it is done. One that waits for its turn ends at once.
    Cancel,
    /// That its block jobs, all together, copy no more than so many bytes a second; 0: no limit.
    Limit(u64),
}

impl Snapshots {
    /// Asks something of an operation, whatever its lane writes meanwhile.
    ///
    /// # Errors
    /// `POINT_OF_NO_RETURN` when it can only go forward, `CONCURRENT_CHANGE` when it has ended,
    /// `STRATEGY_UNSUPPORTED` when it takes a snapshot.
    pub async fn wish(
        &self,
        id: OperationId,
        wish: Wish,
        caller: &str,
    ) -> Result<OperationView, Problem> {
        loop {
            let operation = self.around.store.operation(id).await?;
            let operation = operation.ok_or_else(|| no_operation(id))?;
            let wished = match wish {
                Wish::Cancel => self.cancel(operation.clone(), caller).await?,
                Wish::Limit(limit) => self.limit(operation.clone(), limit, caller)?,
            };
            let Some(change) = wished else {
                return Ok(self.shown(operation));
            };
            match self.around.store.apply(&change).await {
                Ok(operation) => {
                    let shown = operation.clone();
                    self.around.hub.update(id, |view| view.operation = shown);
                    self.around.hub.ask(id);
                    return Ok(self.shown(operation));
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// `None` when it was asked for already.
    async fn cancel(&self, operation: Operation, by: &str) -> Result<Option<Change>, Problem> {
        if operation.state == OperationState::Cancelled || operation.cancel_requested {
            return Ok(None);
        }
        merges(&operation)?;
        if !self.may_turn_back(&operation) {
            let text = "the operation can only go forward: the guest is being switched, or was";
            let problem = Problem::new(Reason::PointOfNoReturn, text);
            return Err(problem.with("operation", operation.id));
        }
        self.cancelled(operation, by).await.map(Some)
    }

    /// `None` when that is its limit already.
    fn limit(
        &self,
        mut operation: Operation,
        limit: u64,
        by: &str,
    ) -> Result<Option<Change>, Problem> {
        merges(&operation)?;
        if operation.options.bytes_per_second == limit {
            return Ok(None);
        }
        operation.options.bytes_per_second = limit;
        let text = match limit {
            0 => "its block jobs have no limit from now on".to_owned(),
            _ => format!("its block jobs copy no more than {limit} bytes a second from now on"),
        };
        let event = self.told(&operation, EventKind::OperationLimited, text, by);
        Ok(Some(Change {
            operation,
            snapshots: vec![],
            events: vec![event],
        }))
    }

    async fn cancelled(&self, mut operation: Operation, caller: &str) -> Result<Change, Problem> {
        operation.cancel_requested = true;
        let text = "its end was asked for".to_owned();
        let kind = EventKind::OperationCancelRequested;
        let mut events = vec![self.told(&operation, kind, text, caller)];
        let mut snapshots = Vec::new();
        if operation.state == OperationState::Queued {
            operation.state = OperationState::Cancelled;
            operation.ended_at = Some(self.around.clock.now());
            let text = "the operation was cancelled before its turn".to_owned();
            events.push(self.told(&operation, EventKind::OperationCancelled, text, caller));
            let named: Vec<_> = operation.snapshots().collect();
            for snapshot in self.named(&named, None, true).await? {
                snapshots.push(SnapshotChange::Put(undeleted(snapshot)));
            }
        }
        Ok(Change {
            operation,
            snapshots,
            events,
        })
    }

    /// Whether none of the merges under way has lost its way back, as far as is known here. The
    /// host has the last word.
    fn may_turn_back(&self, operation: &Operation) -> bool {
        use crate::hosts::MergePhase::{Merged, Pivoting, Verifying};
        let Some(view) = self.around.hub.get(operation.id) else {
            return true;
        };
        // What is shown of an earlier round stays until the next one has begun.
        let under_way = awaited_merges(operation);
        let mut merges = under_way.iter().filter_map(|id| view.merges.get(id));
        let passed = merges.any(|merge| matches!(merge.seen.phase, Pivoting | Verifying | Merged));
        !passed && operation.may_turn_back()
    }

    fn told(&self, operation: &Operation, kind: EventKind, text: String, by: &str) -> NewEvent {
        NewEvent {
            actor: Some(by.to_owned()),
            ..about(operation, kind, text, self.around.clock.now())
        }
    }
}

/// Whether the operation is a delete that has not ended.
fn merges(operation: &Operation) -> Result<(), Problem> {
    let (reason, text) = match operation.work {
        _ if operation.state.ended() => (
            Reason::ConcurrentChange,
            format!("operation {} has ended", operation.id),
        ),
        Work::Create(_) => (
            Reason::StrategyUnsupported,
            "the taking of a snapshot merges nothing: delete it afterwards".to_owned(),
        ),
        Work::Delete(_) => return Ok(()),
    };
    Err(Problem::new(reason, text).with("operation", operation.id))
}

fn undeleted(snapshot: Snapshot) -> Snapshot {
    let state = if snapshot.was_incomplete {
        SnapshotState::Incomplete
    } else {
        SnapshotState::Ready
    };
    Snapshot { state, ..snapshot }
}

fn no_operation(id: OperationId) -> Problem {
    let text = format!("there is no operation {id}");
    Problem::new(Reason::OperationNotFound, text).with("operation", id)
}
