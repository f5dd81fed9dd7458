//! Puts the server together: store, hosts, snapshots, services.

use crate::access;
use crate::config::Config;
use crate::consistency::Consistency;
use crate::domains::Domains;
use crate::grpc::{EventApi, InventoryApi, OperationApi, SnapshotApi};
use crate::hosts::{Dial, Hosts};
use crate::metrics;
use crate::snapshot::{Discovery, HostRecord, Snapshots};
use crate::store::{SqliteStore, Store};
use anyhow::Context as _;
use jiff::SignedDuration;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::v1::event_service_server::EventServiceServer;
use livemerge_proto::v1::inventory_service_server::InventoryServiceServer;
use livemerge_proto::v1::operation_service_server::OperationServiceServer;
use livemerge_proto::v1::snapshot_service_server::SnapshotServiceServer;
use livemerge_runtime::{Clock, Metrics, Readiness, Security, Server, Shutdown, SystemClock};
use std::sync::Arc;
use std::time::Duration;

/// Calls that go on until their client, their subject or the server ends them.
const STREAMS: [&str; 2] = [
    "/livemerge.v1.OperationService/WatchOperation",
    "/livemerge.v1.EventService/WatchEvents",
];
/// Calls that are answered when something has happened.
const WAITS: [&str; 1] = ["/livemerge.v1.OperationService/WaitOperation"];
/// How long a request's id is remembered.
const REMEMBER_REQUESTS: SignedDuration = SignedDuration::from_hours(48);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// The services of one API server.
pub struct Services {
    /// Snapshots.
    pub snapshots: SnapshotServiceServer<SnapshotApi>,
    /// Operations.
    pub operations: OperationServiceServer<OperationApi>,
    /// Hosts, machines, chains.
    pub inventory: InventoryServiceServer<InventoryApi>,
    /// The audit log.
    pub events: EventServiceServer<EventApi>,
    running: Arc<Snapshots>,
    hosts: Arc<Hosts>,
    clock: Arc<dyn Clock>,
}

impl Services {
    /// Counts there what happens from now on.
    pub fn observe(&self, metrics: &Metrics) {
        self.hosts.calls().publish(metrics);
        metrics::observe(metrics, &self.running, &self.hosts, Arc::clone(&self.clock));
    }

    /// What to wait for at the end, so that every operation stands between two steps.
    pub fn operations_stopped(&self) -> impl Future<Output = ()> + use<> {
        let running = Arc::clone(&self.running);
        async move { running.stopped().await }
    }
}

/// Opens the links to the hosts, goes on with open operations, and gives the services.
///
/// # Errors
/// When the store cannot be used or the configuration is wrong.
pub async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    dial: Dial,
    shutdown: Shutdown,
) -> anyhow::Result<Services> {
    let generation = store.next_generation().await?;
    let policy = config.heartbeat.policy()?;
    let hosts = Hosts::open(
        Arc::clone(&store),
        Arc::clone(&clock),
        dial,
        policy,
        generation,
        shutdown.clone(),
    )
    .await?;
    register_configured(config, &hosts).await?;
    let snapshots = Snapshots::open(
        Arc::clone(&store),
        Arc::clone(&hosts),
        Arc::clone(&clock),
        config.merge.limits(),
        shutdown.clone(),
    )
    .await?;
    if let Some(every) = config.discovery.every() {
        let discovery = Discovery::new(Arc::clone(&snapshots), every);
        let until = shutdown.clone();
        tokio::spawn(until.run_until_cancelled_owned(discovery.keep()));
    }
    let consistency = Consistency::new(
        Arc::clone(&store),
        Arc::clone(&hosts),
        Arc::clone(&snapshots),
        Arc::clone(&clock),
    );
    let limit = config.server.max_message_bytes();
    tracing::info!(generation, "the server has read its record");
    Ok(Services {
        running: Arc::clone(&snapshots),
        hosts: Arc::clone(&hosts),
        clock: Arc::clone(&clock),
        snapshots: SnapshotServiceServer::new(SnapshotApi {
            snapshots: Arc::clone(&snapshots),
            store: Arc::clone(&store),
        })
        .max_decoding_message_size(limit),
        operations: OperationServiceServer::new(OperationApi {
            snapshots,
            store: Arc::clone(&store),
            shutdown: shutdown.clone(),
        })
        .max_decoding_message_size(limit),
        inventory: InventoryServiceServer::new(InventoryApi {
            domains: Arc::new(Domains::new(
                Arc::clone(&hosts),
                Arc::clone(&store),
                Arc::clone(&clock),
            )),
            hosts,
            store: Arc::clone(&store),
            clock,
            consistency: Arc::new(consistency),
        })
        .max_decoding_message_size(limit),
        events: EventServiceServer::new(EventApi { store, shutdown })
            .max_decoding_message_size(limit),
    })
}

/// Serves until told to stop. Operations go on with the next start.
///
/// # Errors
/// When the server cannot start, or breaks.
pub async fn run(config: &Config, insecure: bool) -> anyhow::Result<()> {
    let path = &config.store.path;
    let store = SqliteStore::open(path).await;
    let store: Arc<dyn Store> =
        Arc::new(store.with_context(|| format!("the database {}", path.display()))?);
    let metrics = Metrics::new(env!("CARGO_PKG_NAME"));
    let security = Security::open(&config.tls, config.auth.as_ref(), access::rules())?;
    let server = Server::new(config.server.clone())
        .metered(&metrics)
        .secured(security);
    let (shutdown, readiness) = (server.shutdown(), server.readiness());
    let services = open(
        config,
        Arc::new(SystemClock),
        Arc::clone(&store),
        crate::hosts::dial(config.client.open(insecure)?),
        shutdown.clone(),
    )
    .await?;
    services.observe(&metrics);
    config.metrics.serve(insecure, &metrics, &shutdown).await?;
    let listener = config.listen.bind(config.reach(insecure)).await?;
    tracing::info!(address = %listener.address()?, "the server serves");
    tokio::spawn(follow_readiness(
        Arc::clone(&store),
        readiness,
        shutdown.clone(),
    ));
    tokio::spawn(prune(store, shutdown));
    let (operations_stopped, stopping) = (services.operations_stopped(), server.shutdown());
    let server = server
        .descriptors(DESCRIPTORS)
        .streams(STREAMS)
        .waits(WAITS)
        .service(services.snapshots)
        .service(services.operations)
        .service(services.inventory)
        .service(services.events);
    let drain = config.server.drain();
    let drained = tokio::spawn(async move {
        stopping.cancelled().await;
        tokio::time::sleep(drain).await;
    });
    server.serve(listener).await?;
    tokio::select! {
        () = operations_stopped => {}
        _ = drained => {
            tracing::warn!("an operation is still within a step; the next start goes on with it");
        }
    }
    Ok(())
}

async fn register_configured(config: &Config, hosts: &Arc<Hosts>) -> anyhow::Result<()> {
    for (id, host) in &config.hosts {
        let known = hosts.get(id).map(|(record, _)| record);
        let record = HostRecord {
            id: id.clone(),
            endpoint: host.endpoint.clone(),
            generation: known.as_ref().map_or(0, |known| known.generation),
            version: known.map(|known| known.version).unwrap_or_default(),
        };
        hosts
            .register(record, None)
            .await
            .with_context(|| format!("hosts.{id}"))?;
    }
    Ok(())
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
                error = &error as &dyn std::error::Error,
                "old request ids could not be forgotten"
            );
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}
