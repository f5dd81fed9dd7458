//! Hosts: which there are, what their agents last said, and how they are asked.
//!
//! ```text
//!   RegisterHost, configuration ─▶ Hosts ─▶ one link a host ─▶ WatchHost, WatchMerges
//!                                    │            └─▶ HostView (UP / UNRESPONSIVE, machines, merges)
//!   lanes, grpc ─────────────────────┴─▶ HostAgent (calls)
//! ```
//!
//! What a silent host has is *unknown*: its machines and merges leave the view with its voice.

mod agent;
mod answer;
mod convert;
mod endpoint;
mod link;
mod maintenance;
mod measured;
mod notes;
mod registering;
mod types;

pub use answer::is_a_no;
pub(crate) use convert::volume_ref;
pub use endpoint::{ENDPOINT_FORM, is_endpoint, is_near};
pub use maintenance::MaintenanceOrder;
pub use measured::{Measured, MeasuredWay, Promised};
pub use types::{
    Chain, DiskSeen, DomainSeen, HostError, HostReport, HostStatus, HostView, Layer, LayerFormat,
    MergeOrder, MergePhase, MergeSeen, MergeSight, MergeWaiting, OverlayOrder, RemovalOrder,
    RemovalSeen, Removed, UnsupportedDisk, VmChains, VmSeen, VmState, VolumeSeen,
};

use crate::snapshot::{Consistency, HostRecord, Mark, VmRecord};
use crate::store::{Page, Store, StoreError, VmFilter};
use agent::{GrpcAgent, Orders};
use async_trait::async_trait;
use jiff::Timestamp;
use livemerge_proto::ids::{DiskTarget, HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::client::Pool;
use livemerge_runtime::metrics::ClientMeter;
use livemerge_runtime::{Client, Clock, HostNames, Line, Shutdown};
use livemerge_storage::{RemovalId, StorageId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Volumes that one order removes at most.
pub const REMOVED_AT_ONCE: usize = 64;

/// What came of removals that were ordered together.
pub type Removals = BTreeMap<RemovalId, Result<Removed, HostError>>;

/// What a host's agent is asked. Each call may be repeated.
#[async_trait]
pub trait HostAgent: Send + Sync + 'static {
    /// The chains of a machine's disks, or of one of them, as they are now.
    async fn chains(&self, vm: VmId, disk: Option<&DiskTarget>) -> Result<VmChains, HostError>;
    /// Puts overlays on. `Ok`: they are on, and this lies below.
    async fn create_overlays(&self, order: &OverlayOrder) -> Result<Consistency, HostError>;
    /// What merging these runs of a machine's disks costs each way, beside what merges of other hosts
    /// were promised: each run by its oldest and its youngest volume.
    async fn measure(
        &self,
        vm: VmId,
        runs: &[(DiskTarget, Mark, Mark)],
        elsewhere: &[Promised],
    ) -> Result<Vec<Measured>, HostError>;
    /// Orders the merges of one machine that go together, beside what merges of other hosts were
    /// promised. `Ok`: they are in the host's journal.
    async fn start_merges(
        &self,
        orders: &[MergeOrder],
        elsewhere: &[Promised],
    ) -> Result<(), HostError>;
    /// Gives a merge up. `Ok`: it is on its way to its end.
    async fn cancel_merge(&self, merge: MergeId) -> Result<(), HostError>;
    /// Lets a merge's job copy so many bytes a second; 0 for no limit.
    async fn limit_merge(&self, merge: MergeId, bytes_per_second: u64) -> Result<(), HostError>;
    /// Orders a removal.
    async fn remove_volume(&self, order: &RemovalOrder) -> Result<Removed, HostError>;
    /// Orders removals of volumes that leave together, at most [`REMOVED_AT_ONCE`]. Who has no answer in
    /// it was not removed: an older agent takes the first one alone.
    async fn remove_volumes(&self, orders: &[RemovalOrder]) -> Result<Removals, HostError>;
    /// Brings a removed volume back that is kept.
    async fn restore_volume(
        &self,
        storage: &StorageId,
        removal: RemovalId,
    ) -> Result<VolumeSeen, HostError>;
    /// What the host is and has. An answer of another host's agent is no answer.
    async fn report(&self) -> Result<HostReport, HostError>;
    /// Its storage domains, asked now.
    async fn domains(&self) -> Result<Vec<DomainSeen>, HostError>;
    /// All volumes of a storage domain.
    async fn volumes(&self, storage: &StorageId) -> Result<Vec<VolumeSeen>, HostError>;
    /// The removals of a storage domain that have not ended.
    async fn removals(&self, storage: &StorageId) -> Result<Vec<RemovalSeen>, HostError>;
}

/// How the links behave.
#[derive(Debug, Clone)]
pub struct LinkPolicy {
    /// Time between an agent's heartbeats.
    pub heartbeat: Duration,
    /// A host that was silent for so long is unresponsive.
    pub silence: Duration,
    /// How long an agent may take for a call that it answers at once.
    pub answer: Duration,
}

impl Default for LinkPolicy {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(6),
            answer: Duration::from_secs(10),
        }
    }
}

