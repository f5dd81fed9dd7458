//! A record whose writes go wrong as planned.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use livemerge_api_server::snapshot::{Event, HostRecord, NewEvent, Operation, Snapshot, VmRecord};
use livemerge_api_server::store::{
    Accepted, Change, EventFilter, LogEnd, OperationFilter, Page, RequestRecord, SnapshotChange,
    Store, StoreError, VmFilter,
};
use livemerge_proto::ids::{HostId, OperationId, SnapshotId, VmId};
use livemerge_storage::VolumeRef;
use tokio::sync::watch;
use tonic::async_trait;

use super::backstage::upset;
use super::fault::Site;
use super::stage::Stage;
use crate::cluster::Upset;

type Answer<T> = Result<T, StoreError>;

/// The server's store behind a stage.
pub struct Record {
    real: Arc<dyn Store>,
    stage: Arc<Stage>,
}

impl Record {
    /// Before the real one.
    pub fn new(real: Arc<dyn Store>, stage: Arc<Stage>) -> Self {
        Self { real, stage }
    }

    async fn asked<T>(
        &self,
        site: Site,
        work: impl Future<Output = Answer<T>> + Send,
    ) -> Answer<T> {
        let planned = || Box::from("as the test has planned");
        match upset(&self.stage, site) {
            None => {
                let done = work.await;
                self.look().await;
                done
            }
            Some(Upset::Answers(_)) => Err(StoreError::Conflict("as planned".to_owned())),
            Some(Upset::Refused | Upset::Unreached) => Err(StoreError::Unavailable(planned())),
            Some(Upset::Lost | Upset::Late) => {
                let done = work.await;
                self.look().await;
                done.and(Err(StoreError::Unknown(planned())))
            }
        }
    }

    /// Shows the stage what the record says now, before anybody acts on it.
    async fn look(&self) {
        let page = Page {
            after: None,
            limit: 1000,
        };
        if let Ok(now) = self.real.snapshots(None, &page).await {
            self.stage.recorded(now);
        }
    }
}

#[async_trait]
impl Store for Record {
    async fn repeated(&self, request: &RequestRecord) -> Answer<Option<Operation>> {
        let work = self.real.repeated(request);
        self.asked("store::repeated", work).await
    }

    async fn accept(&self, request: &RequestRecord, change: &Change) -> Answer<Accepted> {
        let work = self.real.accept(request, change);
        self.asked("store::accept", work).await
    }

    async fn apply(&self, change: &Change) -> Answer<Operation> {
        self.asked("store::apply", self.real.apply(change)).await
    }

    async fn next_generation(&self) -> Answer<u64> {
        self.real.next_generation().await
    }

    async fn put_host(&self, host: &HostRecord, event: Option<&NewEvent>) -> Answer<()> {
        self.real.put_host(host, event).await
    }

    async fn hosts(&self) -> Answer<Vec<HostRecord>> {
        self.real.hosts().await
    }

    async fn set_maintenance(
        &self,
        host: &HostId,
        maintenance: bool,
        event: &NewEvent,
    ) -> Answer<()> {
        self.real.set_maintenance(host, maintenance, event).await
    }

    async fn maintenance(&self) -> Answer<BTreeSet<HostId>> {
        self.real.maintenance().await
    }

    async fn put_vms(&self, vms: &[VmRecord]) -> Answer<()> {
        self.asked("store::put_vms", self.real.put_vms(vms)).await
    }

    async fn vm(&self, id: VmId) -> Answer<Option<VmRecord>> {
        self.real.vm(id).await
    }

    async fn vms(&self, filter: &VmFilter, page: &Page<VmId>) -> Answer<Vec<VmRecord>> {
        self.real.vms(filter, page).await
    }

    async fn snapshot(&self, id: SnapshotId) -> Answer<Option<Snapshot>> {
        self.real.snapshot(id).await
    }

    async fn snapshots(&self, vm: Option<VmId>, page: &Page<SnapshotId>) -> Answer<Vec<Snapshot>> {
        self.real.snapshots(vm, page).await
    }

    async fn snapshots_that_need(&self, volume: &VolumeRef) -> Answer<Vec<Snapshot>> {
        self.real.snapshots_that_need(volume).await
    }

    async fn operation(&self, id: OperationId) -> Answer<Option<Operation>> {
        self.real.operation(id).await
    }

    async fn operations(
        &self,
        filter: &OperationFilter,
        page: &Page<OperationId>,
    ) -> Answer<Vec<Operation>> {
        self.real.operations(filter, page).await
    }

    async fn open_operations(&self) -> Answer<Vec<Operation>> {
        self.real.open_operations().await
    }

    async fn events(&self, filter: &EventFilter, page: &Page<u64>) -> Answer<Vec<Event>> {
        self.real.events(filter, page).await
    }

    async fn add_events(&self, events: &[NewEvent]) -> Answer<()> {
        self.real.add_events(events).await
    }

    async fn log_end(&self) -> Answer<LogEnd> {
        self.real.log_end().await
    }

    fn log_grows(&self) -> watch::Receiver<()> {
        self.real.log_grows()
    }

    async fn put_snapshots(&self, snapshots: &[SnapshotChange], events: &[NewEvent]) -> Answer<()> {
        self.real.put_snapshots(snapshots, events).await
    }

    async fn prune_requests(&self, before: Timestamp) -> Answer<u64> {
        self.real.prune_requests(before).await
    }
}
