//! The durable record: hosts, machines, snapshots, operations, the audit log.
//!
//! ```text
//!   snapshot, hosts, grpc ──▶ trait Store ──▶ sqlite (WAL, synchronous=FULL, migrations)
//! ```
//!
//! Contract: what a call returned `Ok` for is on disk, whole. A call that failed has changed
//! nothing, or (only for [`StoreError::Unknown`]) may have changed everything it was asked to;
//! repeating it is safe, because every change names the revision that it builds on.
//!
//! A stored record that cannot be understood fails the calls that would return it, by its name,
//! and no others: nothing is left out of a list silently. Each adapter passes the `conformance`
//! suite.

#[cfg(feature = "conformance")]
pub mod conformance;
mod sqlite;

pub use sqlite::SqliteStore;

use crate::snapshot::{
    Event, EventKind, HostRecord, NewEvent, Operation, Severity, Snapshot, VmRecord,
};
use async_trait::async_trait;
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, OperationId, RequestId, SnapshotId, VmId};
use livemerge_storage::VolumeRef;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use tokio::sync::watch;

/// What the API server remembers.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Counts a start of the server and gives its generation, 1 or more, never given before.
    async fn next_generation(&self) -> Result<u64, StoreError>;

    /// Writes a host down, or replaces what was written. Refused as [`StoreError::Stale`] when a
    /// newer generation is known.
    async fn put_host(&self, host: &HostRecord, event: Option<&NewEvent>)
    -> Result<(), StoreError>;
    /// All hosts, by id.
    async fn hosts(&self) -> Result<Vec<HostRecord>, StoreError>;

    /// Notes that a host is in maintenance, or is no longer, with an entry of the audit log, in one
    /// transaction. Done already is done.
    async fn set_maintenance(
        &self,
        host: &HostId,
        maintenance: bool,
        event: &NewEvent,
    ) -> Result<(), StoreError>;
    /// The hosts in maintenance.
    async fn maintenance(&self) -> Result<BTreeSet<HostId>, StoreError>;

    /// Notes that these machines were seen on a host. Other machines of that host stay as noted.
    async fn put_vms(&self, vms: &[VmRecord]) -> Result<(), StoreError>;
    /// One machine.
    async fn vm(&self, id: VmId) -> Result<Option<VmRecord>, StoreError>;
    /// Machines by id, after `page.after`.
    async fn vms(&self, filter: &VmFilter, page: &Page<VmId>) -> Result<Vec<VmRecord>, StoreError>;

    /// One snapshot.
    async fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>, StoreError>;
    /// Snapshots by id (oldest first), after `page.after`; of one machine or of all.
    async fn snapshots(
        &self,
        vm: Option<VmId>,
        page: &Page<SnapshotId>,
    ) -> Result<Vec<Snapshot>, StoreError>;

    /// The snapshots of all machines whose data are in a volume, or are being merged into it.
    async fn snapshots_that_need(&self, volume: &VolumeRef) -> Result<Vec<Snapshot>, StoreError>;

    /// One operation.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError>;
    /// Operations, newest first, before `page.after`.
    async fn operations(
        &self,
        filter: &OperationFilter,
        page: &Page<OperationId>,
    ) -> Result<Vec<Operation>, StoreError>;
    /// Operations that have not ended, in the order in which they were accepted, whatever their ids.
    async fn open_operations(&self) -> Result<Vec<Operation>, StoreError>;

    /// Audit log, in the order that is wanted, after `page.after` in that.
    async fn events(
        &self,
        filter: &EventFilter,
        page: &Page<u64>,
    ) -> Result<Vec<Event>, StoreError>;
    /// Adds entries to the audit log that belong to no other change.
    async fn add_events(&self, events: &[NewEvent]) -> Result<(), StoreError>;
    /// Which audit log this is, and where it ends: whatever is added from now on stands behind.
    async fn log_end(&self) -> Result<LogEnd, StoreError>;
    /// Changes after entries may have been added to the audit log. A sign only: it may come for
    /// nothing, and not at all if the writer went away, so the log is read now and then without.
    fn log_grows(&self) -> watch::Receiver<()>;

    /// The operation that an earlier request of this id got, if its payload was the same.
    /// [`StoreError::RequestIdReused`] if it was another.
    async fn repeated(&self, request: &RequestRecord) -> Result<Option<Operation>, StoreError>;

    /// Accepts a request: notes its id, and makes the change, in one transaction. A request that
    /// was accepted before changes nothing and returns the operation as it stands now.
    async fn accept(
        &self,
        request: &RequestRecord,
        change: &Change,
    ) -> Result<Accepted, StoreError>;

    /// Makes a change in one transaction. Returns the operation with its new revision.
    async fn apply(&self, change: &Change) -> Result<Operation, StoreError>;

    /// Changes snapshots outside of any operation, with entries of the audit log, in one
    /// transaction: all or none. The `revision` of one that is put is the one that it was read with;
    /// any other in the store, and a snapshot that is gone, is a [`StoreError::Conflict`].
    async fn put_snapshots(
        &self,
        snapshots: &[SnapshotChange],
        events: &[NewEvent],
    ) -> Result<(), StoreError>;

    /// Forgets the ids of requests that were accepted before, of operations that have ended.
    /// Returns how many.
    async fn prune_requests(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// What must become durable together.
#[derive(Debug, Clone)]
pub struct Change {
    /// The operation as it shall be. Its `revision` is the one that it was read with, 0 for a new
    /// one; any other in the store is a [`StoreError::Conflict`].
    pub operation: Operation,
    /// Snapshots as they shall be (insert with revision 0, else compare and replace), or gone.
    pub snapshots: Vec<SnapshotChange>,
    /// Entries of the audit log.
    pub events: Vec<NewEvent>,
}

/// What becomes of one snapshot.
#[derive(Debug, Clone)]
pub enum SnapshotChange {
    /// Written as given, if its revision is still the stored one (0: not stored yet).
    Put(Snapshot),
    /// Deleted; no error when it is gone already.
    Delete(SnapshotId),
}

/// A mutating request, for telling a repetition from a reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The id that the client chose.
    pub id: RequestId,
    /// Method and payload, hashed.
    pub fingerprint: String,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// It is new and now durable.
    New(Operation),
    /// It had been accepted before; this is its operation now.
    Repeated(Operation),
}

