//! The records of the audit log.

use jiff::Timestamp;
use livemerge_proto::ids::{HostId, OperationId, SnapshotId, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happened, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each is explained in event_service.proto
pub enum EventKind {
    HostRegistered,
    HostUp,
    HostUnresponsive,
    HostJournalDamaged,
    GuestStillFrozen,
    GuestThawed,
    HostMaintenanceChanged,
    SnapshotCreateRequested,
    SnapshotCreated,
    SnapshotCreateFailed,
    SnapshotDeleteRequested,
    SnapshotDeleted,
    SnapshotDeleteFailed,
    SnapshotDiscovered,
    SnapshotVanished,
    SnapshotUpdated,
    LiveMergePlanned,
    LiveMergeStarted,
    LiveMergeCompleted,
    LiveMergeFailed,
    LiveMergeCancelled,
    LiveMergeLimitLifted,
    LiveMergeGuestThrottled,
    LiveMergeOverlaid,
    OperationCancelRequested,
    OperationCancelled,
    OperationLimited,
    LiveMergeReady,
    LiveMergePivoting,
    LiveMergePivotPutOff,
    VolumeRemoved,
    VolumeRemovalRefused,
    OperationResumed,
    OperationWaiting,
    OperationRecovered,
    RepairRequested,
    RepairApplied,
    VolumeRestoreRequested,
    VolumeRestored,
}

/// How much an event matters, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody should act.
    Error,
}

/// An entry of the audit log that is to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// What happened.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// When.
    pub occurred_at: Timestamp,
    /// The host it is about.
    pub host: Option<HostId>,
    /// The machine it is about.
    pub vm: Option<VmId>,
    /// The snapshot it is about.
    pub snapshot: Option<SnapshotId>,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
    /// Who asked.
    pub actor: Option<String>,
    /// Text for people.
    pub message: String,
    /// The text's dynamic values.
    pub details: BTreeMap<String, String>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows with each entry.
    pub revision: u64,
    /// What was written.
    pub entry: NewEvent,
}
