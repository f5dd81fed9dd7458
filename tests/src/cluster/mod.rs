//! Both services in one process, over in-memory channels, with a scripted hypervisor.
//!
//! ```text
//!   test ─▶ Api ─┐
//!                ▼             Network (duplex streams by name)
//!        [API server's runtime] ◀──────────▶ [agent's runtime] ─▶ FakeHypervisor, FakeVolumes
//!           SQLite in a directory               journal in a directory     └── FakeImages
//! ```
//!
//! Each service has a runtime of its own: to crash it, its runtime is dropped with all its tasks,
//! wherever they are. What it had made durable is in the directory, as after a kill. A test may
//! stand between the services and what they work with ([`Between`]).

mod between;
mod clock;
mod line;
mod network;
mod service;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_api_server::server;
use livemerge_api_server::store::{SqliteStore, Store, StoreError};
use livemerge_host_agent::agent;
use livemerge_host_agent::domains::Domain;
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_runtime::{Metrics, RequestLayer};
use livemerge_storage::Locator;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use uuid::Uuid;

use crate::api::Api;
use between::Nothing;
pub use between::{Between, Upset, Who};
pub use clock::SetClock;
use line::LineLayer;
pub use network::Network;
pub use service::Service;
pub use volumes::FakeVolumes;

const API: &str = Who::Server.address();
const AGENT: &str = Who::Agent.address();
/// Far more than a busy machine takes.
const LIMIT: Duration = Duration::from_secs(180);

/// What a test sets otherwise than the configuration does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// After this time a copy that falls behind is helped; `None` for the default.
    pub stalled_after: Option<Duration>,
    /// A guest that is held back may write so many MiB a second at least; `None` for the default.
    pub least_guest_mib: Option<u64>,
    /// So many deletes merge at once on the host; 0 for no limit.
    pub max_per_host: u32,
    /// The same, of a storage domain.
    pub max_per_storage: u32,
    /// So many bytes a second all jobs of the host copy, and all of a storage domain; 0 for no limit.
    pub total_bytes_per_second: u32,
    /// The guest runs on while it is switched.
    pub pivots_running: bool,
}

impl Settings {
    /// The server's limits.
    fn of_merges(&self) -> String {
        let (host, storage) = (self.max_per_host, self.max_per_storage);
        let total = self.total_bytes_per_second;
        format!(
            "[merge]\nmax_per_host = {host}\nmax_per_storage = {storage}\n\
             host_bytes_per_second = {total}\nstorage_bytes_per_second = {total}\n"
        )
    }
}

/// Both services, and the world that they work on.
pub struct Cluster {
    /// Calls to the API server.
    pub api: Api,
    /// The host's machines.
    pub hypervisor: FakeHypervisor,
    /// The host's storage.
    pub volumes: FakeVolumes,
    /// The lines between them.
    pub network: Network,
    /// The API server.
    pub server: Service,
    /// The agent.
    pub agent: Service,
    /// What the server that runs has counted.
    pub server_metrics: Metrics,
    /// What the agent that runs has counted.
    pub agent_metrics: Metrics,
    server_clock: SetClock,
    agent_clock: SetClock,
    between: Arc<dyn Between>,
    /// Whether the server looks for layers that others have frozen. Its looks would take the faults
    /// that a test plans for other calls.
    discovers: bool,
    /// What else the server is configured with, instead of those settings.
    server_settings: String,
    settings: Settings,
    /// Begins the drain of the server that runs.
    drain: CancellationToken,
    dir: TempDir,
}

impl Cluster {
    /// Starts both services. Jobs take a step each `pace`, or go by the test's word.
    pub async fn start(pace: Pace) -> Result<Self> {
        Self::start_behind(pace, Arc::new(Nothing)).await
    }

    /// The same, with something between the services and their surroundings.
    pub async fn start_behind(pace: Pace, between: Arc<dyn Between>) -> Result<Self> {
        Self::start_with(pace, between, Settings::default()).await
    }

