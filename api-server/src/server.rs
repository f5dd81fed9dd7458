//! Puts the server together: store, hosts, snapshots, services.

use crate::access;
use crate::config::Config;
use crate::consistency::Consistency;
use crate::console;
use crate::domains::Domains;
use crate::grpc::{EventApi, InventoryApi, OperationApi, SnapshotApi};
use crate::hosts::{Dial, Hosts};
use crate::metrics;
use crate::opening::{LateServices, Opening};
use crate::snapshot::{Discovery, HostRecord, Snapshots};
use crate::store::Store;
use anyhow::Context as _;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::v1::event_service_server::EventServiceServer;
use livemerge_proto::v1::inventory_service_server::InventoryServiceServer;
use livemerge_proto::v1::operation_service_server::OperationServiceServer;
use livemerge_proto::v1::snapshot_service_server::SnapshotServiceServer;
use livemerge_runtime::{Clock, Metrics, Security, Server, Shutdown, bounded};
use std::sync::Arc;

/// Calls that go on until their client, their subject or the server ends them.
const STREAMS: [&str; 2] = [
    "/livemerge.v1.OperationService/WatchOperation",
    "/livemerge.v1.EventService/WatchEvents",
];
/// Calls that are answered when something has happened.
const WAITS: [&str; 1] = ["/livemerge.v1.OperationService/WaitOperation"];

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
    tracing::info!(generation, "the server has read its record");
    Ok(Services {
        running: Arc::clone(&snapshots),
        hosts: Arc::clone(&hosts),
        clock: Arc::clone(&clock),
        snapshots: bounded!(
            SnapshotServiceServer::new(SnapshotApi {
                snapshots: Arc::clone(&snapshots),
                store: Arc::clone(&store),
            }),
            &config.server
        ),
        operations: bounded!(
            OperationServiceServer::new(OperationApi {
                snapshots,
                store: Arc::clone(&store),
                shutdown: shutdown.clone(),
            }),
            &config.server
        ),
        inventory: bounded!(
            InventoryServiceServer::new(InventoryApi {
                domains: Arc::new(Domains::new(
                    Arc::clone(&hosts),
                    Arc::clone(&store),
                    Arc::clone(&clock),
                )),
                hosts,
                store: Arc::clone(&store),
                clock,
                consistency: Arc::new(consistency),
            }),
            &config.server
        ),
        events: bounded!(
            EventServiceServer::new(EventApi { store, shutdown }),
            &config.server
        ),
    })
}

/// Serves until told to stop. Operations go on with the next start. A database that cannot be opened
/// yet is tried until it can: until then nothing is ready.
///
/// # Errors
/// When the server cannot start, or breaks.
pub async fn run(config: &Config, insecure: bool) -> anyhow::Result<()> {
    let metrics = Metrics::new(env!("CARGO_PKG_NAME"));
    let security = Security::open(&config.tls, config.auth.as_ref(), access::rules())?;
    let names = config.agents.names(&security);
    let server = Server::new(config.server.clone())
        .metered(&metrics)
        .secured(security);
    server.end_with_signals()?;
    let shutdown = server.shutdown();
    let opening = Opening {
        config,
        dial: crate::hosts::dial(config.client.open(insecure)?, names),
        metrics: metrics.clone(),
        readiness: server.readiness(),
        shutdown: shutdown.clone(),
        services: LateServices::default(),
    };
    let at_once = shutdown.run_until_cancelled(opening.once()).await;
    let Some(at_once) = at_once.transpose()? else {
        tracing::info!("asked to end before the database was open");
        return Ok(());
    };
    config.metrics.serve(insecure, &metrics, &shutdown).await?;
    let reach = config.reach(insecure);
    let listener = config.listen.bind(reach).await?;
    let web = config.web.bind(&config.listen, reach).await?;
    let console = config.console.bind(console::page, &config.listen, reach);
    let console = console.await?;
    if let Some(console) = &console {
        tracing::info!(address = %console.address()?, "the console is served");
    }
    tracing::info!(address = %listener.address()?, "the server serves");
    let server = server
        .descriptors(DESCRIPTORS)
        .streams(STREAMS)
        .waits(WAITS)
        .web(web)
        .web(console);
    let server = opening.services.added_to(server);
    let (drain, stopping) = (config.server.drain(), shutdown);
    let drained = tokio::spawn(async move {
        stopping.cancelled().await;
        tokio::time::sleep(drain).await;
    });
    let served = async {
        let served = server.serve(listener).await;
        // Nobody waits for a database any more, also when serving has failed.
        opening.shutdown.cancel();
        served
    };
    let (opened, served) = tokio::join!(opening.after(at_once), served);
    let opened = opened?;
    served?;
    let Some(operations_stopped) = opened else {
        return Ok(());
    };
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
        // Its agent registers itself. At another address it would seem to be a second one.
        if known.as_ref().is_some_and(|known| known.generation > 0) {
            tracing::warn!(host = %id, "registers itself: its configured endpoint is not used");
            continue;
        }
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
