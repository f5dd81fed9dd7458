//! Puts the agent together: hypervisor, storage, merges, services.

use crate::access;
use crate::config::Config;
use crate::domains::{self, Domain};
use crate::freeze::Freezes;
use crate::growth;
use crate::grpc::{HostApi, MergeApi, VolumeApi};
use crate::hypervisor::Hypervisor;
use crate::machines;
use crate::merge::{Fence, Merges, next_own_generation};
use crate::metrics::{self, VolumeMeter};
use crate::reaper;
use crate::registration::{self, Registration};
use crate::slack::{self, Slack};
use crate::tenure::Tenure;
use crate::volumes::Volumes;
use anyhow::Context as _;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::v1::host_service_server::HostServiceServer;
use livemerge_proto::v1::merge_service_server::MergeServiceServer;
use livemerge_proto::v1::volume_service_server::VolumeServiceServer;
use livemerge_runtime::metrics::ClientMeter;
use livemerge_runtime::{
    Clock, ListenAddress, Metrics, Readiness, Security, Server, Shutdown, SystemClock, bounded,
};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Calls that go on until their client or the agent ends them.
pub const STREAMS: [&str; 2] = [
    "/livemerge.v1.MergeService/WatchMerges",
    "/livemerge.v1.HostService/WatchHost",
];

/// The longest time that a stop waits for pivots and freezes to be over.
const STOP: Duration = Duration::from_secs(10);

/// The services of one agent.
pub struct Agent {
    /// Merges.
    pub merges: MergeServiceServer<MergeApi>,
    /// The host and its machines.
    pub host: HostServiceServer<HostApi>,
    /// The volumes.
    pub volumes: VolumeServiceServer<VolumeApi>,
    /// This start of the agent.
    pub generation: u64,
    /// How long it is its host's agent.
    pub tenure: Tenure,
    running: Arc<Merges>,
    stored: Arc<Volumes>,
    hypervisor: Arc<dyn Hypervisor>,
    freezes: Arc<Freezes>,
    /// Held as long as the agent runs: its directory has one owner.
    _owner: File,
}

impl Agent {
    /// Counts there what happens from now on.
    pub fn observe(&self, metrics: &Metrics) {
        let hypervisor = Arc::clone(&self.hypervisor);
        metrics::observe(metrics, &self.running, move || hypervisor.connected());
        self.stored.observe(VolumeMeter::new(metrics));
    }

    /// What to wait for at the end, so that no guest stands still, or is frozen, without its agent.
    pub fn guests_run(&self) -> impl Future<Output = ()> + use<> {
        let (running, freezes) = (Arc::clone(&self.running), Arc::clone(&self.freezes));
        async move {
            tokio::join!(running.stopped(), freezes.stopped());
        }
    }
}

/// Thaws what was left frozen, opens the journal, goes on with open merges, and gives the services.
///
/// # Errors
/// When the journal cannot be opened or the configuration is wrong.
pub async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    hypervisor: Arc<dyn Hypervisor>,
    domains: Vec<Domain>,
    shutdown: Shutdown,
) -> anyhow::Result<Agent> {
    let state_dir = &config.host.state_dir;
    let volumes = Volumes::new(domains, Arc::clone(&hypervisor));
    let volumes = Arc::new(volumes.noting(&state_dir.join("removals")));
    let in_dir = || format!("the agent's directory {}", state_dir.display());
    std::fs::create_dir_all(state_dir).with_context(in_dir)?;
    let owner = own(state_dir).with_context(in_dir)?;
    let generation = next_own_generation(state_dir).with_context(in_dir)?;
    // Before anything else: guests that an earlier process has left frozen.
    let freezes = Freezes::open(
        &state_dir.join("frozen"),
        Arc::clone(&hypervisor),
        config.freeze.policy()?,
        shutdown.clone(),
    )
    .with_context(in_dir)?;
    let fence = Arc::new(Fence::open(state_dir).with_context(in_dir)?);
    let tenure = Tenure::new(Arc::clone(&fence), &shutdown);
    let work = tenure.work();
    let merges = Merges::open(
        &state_dir.join("merges"),
        Arc::clone(&hypervisor),
        Arc::clone(&volumes),
        Arc::clone(&fence),
        Arc::clone(&clock),
        config.merge.policy()?,
        work.clone(),
    )
    .await
    .with_context(in_dir)?;
    reaper::start(&volumes, &clock, work, reaper::EVERY);
    tokio::spawn(growth::keep(
        Arc::clone(&hypervisor),
        Arc::clone(&volumes) as Arc<dyn growth::Room>,
        config.growth_margin(),
        work.clone(),
    ));
    let slack = Slack {
        merges: Arc::clone(&merges),
        hypervisor: Arc::clone(&hypervisor),
        volumes: Arc::clone(&volumes),
    };
    tokio::spawn(slack::keep(slack, work.clone()));
    let overlays = merges.overlays().freezing(Arc::clone(&freezes));
    let volume_merges = Arc::clone(&merges);
    Ok(Agent {
        running: Arc::clone(&merges),
        stored: Arc::clone(&volumes),
        hypervisor: Arc::clone(&hypervisor),
        freezes: Arc::clone(&freezes),
        _owner: owner,
        merges: bounded!(
            MergeServiceServer::new(MergeApi {
                merges: Arc::clone(&merges),
                hypervisor: Arc::clone(&hypervisor),
                volumes: Arc::clone(&volumes),
                clock: Arc::clone(&clock),
                shutdown: shutdown.clone(),
            }),
            &config.server
        ),
        host: bounded!(
            HostServiceServer::new(HostApi {
                host: config.host.id()?,
                generation,
                inventory: machines::watch(Arc::clone(&hypervisor)),
                merges,
                overlays: Arc::new(overlays),
                stuck: freezes.stuck(),
                hypervisor,
                volumes: Arc::clone(&volumes),
                fence: Arc::clone(&fence),
                clock,
                shutdown,
            }),
            &config.server
        ),
        volumes: bounded!(
            VolumeServiceServer::new(VolumeApi {
                volumes,
                merges: volume_merges,
                fence,
            }),
            &config.server
        ),
        generation,
        tenure,
    })
}