/// Makes the line to the endpoint of a host's agent. Injected, so that tests can connect in memory.
pub type Dial = Arc<dyn Fn(&HostId, &str) -> Result<Line, String> + Send + Sync>;

/// Lines over TCP, with or without TLS, or a Unix socket, opened when first needed; one connection
/// an endpoint. With names, who answers with a certificate has to have one of its host's.
pub fn dial(client: Client, names: Option<HostNames>) -> Dial {
    let pool = Pool::new(client, Pool::alive);
    Arc::new(move |host, endpoint| {
        let names = names.as_ref().map(|names| names.of(host.as_str()));
        pool.line_to(endpoint, names)
    })
}

/// A host that can be asked.
#[derive(Clone)]
pub struct HostHandle {
    /// Its id.
    pub id: HostId,
    /// How it is asked.
    pub agent: Arc<dyn HostAgent>,
    /// What it last said.
    pub view: watch::Receiver<HostView>,
}

/// The hosts that this server knows.
pub struct Hosts {
    store: Arc<dyn Store>,
    opened_at: Timestamp,
    clock: Arc<dyn Clock>,
    dial: Dial,
    policy: LinkPolicy,
    generation: u64,
    orders: Arc<Orders>,
    shutdown: Shutdown,
    calls: ClientMeter,
    known: RwLock<BTreeMap<HostId, Known>>,
    /// Where machines were last seen, for those whose host is silent.
    homes: Mutex<BTreeMap<VmId, VmRecord>>,
    /// One registration at a time, so that the newest generation wins; and one change of maintenance.
    registering: tokio::sync::Mutex<()>,
    /// The hosts on which nothing new is begun.
    maintained: watch::Sender<BTreeSet<HostId>>,
}

struct Known {
    record: HostRecord,
    handle: HostHandle,
    shown: watch::Sender<HostView>,
    /// Ends the link.
    ended: CancellationToken,
}

impl Hosts {
    /// The hosts of the store; a link to each is opened. `generation` is this server's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        dial: Dial,
        policy: LinkPolicy,
        generation: u64,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, StoreError> {
        let records = store.hosts().await?;
        let homes = all_vms(store.as_ref()).await?;
        let maintained = store.maintenance().await?;
        let hosts = Arc::new(Self {
            store,
            opened_at: clock.now(),
            clock,
            dial,
            policy,
            generation,
            orders: Arc::default(),
            shutdown,
            calls: ClientMeter::default(),
            known: RwLock::default(),
            homes: Mutex::new(homes.into_iter().map(|vm| (vm.id, vm)).collect()),
            registering: tokio::sync::Mutex::default(),
            maintained: watch::Sender::new(maintained),
        });
        for record in records {
            hosts.link(record);
        }
        Ok(hosts)
    }

    /// Since when hosts can be heard here.
    pub(crate) fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    /// What meters the calls to agents.
    pub(crate) fn calls(&self) -> &ClientMeter {
        &self.calls
    }

