//! A host whose hypervisor is scripted, behind an agent that serves as the real one does: on a port of
//! loopback, in this process. For tests and benchmarks of the API server's process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use livemerge_host_agent::domains::Domain;
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_host_agent::{agent, config::Config};
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_runtime::{ListenAddress, Reach, Server, SystemClock};
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use crate::api::Api;
use crate::cluster::FakeVolumes;

const HOST: &str = "host-1";
const DISK: &str = "vda";

/// Machines of one disk each, before an agent serves them.
#[derive(Clone)]
pub struct Machines {
    /// The host's machines.
    pub hypervisor: FakeHypervisor,
    /// The host's storage.
    pub volumes: FakeVolumes,
}

impl Machines {
    /// None yet. Their jobs move at this pace.
    pub fn new(pace: Pace) -> Self {
        let images = FakeImages::default();
        Self {
            volumes: FakeVolumes::new(images.clone()),
            hypervisor: FakeHypervisor::new(images, pace),
        }
    }

    /// A running machine whose disk has these layers, base first.
    pub fn add(&self, vm: VmId, name: &str, layers: &[String]) {
        let mut chain = Vec::with_capacity(layers.len());
        for layer in layers {
            chain.push(match chain.last() {
                None => self.volumes.add_base(layer),
                Some(below) => self.volumes.add_overlay(layer, below),
            });
        }
        self.hypervisor.add_vm(vm, name, &[(DISK, &chain)]);
    }
}

/// An agent that serves. Dropped, it stops.
pub struct ScriptedHost {
    endpoint: String,
    generation: u64,
    _stop: DropGuard,
}

impl ScriptedHost {
    /// Serves these machines, with the agent's journal in a directory.
    pub async fn start(dir: &Path, machines: &Machines) -> Result<Self> {
        let text = format!(
            "[listen]\naddress = '127.0.0.1:0'\n[host]\nid = '{HOST}'\nstate_dir = {:?}\n",
            dir.join("agent")
        );
        let config: Config = toml::from_str(&text)?;
        let server = Server::new(config.server.clone());
        let readiness = server.readiness();
        let domains = vec![Domain::plain(Arc::new(machines.volumes.clone()))];
        let agent = agent::open(
            &config,
            Arc::new(SystemClock),
            Arc::new(machines.hypervisor.clone()),
            domains,
            server.shutdown(),
        )
        .await?;
        let stop = server.shutdown().drop_guard();
        let listener = config.listen.bind(Reach::Near).await?;
        let ListenAddress::Tcp(address) = listener.address()? else {
            anyhow::bail!("it listens on a socket");
        };
        let generation = agent.generation;
        let server = server
            .streams(agent::STREAMS)
            .service(agent.merges)
            .service(agent.host)
            .service(agent.volumes);
        readiness.set_all(true);
        tokio::spawn(server.serve(listener));
        Ok(Self {
            endpoint: format!("http://{address}"),
            generation,
            _stop: stop,
        })
    }

    /// Where its agent is called.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Tells a server where the host's agent is called.
    pub async fn register(&self, api: &mut Api, endpoint: &str) -> Result<()> {
        let request = v1::RegisterHostRequest {
            request_id: Uuid::new_v4().to_string(),
            host_id: HOST.to_owned(),
            endpoint: endpoint.to_owned(),
            generation: i64::try_from(self.generation)?,
            version: "test".to_owned(),
        };
        api.inventory.register_host(request).await?;
        Ok(())
    }
}
