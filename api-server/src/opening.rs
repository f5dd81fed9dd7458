//! Opens the record, and the services on it, however late the database comes.
//!
//! ```text
//!   start ─▶ once ──it opens──▶ services, ready as long as the database answers
//!              │ it does not
//!              ▼
//!       serving, NOT_SERVING: every call is UNAVAILABLE / STORE_UNAVAILABLE ──it opens──▶ as above
//! ```
//!
//! A server that is asked to end waits for neither. A change of the schema that is under way is left undone
//! then: each is one transaction.

use crate::config::Config;
use crate::grpc::{EventApi, InventoryApi, OperationApi, SnapshotApi};
use crate::hosts::Dial;
use crate::server::{self, Services};
use crate::store::{SqliteStore, Store};
use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::event_service_server::EventServiceServer;
use livemerge_proto::v1::inventory_service_server::InventoryServiceServer;
use livemerge_proto::v1::operation_service_server::OperationServiceServer;
use livemerge_proto::v1::snapshot_service_server::SnapshotServiceServer;
use livemerge_runtime::{
    Backoff, Clock as _, Late, Metrics, Readiness, Server, Shutdown, SystemClock, Tries,
};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
/// How long a request's id is remembered.
const REMEMBER_REQUESTS: SignedDuration = SignedDuration::from_hours(48);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// The public services, before and after the record is open.
pub(crate) struct LateServices {
    snapshots: Late<SnapshotServiceServer<SnapshotApi>>,
    operations: Late<OperationServiceServer<OperationApi>>,
    inventory: Late<InventoryServiceServer<InventoryApi>>,
    events: Late<EventServiceServer<EventApi>>,
}

impl Default for LateServices {
    fn default() -> Self {
        let text = "the server has not opened its database yet";
        let absent: Status = Problem::new(Reason::StoreUnavailable, text).into();
        Self {
            snapshots: Late::new(absent.clone()),
            operations: Late::new(absent.clone()),
            inventory: Late::new(absent.clone()),
            events: Late::new(absent),
        }
    }
}

impl LateServices {
    /// A server of them.
    pub(crate) fn added_to(&self, server: Server) -> Server {
        server
            .service(self.snapshots.clone())
            .service(self.operations.clone())
            .service(self.inventory.clone())
            .service(self.events.clone())
    }

    fn arrived(&self, services: Services) {
        self.snapshots.arrived(services.snapshots);
        self.operations.arrived(services.operations);
        self.inventory.arrived(services.inventory);
        self.events.arrived(services.events);
    }
}

/// Ready when every operation stands between two steps, at the end.
pub(crate) type Stopped = BoxFuture<'static, ()>;

/// What a server needs to open its record.
pub(crate) struct Opening<'a> {
    pub(crate) config: &'a Config,
    pub(crate) dial: Dial,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) services: LateServices,
}

impl Opening<'_> {
    /// Opens it; `None` when the database cannot be opened yet.
    ///
    /// # Errors
    /// When the database is not this server's or cannot be used, or the configuration is wrong.
    pub(crate) async fn once(&self) -> anyhow::Result<Option<Stopped>> {
        let path = &self.config.store.path;
        let store: Arc<dyn Store> = match SqliteStore::open(path).await {
            Ok(store) => Arc::new(store),
            Err(error) if error.may_pass() => {
                let error = &error as &dyn Error;
                tracing::error!(error, path = %path.display(), "the database cannot be opened yet");
                return Ok(None);
            }
            Err(error) => {
                let database = || format!("the database {}", path.display());
                return Err(error).with_context(database);
            }
        };
        let services = server::open(
            self.config,
            Arc::new(SystemClock),
            Arc::clone(&store),
            Arc::clone(&self.dial),
            self.shutdown.clone(),
        )
        .await?;
        services.observe(&self.metrics);
        let stopped = services.operations_stopped().boxed();
        self.services.arrived(services);
        let (readiness, shutdown) = (self.readiness.clone(), self.shutdown.clone());
        tokio::spawn(follow_readiness(Arc::clone(&store), readiness, shutdown));
        tokio::spawn(prune(store, self.shutdown.clone()));
        Ok(Some(stopped))
    }

    /// Goes on until it is open, or the server stops. What cannot be mended so stops the server.
    ///
    /// # Errors
    /// As [`once`](Self::once).
    pub(crate) async fn after(&self, at_once: Option<Stopped>) -> anyhow::Result<Option<Stopped>> {
        let mut tries = Tries::new(BACKOFF, &self.config.store.path);
        let mut opened = Ok(at_once);
        while let Ok(None) = opened {
            let pause = tokio::time::sleep(tries.failed());
            if self.shutdown.run_until_cancelled(pause).await.is_none() {
                break;
            }
            let once = self.shutdown.run_until_cancelled(self.once()).await;
            opened = once.unwrap_or(Ok(None));
        }
        if opened.is_err() {
            self.shutdown.cancel();
        }
        opened
    }
}

/// Ready means that the database answers, and takes changes: an empty one is tried.
async fn follow_readiness(store: Arc<dyn Store>, readiness: Readiness, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let ready = store.hosts().await.is_ok() && store.add_events(&[]).await.is_ok();
        readiness.set_all(ready);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn prune(store: Arc<dyn Store>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let before = SystemClock
            .now()
            .saturating_sub(REMEMBER_REQUESTS)
            .expect("hours are no calendar unit");
        if let Err(error) = store.prune_requests(before).await {
            tracing::warn!(
                error = &error as &dyn Error,
                "old request ids could not be forgotten"
            );
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}
