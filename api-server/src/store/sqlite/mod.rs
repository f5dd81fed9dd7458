//! [`Store`] on SQLite: one file, WAL, `synchronous=FULL`.
//!
//! One connection writes, so that changes come one after the other, those of operations that are asked
//! for at the same time in one transaction ([`together`]); a few read beside it. A second
//! server on the same file is refused by a lock on a file beside it, held as long as the store
//! lives. A file that was moved away or replaced is no longer written.
//!
//! There is no store in memory: readers and writer would each have their own.

mod backup;
mod open;
mod read;
mod recent;
mod statement;
mod together;
mod write;
mod writer;

use super::{
    Accepted, Change, EventFilter, LogEnd, OperationFilter, Page, RequestRecord, SnapshotChange,
    Store, StoreError, VmFilter,
};
use crate::snapshot::{Event, HostRecord, NewEvent, Operation, Snapshot, VmRecord};
use async_trait::async_trait;
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, OperationId, SnapshotId, VmId};
use livemerge_storage::VolumeRef;
use recent::Recent;
use sqlx::sqlite::SqlitePool;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use together::Together;
use tokio::sync::watch;
use writer::Writer;

/// The record in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    together: Together,
    readers: SqlitePool,
    recent: Recent,
    _lock: File,
}

impl SqliteStore {
    /// Opens the file, makes it if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: another server has it, it is newer than this program, or the
    /// file or its directory cannot be used.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        open::open(path).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn next_generation(&self) -> Result<u64, StoreError> {
        write::next_generation(&self.writer).await
    }

    async fn put_host(
        &self,
        host: &HostRecord,
        event: Option<&NewEvent>,
    ) -> Result<(), StoreError> {
        write::put_host(&self.writer, host, event).await
    }

    async fn hosts(&self) -> Result<Vec<HostRecord>, StoreError> {
        read::hosts(&self.readers).await
    }

    async fn set_maintenance(
        &self,
        host: &HostId,
        maintenance: bool,
        event: &NewEvent,
    ) -> Result<(), StoreError> {
        write::set_maintenance(&self.writer, host, maintenance, event).await
    }

    async fn maintenance(&self) -> Result<BTreeSet<HostId>, StoreError> {
        read::maintenance(&self.readers).await
    }

    async fn put_vms(&self, vms: &[VmRecord]) -> Result<(), StoreError> {
        write::put_vms(&self.writer, vms).await
    }

    async fn vm(&self, id: VmId) -> Result<Option<VmRecord>, StoreError> {
        read::vm(&self.readers, id).await
    }

    async fn vms(&self, filter: &VmFilter, page: &Page<VmId>) -> Result<Vec<VmRecord>, StoreError> {
        read::vms(&self.readers, filter, page).await
    }

    async fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
        let Some(changes) = self.writer.changes() else {
            return read::snapshot(&self.readers, id).await;
        };
        if let Some(kept) = self.recent.snapshot(id, changes) {
            return Ok(Some(kept));
        }
        let found = read::snapshot(&self.readers, id).await?;
        if let Some(found) = &found {
            self.recent.keep(found, changes);
        }
        Ok(found)
    }

    async fn snapshots(
        &self,
        vm: Option<VmId>,
        page: &Page<SnapshotId>,
    ) -> Result<Vec<Snapshot>, StoreError> {
        read::snapshots(&self.readers, vm, page).await
    }

    async fn snapshots_that_need(&self, volume: &VolumeRef) -> Result<Vec<Snapshot>, StoreError> {
        read::snapshots_that_need(&self.readers, volume).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(open::unavailable)?;
        read::operation(&mut reader, id).await
    }

    async fn operations(
        &self,
        filter: &OperationFilter,
        page: &Page<OperationId>,
    ) -> Result<Vec<Operation>, StoreError> {
        read::operations(&self.readers, filter, page).await
    }

    async fn open_operations(&self) -> Result<Vec<Operation>, StoreError> {
        read::open_operations(&self.readers).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        page: &Page<u64>,
    ) -> Result<Vec<Event>, StoreError> {
        read::events(&self.readers, filter, page).await
    }

    async fn add_events(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        write::add_events(&self.writer, events).await
    }

    async fn log_end(&self) -> Result<LogEnd, StoreError> {
        read::log_end(&self.readers).await
    }

    fn log_grows(&self) -> watch::Receiver<()> {
        self.writer.log_grows()
    }

    async fn repeated(&self, request: &RequestRecord) -> Result<Option<Operation>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(open::unavailable)?;
        read::repeated(&mut reader, request).await
    }

    async fn accept(
        &self,
        request: &RequestRecord,
        change: &Change,
    ) -> Result<Accepted, StoreError> {
        let change = self.together.make(&self.writer, Some(request), change);
        change.await
    }

    async fn apply(&self, change: &Change) -> Result<Operation, StoreError> {
        match self.together.make(&self.writer, None, change).await? {
            Accepted::New(operation) | Accepted::Repeated(operation) => Ok(operation),
        }
    }

    async fn put_snapshots(
        &self,
        snapshots: &[SnapshotChange],
        events: &[NewEvent],
    ) -> Result<(), StoreError> {
        write::put_snapshots(&self.writer, snapshots, events).await
    }

    async fn prune_requests(&self, before: Timestamp) -> Result<u64, StoreError> {
        write::prune_requests(&self.writer, before).await
    }
}
