//! The API server's process with a record that was filled beforehand, and its host, which is scripted:
//! what the benchmarks of calls work on.
//!
//! ```text
//!   this process: clients, the host's agent ◀──loopback──▶ livemerge-api-server ─▶ SQLite
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use livemerge_api_server::snapshot::{Consistency, Origin, Snapshot, SnapshotDisk, SnapshotState};
use livemerge_api_server::store::{SnapshotChange, SqliteStore, Store as _};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::{SnapshotId, VmId};
use livemerge_runtime::{Clock as _, SystemClock};
use livemerge_storage::VolumeRef;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::LIMIT;
use crate::api::Api;
use crate::scripted::{Machines, ScriptedHost};
use crate::services::{RECORD, Reach, Service};

/// Bounds under which one client may hold as many calls as are measured.
const BOUNDS: &str = "[server]\nmax_watches = 8192\nmax_concurrent_calls = 4096\n\
                      [discovery]\ninterval_s = 0\n[log]\nfilter = 'warn'\n";

/// Both, on a file system that keeps what is synchronised.
pub(super) struct Served {
    /// The process.
    pub(super) server: Service,
    /// Of each machine one, that can be deleted.
    pub(super) snapshots: Vec<SnapshotId>,
    _host: ScriptedHost,
    _dir: TempDir,
}

impl Served {
    /// With so many machines, each with one snapshot. Jobs never move.
    pub(super) async fn start(machines: usize) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lb")
            .tempdir_in("/var/tmp")?;
        let host = Machines::new(Pace::Manual);
        let mut snapshots = Vec::with_capacity(machines);
        for number in 0..machines {
            let vm = VmId::from(Uuid::now_v7());
            let layers = [format!("vm-{number}.qcow2"), format!("vm-{number}.1.qcow2")];
            host.add(vm, &format!("vm-{number}"), &layers);
            snapshots.push(snapshot(vm, &layers[0])?);
        }
        let mut server = Service::api_server(dir.path(), Reach::Loopback, BOUNDS)?;
        fill(&dir.path().join(RECORD).join("api-server.db"), &snapshots).await?;
        let agent = ScriptedHost::start(dir.path(), &host).await?;
        server.start()?;
        let mut api = Api::at(&server.endpoint())?;
        agent.register(&mut api, agent.endpoint()).await?;
        if let Some(last) = snapshots.last() {
            api.wait_for_vm(last.vm.into(), LIMIT).await?;
        }
        Ok(Self {
            server,
            snapshots: snapshots.iter().map(|snapshot| snapshot.id).collect(),
            _host: agent,
            _dir: dir,
        })
    }

    /// So many connections to the server.
    pub(super) async fn connections(&self, count: usize) -> Result<Vec<Api>> {
        connections(&self.server.endpoint(), count).await
    }

    /// What of the server's process is in memory, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let pid = self.server.pid().context("the server does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|kib| kib.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse::<u64>()? << 10)
    }
}

/// So many connections, each of its own.
pub(super) async fn connections(endpoint: &str, count: usize) -> Result<Vec<Api>> {
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
        made.push(Api::over(endpoint.connect().await?));
    }
    Ok(made)
}

/// A call a client, over and over until `calls` of them were made by all clients together. Returns how
/// many there were a second.
pub(super) async fn rate<F>(
    clients: Vec<Api>,
    calls: usize,
    call: impl Fn(Api, usize) -> F + Clone + Send + 'static,
) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for client in clients {
        let (next, call) = (Arc::clone(&next), call.clone());
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return anyhow::Ok(());
                }
                call(client.clone(), number).await?;
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(calls as f64 / begun.elapsed().as_secs_f64())
}

/// Of a machine whose base holds it.
fn snapshot(vm: VmId, base: &str) -> Result<Snapshot> {
    Ok(Snapshot {
        id: SnapshotId::from(Uuid::now_v7()),
        vm,
        name: "before-upgrade".parse()?,
        description: "taken before the packages are upgraded".to_owned(),
        origin: Origin::Requested,
        labels: BTreeMap::from([("team".to_owned(), "storage".to_owned())]),
        deletion_protected: false,
        consistency: Consistency::Crash,
        state: SnapshotState::Ready,
        was_incomplete: false,
        disks: vec![SnapshotDisk {
            disk: "vda".parse()?,
            volume: VolumeRef {
                storage: "default".parse()?,
                name: base.parse()?,
            },
            merging: None,
        }],
        created_at: SystemClock.now(),
        revision: 0,
    })
}

/// Writes a record for a server that is not started yet.
async fn fill(database: &Path, snapshots: &[Snapshot]) -> Result<()> {
    let store = SqliteStore::open(database).await?;
    let all: Vec<_> = snapshots.iter().cloned().map(SnapshotChange::Put).collect();
    store.put_snapshots(&all, &[]).await?;
    drop(store);
    // Its connections close behind it, and the server finds the file its own.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}