/// A piece of a list.
#[derive(Debug, Clone)]
pub struct Page<K> {
    /// Begin behind this key.
    pub after: Option<K>,
    /// At most so many.
    pub limit: usize,
}

/// Which machines to list.
#[derive(Debug, Clone, Default)]
pub struct VmFilter {
    /// Only on this host.
    pub host: Option<HostId>,
    /// Only of this name.
    pub name: Option<String>,
}

/// Which operations to list.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Only of this machine.
    pub vm: Option<VmId>,
    /// Only in these states; empty for all.
    pub states: Vec<StateName>,
}

/// The states of an operation without their data, for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // as in OperationState
pub enum StateName {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// Which entries of the audit log to list, and in which order.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only about this machine.
    pub vm: Option<VmId>,
    /// Only of this operation.
    pub operation: Option<OperationId>,
    /// Only those that matter at least so much.
    pub least: Option<Severity>,
    /// Only of these kinds; empty for all.
    pub kinds: Vec<EventKind>,
    /// The newest first, instead of the oldest.
    pub newest_first: bool,
}

/// The end of an audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The log's own number. Another database has another one; a copy has the same.
    pub log: u64,
    /// The newest entry's revision; 0 while there is none.
    pub revision: u64,
}

/// Why the record could not be read or written, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record changed since it was read: read again and decide again.
    #[error("{0} changed meanwhile")]
    Conflict(String),
    /// The machine has a snapshot of this name.
    #[error("the name is taken")]
    NameTaken,
    /// The request id was used with another payload.
    #[error("the request id was used with another payload")]
    RequestIdReused,
    /// A newer generation is known.
    #[error("generation {known} is known, {given} is older")]
    Stale {
        /// What was given.
        given: u64,
        /// What is known.
        known: u64,
    },
    /// Nothing was written; try again.
    #[error("the database cannot be used")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be told whether it was written; look again.
    #[error("the database does not say whether it was written")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored cannot be understood, and which row it is: a fault of ours, or of somebody's
    /// hand.
    #[error("a stored record cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether a database that does not open for this may be there later, without anybody's help: a
    /// file system that is not mounted yet, a server that does not listen yet. One that another
    /// server has, or a newer one has written, is not.
    pub fn may_pass(&self) -> bool {
        let StoreError::Unavailable(source) = self else {
            return false;
        };
        let error = match source.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::Io(error)) => Some(error),
            Some(_) => None,
            None => source.downcast_ref::<io::Error>(),
        };
        let helpless = [ErrorKind::ResourceBusy, ErrorKind::Unsupported];
        error.is_some_and(|error| !helpless.contains(&error.kind()))
    }
}