    /// All hosts, by id.
    pub fn all(&self) -> Vec<(HostRecord, HostView)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .values()
            .map(|known| (known.record.clone(), known.handle.view.borrow().clone()))
            .collect()
    }

    /// One host.
    pub fn get(&self, id: &HostId) -> Option<(HostRecord, HostView)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(id)
            .map(|known| (known.record.clone(), known.handle.view.borrow().clone()))
    }

    /// All hosts, by id, to ask them.
    pub fn handles(&self) -> Vec<HostHandle> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|known| known.handle.clone()).collect()
    }

    /// A host, to ask it.
    pub fn handle(&self, id: &HostId) -> Option<HostHandle> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).map(|known| known.handle.clone())
    }

    /// The host on which a machine is, or was when its host was last heard. A host where it runs
    /// goes before one that only has its definition, as the source of a migration may.
    pub fn of_vm(&self, vm: VmId) -> Option<HostHandle> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let state = |known: &Known| {
            let view = known.handle.view.borrow();
            Some(view.vms.as_ref()?.get(&vm)?.state)
        };
        let seen = known
            .values()
            .filter_map(|known| Some((state(known)? == VmState::ShutOff, known)));
        if let Some((_, seen)) = seen.min_by_key(|(off, _)| *off) {
            return Some(seen.handle.clone());
        }
        let home = self.home(vm)?.host;
        known.get(&home).map(|known| known.handle.clone())
    }

    /// Where a machine was last seen.
    pub fn home(&self, vm: VmId) -> Option<VmRecord> {
        self.homes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&vm)
            .cloned()
    }

    fn record(&self, id: &HostId) -> Option<HostRecord> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).map(|known| known.record.clone())
    }

    /// Opens the link to a host, in place of an earlier one. What was last heard stays shown
    /// until the new link hears more or the silence is too long. A host that may not be called, since
    /// the configuration has changed, stays, and says why.
    fn link(self: &Arc<Self>, record: HostRecord) {
        let dialled = (self.dial)(&record.id, &record.endpoint);
        let barred = dialled.is_err();
        let channel = dialled.unwrap_or_else(|error| {
            tracing::error!(host = %record.id, endpoint = record.endpoint, error, "may not be called");
            Line::barred(&error)
        });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever watches the host goes on watching it.
        let shown = match known.remove(&record.id) {
            Some(earlier) => {
                earlier.ended.cancel();
                earlier.shown.send_if_modified(HostView::expect_another);
                earlier.shown
            }
            None => watch::Sender::new(HostView::unheard()),
        };
        let agent = Arc::new(GrpcAgent::new(
            record.id.clone(),
            channel.clone(),
            shown.subscribe(),
            self.generation,
            Arc::clone(&self.orders),
            self.policy.answer,
            self.calls.clone(),
        ));
        let ended = self.shutdown.child_token();
        let link = link::Link::new(Arc::clone(self), record.id.clone(), channel, shown.clone());
        if !barred {
            tokio::spawn(ended.clone().run_until_cancelled_owned(link.keep()));
        }
        let handle = HostHandle {
            id: record.id.clone(),
            agent,
            view: shown.subscribe(),
        };
        known.insert(
            record.id.clone(),
            Known {
                record,
                handle,
                shown,
                ended,
            },
        );
    }
}

async fn all_vms(store: &dyn Store) -> Result<Vec<VmRecord>, StoreError> {
    let mut all: Vec<VmRecord> = Vec::new();
    loop {
        let page = Page {
            after: all.last().map(|vm| vm.id),
            limit: 1000,
        };
        let some = store.vms(&VmFilter::default(), &page).await?;
        let last = some.len() < page.limit;
        all.extend(some);
        if last {
            return Ok(all);
        }
    }
}

pub(crate) fn no_host(id: &HostId) -> Problem {
    Problem::new(Reason::HostNotFound, format!("there is no host {id}")).with("host", id)
}