/// Takes the directory for this process.
fn own(state_dir: &Path) -> anyhow::Result<File> {
    let lock = File::create(state_dir.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => anyhow::bail!("another agent has it"),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Serves until told to stop. Merges that run go on in QEMU, and with the agent's next start.
///
/// # Errors
/// When the agent cannot start, or its server breaks.
pub async fn run(
    config: &Config,
    hypervisor: Arc<dyn Hypervisor>,
    insecure: bool,
) -> anyhow::Result<()> {
    let metrics = Metrics::new(env!("CARGO_PKG_NAME"));
    let security = Security::open(&config.tls, config.auth.as_ref(), access::rules())?;
    let server = Server::new(config.server.clone())
        .metered(&metrics)
        .secured(security);
    server.end_with_signals()?;
    let (shutdown, readiness) = (server.shutdown(), server.readiness());
    // As late as their storage answers.
    let domains = shutdown.run_until_cancelled(domains::open(config)).await;
    let Some(domains) = domains.transpose()? else {
        tracing::info!("asked to end before all storage domains were open");
        return Ok(());
    };
    let clock = Arc::new(SystemClock);
    let agent = open(
        config,
        clock,
        Arc::clone(&hypervisor),
        domains,
        shutdown.clone(),
    )
    .await?;
    agent.observe(&metrics);
    config.metrics.serve(insecure, &metrics, &shutdown).await?;
    let listener = config.listen.bind(config.reach(insecure)).await?;
    let address = listener.address()?;
    tracing::info!(host = config.host.id, generation = agent.generation, %address, "the agent serves");
    let tenure = agent.tenure.clone();
    tokio::spawn(follow_readiness(
        hypervisor,
        readiness,
        tenure,
        shutdown.clone(),
    ));
    let calls = ClientMeter::default();
    calls.publish(&metrics);
    register(config, insecure, &address, &agent, &calls, shutdown)?;
    let guests_run = agent.guests_run();
    let server = server
        .descriptors(DESCRIPTORS)
        .streams(STREAMS)
        .service(agent.merges)
        .service(agent.host)
        .service(agent.volumes);
    server.serve(listener).await?;
    if tokio::time::timeout(STOP, guests_run).await.is_err() {
        tracing::warn!(
            "a guest still stands still, for its pivot or frozen; the next start goes on with it"
        );
    }
    Ok(())
}

fn register(
    config: &Config,
    insecure: bool,
    address: &ListenAddress,
    agent: &Agent,
    calls: &ClientMeter,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let Some(server) = config.host.server()? else {
        return Ok(());
    };
    let line = config
        .client
        .open(insecure)?
        .line(server, registration::bounds);
    let line = line.map_err(|error| anyhow::anyhow!("host.api_server: {error}"))?;
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    let endpoint = match (config.host.advertise.as_str(), address) {
        ("", ListenAddress::Tcp(address)) => format!("{scheme}://{address}"),
        ("", ListenAddress::Unix(path)) => format!("unix:{}", path.display()),
        (advertised, _) => advertised.to_owned(),
    };
    let registration = Registration {
        host: config.host.id()?,
        endpoint,
        generation: agent.generation,
    };
    tokio::spawn(registration::keep(
        registration,
        line,
        calls.clone(),
        agent.tenure.clone(),
        shutdown,
    ));
    Ok(())
}

/// Ready means that the hypervisor answers, and that this is still the host's agent.
async fn follow_readiness(
    hypervisor: Arc<dyn Hypervisor>,
    readiness: Readiness,
    tenure: Tenure,
    shutdown: Shutdown,
) {
    let mut events = hypervisor.events();
    while !shutdown.is_cancelled() {
        readiness.set_all(hypervisor.connected() && !tenure.is_over());
        let pause = Duration::from_secs(1);
        let _heard_or_not = tokio::time::timeout(pause, events.recv()).await;
    }
}

#[cfg(test)]
mod tests;
