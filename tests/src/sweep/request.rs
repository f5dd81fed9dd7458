//! What is asked for in a case, and what came of it.

use anyhow::Result;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use tonic::{Code, Status};
use uuid::Uuid;

use super::scenario::Also;
use crate::api::Api;

/// What one request asks for.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// A snapshot of this name.
    Take(&'static str),
    /// The deletion of snapshots.
    Delete {
        /// Their names and ids.
        snapshots: Vec<(&'static str, String)>,
        /// By the call for several.
        batch: bool,
        /// Which way.
        options: v1::MergeOptions,
    },
}

/// A request and what came of it.
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) request: Uuid,
    pub(super) answer: Result<v1::Operation, Reason>,
}

impl Wish {
    /// The snapshots that it is about.
    pub(super) fn names(&self) -> Vec<&'static str> {
        match self {
            Self::Take(name) => vec![name],
            Self::Delete { snapshots, .. } => snapshots.iter().map(|(name, _)| *name).collect(),
        }
    }

    /// The same, of those snapshots that are left; `None` when there is none.
    pub(super) fn of_the_left(&self, listed: &[v1::Snapshot]) -> Option<Self> {
        let mut wish = self.clone();
        if let Self::Delete { snapshots, .. } = &mut wish {
            snapshots.retain(|(_, id)| listed.iter().any(|snapshot| snapshot.id == *id));
            if snapshots.is_empty() {
                return None;
            }
        }
        Some(wish)
    }

    /// Sends it once.
    pub(super) async fn send(
        &self,
        api: &mut Api,
        vm: Uuid,
        request: Uuid,
    ) -> Result<v1::Operation, Status> {
        let (request_id, vm_id) = (request.to_string(), vm.to_string());
        let operation = match self {
            Self::Take(name) => {
                let request = v1::CreateSnapshotRequest {
                    request_id,
                    vm_id,
                    name: (*name).to_owned(),
                    ..Default::default()
                };
                let answer = api.snapshots.create_snapshot(request).await?;
                answer.into_inner().operation
            }
            Self::Delete {
                snapshots,
                batch: true,
                options,
            } => {
                let request = v1::BatchDeleteSnapshotsRequest {
                    request_id,
                    vm_id,
                    snapshot_ids: snapshots.iter().map(|(_, id)| id.clone()).collect(),
                    allow_missing: false,
                    options: Some(*options),
                };
                let answer = api.snapshots.batch_delete_snapshots(request).await?;
                answer.into_inner().operation
            }
            Self::Delete {
                snapshots, options, ..
            } => {
                let request = v1::DeleteSnapshotRequest {
                    request_id,
                    snapshot_id: snapshots[0].1.clone(),
                    options: Some(*options),
                    ..Default::default()
                };
                let answer = api.snapshots.delete_snapshot(request).await?;
                answer.into_inner().operation
            }
        };
        operation.ok_or_else(|| Status::internal("an answer without an operation"))
    }
}

impl Also {
    /// Sends it once, for an operation.
    pub(super) async fn send(self, api: &mut Api, operation: &v1::Operation) -> Result<(), Status> {
        match self {
            Self::Nothing => Ok(()),
            Self::Cancel => api.cancel(operation).await.map(drop),
            Self::Limit(speed) => api.limit(operation, speed).await.map(drop),
        }
    }
}

impl Asked {
    pub(super) fn succeeded(&self) -> bool {
        self.state() == Some(v1::OperationState::Succeeded)
    }

    pub(super) fn cancelled(&self) -> bool {
        self.state() == Some(v1::OperationState::Cancelled)
    }

    /// What it was refused for, or has failed for.
    pub(super) fn reason(&self) -> Option<Reason> {
        match &self.answer {
            Err(reason) => Some(*reason),
            Ok(operation) => operation.failure.as_ref()?.reason.parse().ok(),
        }
    }

    fn state(&self) -> Option<v1::OperationState> {
        self.answer.as_ref().ok().map(v1::Operation::state)
    }

    pub(super) fn outcome(&self) -> String {
        match &self.answer {
            Err(reason) => format!("refused {reason}"),
            Ok(_) if self.succeeded() => "succeeded".to_owned(),
            Ok(_) if self.cancelled() => "cancelled".to_owned(),
            Ok(operation) => {
                let failure = operation.failure.clone().unwrap_or_default();
                format!("failed {}", failure.reason)
            }
        }
    }
}

/// The reason of a *no*; `None` when asking again may help.
pub(super) fn no(status: Status) -> Option<Reason> {
    let reason = Problem::try_from(status).ok()?.reason;
    let passing = matches!(reason.code(), Code::Unavailable | Code::DeadlineExceeded);
    (!passing && reason != Reason::VmStateUnknown).then_some(reason)
}