    /// The same, with settings of its own.
    pub async fn start_with(
        pace: Pace,
        between: Arc<dyn Between>,
        settings: Settings,
    ) -> Result<Self> {
        let images = FakeImages::default();
        let network = Network::default();
        let service = |who| Service::new(who, network.clone(), Arc::clone(&between));
        let mut cluster = Self {
            api: Api::over(network.channel(API).map_err(anyhow::Error::msg)?),
            volumes: FakeVolumes::behind(images.clone(), Arc::clone(&between)),
            hypervisor: FakeHypervisor::new(images, pace),
            server: service(Who::Server),
            agent: service(Who::Agent),
            network,
            server_metrics: Metrics::default(),
            agent_metrics: Metrics::default(),
            server_clock: SetClock::default(),
            agent_clock: SetClock::default(),
            between,
            discovers: false,
            server_settings: String::new(),
            settings,
            drain: CancellationToken::new(),
            dir: TempDir::new()?,
        };
        cluster.start_server().await?;
        cluster.start_agent().await?;
        Ok(cluster)
    }

    /// From now on the server looks for layers that others have frozen.
    pub async fn discover(&mut self) -> Result<()> {
        self.crash_server();
        self.discovers = true;
        self.start_server().await
    }

    /// It looks no more.
    pub async fn stop_discovering(&mut self) -> Result<()> {
        self.crash_server();
        self.discovers = false;
        self.start_server().await
    }

    /// The server starts again with these settings in addition.
    pub async fn configure(&mut self, settings: &str) -> Result<()> {
        self.crash_server();
        settings.clone_into(&mut self.server_settings);
        self.start_server().await
    }

    /// Starts the API server.
    pub async fn start_server(&mut self) -> Result<()> {
        let dial = self.network.dial();
        let database = self.dir.path().join("api-server.db");
        let line = self.line(Who::Server);
        let discovery = u32::from(self.discovers);
        let merge = match &*self.server_settings {
            "" => self.settings.of_merges(),
            other => other.to_owned(),
        };
        let between = Arc::clone(&self.between);
        let clock = Arc::new(self.server_clock.clone());
        let shutdown = CancellationToken::new();
        self.drain = shutdown.clone();
        let metrics = Metrics::new("livemerge-api-server");
        self.server_metrics = metrics.clone();
        let start = |incoming| async move {
            let config = format!(
                "[heartbeat]\ninterval_ms = 50\nsilence_ms = 1000\n[discovery]\ninterval_s = {discovery}\n{merge}"
            );
            let config = toml::from_str(&config)?;
            let store: Arc<dyn Store> = Arc::new(open_store(&database).await?);
            let store = between.store(store);
            let services = server::open(&config, clock, store, dial, shutdown).await?;
            services.observe(&metrics);
            let serve = Server::builder()
                .layer(RequestLayer)
                .layer(line)
                .add_service(services.snapshots)
                .add_service(services.operations)
                .add_service(services.inventory)
                .add_service(services.events)
                .serve_with_incoming(incoming);
            tokio::spawn(serve);
            Ok(())
        };
        self.server.start(start).await
    }

    /// The clock of a service's machine.
    pub fn clock(&self, of: Who) -> &SetClock {
        match of {
            Who::Server => &self.server_clock,
            Who::Agent => &self.agent_clock,
        }
    }

    /// Tells the API server to stop, as SIGTERM does: its watches end.
    pub fn drain_server(&self) {
        self.drain.cancel();
    }

    /// The record of a server that does not run, to change it behind its back.
    pub async fn record(&self) -> Result<SqliteStore> {
        open_store(&self.dir.path().join("api-server.db")).await
    }

