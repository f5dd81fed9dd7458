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
//! wherever they are. What it had made durable is in the directory, as after a kill.

mod network;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_api_server::server;
use livemerge_api_server::store::{SqliteStore, Store, StoreError};
use livemerge_host_agent::agent;
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_storage::{LiveVolumes, Locator};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use uuid::Uuid;

use crate::api::Api;
use network::Network;
pub use volumes::FakeVolumes;

const API: &str = "http://api";
const AGENT: &str = "http://agent";
const LIMIT: Duration = Duration::from_secs(20);

/// Both services, and the world that they work on.
pub struct Cluster {
    /// Calls to the API server.
    pub api: Api,
    /// The host's machines.
    pub hypervisor: FakeHypervisor,
    /// The host's storage.
    pub volumes: FakeVolumes,
    network: Network,
    server: Option<Runtime>,
    agent: Option<Runtime>,
    dir: TempDir,
}

impl Cluster {
    /// Starts both services. Jobs take a step each `pace`, or go by the test's word.
    pub async fn start(pace: Pace) -> Result<Self> {
        let images = FakeImages::default();
        let network = Network::default();
        let mut cluster = Self {
            api: Api::over((network.dial())(API).map_err(anyhow::Error::msg)?),
            volumes: FakeVolumes::new(images.clone()),
            hypervisor: FakeHypervisor::new(images, pace),
            network,
            server: None,
            agent: None,
            dir: TempDir::new()?,
        };
        cluster.start_server().await?;
        cluster.start_agent().await?;
        Ok(cluster)
    }

    /// Starts the API server.
    pub async fn start_server(&mut self) -> Result<()> {
        let (dial, incoming) = (self.network.dial(), self.network.listen(API));
        let database = self.dir.path().join("api-server.db");
        let (runtime, ()) = on_its_own_runtime(move || async move {
            let config = toml::from_str("[heartbeat]\ninterval_ms = 50\nsilence_ms = 1000\n")?;
            let store: Arc<dyn Store> = Arc::new(open_store(&database).await?);
            let shutdown = CancellationToken::new();
            let services = server::open(&config, store, dial, shutdown).await?;
            let serve = Server::builder()
                .add_service(services.snapshots)
                .add_service(services.operations)
                .add_service(services.inventory)
                .add_service(services.events)
                .serve_with_incoming(incoming);
            tokio::spawn(serve);
            Ok(())
        })
        .await?;
        self.server = Some(runtime);
        Ok(())
    }

    /// Starts the agent and registers it.
    pub async fn start_agent(&mut self) -> Result<()> {
        let incoming = self.network.listen(AGENT);
        let state_dir = self.dir.path().join("agent");
        let hypervisor = Arc::new(self.hypervisor.clone());
        let stores: Vec<Arc<dyn LiveVolumes>> = vec![Arc::new(self.volumes.clone())];
        let (runtime, generation) = on_its_own_runtime(move || async move {
            let text = format!("[host]\nid = \"host-1\"\nstate_dir = {state_dir:?}\n");
            let config = toml::from_str(&text)?;
            let agent = agent::open(&config, hypervisor, stores, CancellationToken::new()).await?;
            let serve = Server::builder()
                .add_service(agent.merges)
                .add_service(agent.host)
                .add_service(agent.volumes)
                .serve_with_incoming(incoming);
            tokio::spawn(serve);
            Ok(agent.generation)
        })
        .await?;
        self.agent = Some(runtime);
        self.register(generation).await
    }

    async fn register(&mut self, generation: u64) -> Result<()> {
        let request = v1::RegisterHostRequest {
            request_id: Uuid::new_v4().to_string(),
            host_id: "host-1".to_owned(),
            endpoint: AGENT.to_owned(),
            generation: i64::try_from(generation)?,
            version: "test".to_owned(),
        };
        if self.server.is_some() {
            self.api.inventory.register_host(request).await?;
        }
        Ok(())
    }

    /// Ends the API server wherever it is.
    pub fn crash_server(&mut self) {
        self.network.cut(API);
        if let Some(runtime) = self.server.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends the agent wherever it is. The hypervisor goes on.
    pub fn crash_agent(&mut self) {
        self.network.cut(AGENT);
        if let Some(runtime) = self.agent.take() {
            runtime.shutdown_background();
        }
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
        (self.network.dial())(AGENT).map_err(anyhow::Error::msg)
    }

    /// A second connection to the API server.
    pub fn inventory(&self) -> Result<InventoryServiceClient<tonic::transport::Channel>> {
        Ok(InventoryServiceClient::new(
            (self.network.dial())(API).map_err(anyhow::Error::msg)?,
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash_server();
        self.crash_agent();
    }
}

/// Runs the start of a service on a new runtime, which then owns all that it has spawned.
async fn on_its_own_runtime<T, F>(
    start: impl FnOnce() -> F + Send + 'static,
) -> Result<(Runtime, T)>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (runtime, started) = tokio::task::spawn_blocking(move || {
        let started = runtime.block_on(start());
        (runtime, started)
    })
    .await?;
    Ok((runtime, started?))
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