    /// Starts the agent and registers it.
    pub async fn start_agent(&mut self) -> Result<()> {
        let state_dir = self.dir.path().join("agent");
        let line = self.line(Who::Agent);
        let hypervisor = self.between.hypervisor(self.hypervisor.clone());
        let clock = Arc::new(self.agent_clock.clone());
        let domains = vec![Domain::plain(Arc::new(self.volumes.clone()))];
        let mut merge = "[merge]\n".to_owned();
        if let Some(time) = self.settings.stalled_after {
            merge += &format!("stalled_after_ms = {}\n", time.as_millis());
        }
        if let Some(least) = self.settings.least_guest_mib {
            merge += &format!("least_guest_mib = {least}\n");
        }
        if self.settings.pivots_running {
            merge += "pivot = \"running\"\n";
        }
        let metrics = Metrics::new("livemerge-host-agent");
        self.agent_metrics = metrics.clone();
        let start = |incoming| async move {
            let text = format!("[host]\nid = \"host-1\"\nstate_dir = {state_dir:?}\n{merge}");
            let config = toml::from_str(&text)?;
            let agent = agent::open(
                &config,
                clock,
                hypervisor,
                domains,
                CancellationToken::new(),
            )
            .await?;
            agent.observe(&metrics);
            let serve = Server::builder()
                .layer(RequestLayer)
                .layer(line)
                .add_service(agent.merges)
                .add_service(agent.host)
                .add_service(agent.volumes)
                .serve_with_incoming(incoming);
            tokio::spawn(serve);
            Ok(agent.generation)
        };
        let generation = self.agent.start(start).await?;
        self.register(generation).await
    }

    fn line(&self, to: Who) -> LineLayer {
        let service = match to {
            Who::Server => &self.server,
            Who::Agent => &self.agent,
        };
        LineLayer {
            to,
            service: service.clone(),
            between: Arc::clone(&self.between),
        }
    }

    async fn register(&mut self, generation: u64) -> Result<()> {
        let request = v1::RegisterHostRequest {
            request_id: Uuid::new_v4().to_string(),
            host_id: "host-1".to_owned(),
            endpoint: AGENT.to_owned(),
            generation: i64::try_from(generation)?,
            version: "test".to_owned(),
        };
        if self.server.runs() {
            self.api.inventory.register_host(request).await?;
        }
        Ok(())
    }

    /// Ends the API server wherever it is.
    pub fn crash_server(&mut self) {
        self.server.crash();
    }

    /// Ends the agent wherever it is. The hypervisor goes on.
    pub fn crash_agent(&mut self) {
        self.agent.crash();
    }

    /// Defines a running machine with one base volume for each disk, and waits until the server
    /// sees it.
    pub async fn add_vm(&mut self, name: &str, targets: &[&str]) -> Result<Uuid> {
        let vm = Uuid::new_v4();
        let bases: Vec<[Locator; 1]> = targets
            .iter()
            .map(|target| [self.volumes.add_base(&format!("{name}-{target}.qcow2"))])
            .collect();
        let disks: Vec<(&str, &[Locator])> = targets
            .iter()
            .zip(&bases)
            .map(|(target, base)| (*target, base.as_slice()))
            .collect();
        self.hypervisor.add_vm(VmId::from(vm), name, &disks);
        self.api.wait_for_vm(vm, LIMIT).await?;
        Ok(vm)
    }

    /// The agent's address, for calls of its own services.
    pub fn agent_channel(&self) -> Result<tonic::transport::Channel> {
        self.network.channel(AGENT).map_err(anyhow::Error::msg)
    }

    /// A second connection to the API server.
    pub fn inventory(&self) -> Result<InventoryServiceClient<tonic::transport::Channel>> {
        Ok(InventoryServiceClient::new(
            self.network.channel(API).map_err(anyhow::Error::msg)?,
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash_server();
        self.crash_agent();
        self.network.close();
    }
}

/// The store of a crashed server may be closing still.
async fn open_store(database: &Path) -> Result<SqliteStore> {
    let open = async {
        loop {
            match SqliteStore::open(database).await {
                Err(StoreError::Unavailable(_)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other => return other,
            }
        }
    };
    let opened = tokio::time::timeout(LIMIT, open)
        .await
        .context("the database stays locked")?;
    Ok(opened?)
}
