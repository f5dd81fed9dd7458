//! Gathers what is compared: what was open, then the hosts, then the record.
//!
//! ```text
//!   open operations, newest one ─▶ look at all hosts at once ─▶ snapshots, operations since
//! ```
//!
//! In this order everything that a host showed had been written down before the record is read, and
//! an operation that changed something meanwhile is among those at work.

use super::compare::suspects;
use super::record::{Record, volumes_of};
use super::seen::{HostSeen, Seen, StorageSeen, VmLook};
use crate::hosts::{HostAgent, HostError, HostHandle, HostStatus, Hosts, VmSeen};
use crate::snapshot::{Operation, Snapshot};
use crate::store::{OperationFilter, Page, Store, StoreError};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, OperationId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::StorageId;
use std::collections::BTreeSet;
use std::time::Duration;

/// One host gets no more time, so that a slow one does not keep the others' answers back.
const HOST_LIMIT: Duration = Duration::from_secs(20);
/// Each chain makes its agent read all headers.
const CHAINS_AT_ONCE: usize = 4;
const PAGE: usize = 1000;

pub(super) async fn look(
    store: &dyn Store,
    hosts: &Hosts,
    now: Timestamp,
) -> Result<(Record, Seen), StoreError> {
    let begun = Begun::read(store).await?;
    let seen = Seen {
        at: now,
        hosts: join_all(hosts.handles().into_iter().map(one_host))
            .await
            .into_iter()
            .collect(),
    };
    let mut record = Record {
        snapshots: snapshots(store).await?,
        at_work: begun.at_work(store).await?,
        ended: vec![],
    };
    record.ended = explaining(store, &record, &seen).await?;
    Ok((record, seen))
}

/// Operations when the look began.
struct Begun {
    open: Vec<OperationId>,
    newest: Option<OperationId>,
}

impl Begun {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let newest = page(store, None, 1).await?;
        let open = store.open_operations().await?;
        Ok(Self {
            open: open.iter().map(|operation| operation.id).collect(),
            newest: newest.first().map(|operation| operation.id),
        })
    }

    /// Those that were open then, are open now, or were accepted in between: as they are now.
    async fn at_work(&self, store: &dyn Store) -> Result<Vec<Operation>, StoreError> {
        let mut at_work = store.open_operations().await?;
        let mut known: BTreeSet<OperationId> = at_work.iter().map(|o| o.id).collect();
        for id in &self.open {
            if known.insert(*id) {
                at_work.extend(store.operation(*id).await?);
            }
        }
        let mut after = None;
        loop {
            let some = page(store, after, PAGE).await?;
            after = some.last().map(|operation| operation.id);
            let whole = some.len() == PAGE;
            let newer = some.into_iter().take_while(|o| Some(o.id) > self.newest);
            let newer: Vec<Operation> = newer.collect();
            let more = whole && newer.len() == PAGE;
            at_work.extend(newer.into_iter().filter(|o| known.insert(o.id)));
            if !more {
                return Ok(at_work);
            }
        }
    }
}

async fn page(
    store: &dyn Store,
    after: Option<OperationId>,
    limit: usize,
) -> Result<Vec<Operation>, StoreError> {
    let page = Page { after, limit };
    store.operations(&OperationFilter::default(), &page).await
}

async fn snapshots(store: &dyn Store) -> Result<Vec<Snapshot>, StoreError> {
    let mut all: Vec<Snapshot> = Vec::new();
    loop {
        let page = Page {
            after: all.last().map(|snapshot| snapshot.id),
            limit: PAGE,
        };
        let some = store.snapshots(None, &page).await?;
        let last = some.len() < PAGE;
        all.extend(some);
        if last {
            return Ok(all);
        }
    }
}

/// The ended operations that name a volume to which nothing refers, newest first. Mostly there is
/// no such volume, and nothing is read.
async fn explaining(
    store: &dyn Store,
    record: &Record,
    seen: &Seen,
) -> Result<Vec<Operation>, StoreError> {
    let suspects = suspects(record, seen);
    let suspects: BTreeSet<_> = suspects.iter().map(|mark| &mark.volume).collect();
    let mut found: Vec<Operation> = Vec::new();
    let mut after = None;
    while !suspects.is_empty() {
        let some = page(store, after, PAGE).await?;
        after = some.last().map(|operation| operation.id);
        let last = some.len() < PAGE;
        let names_one = |o: &Operation| volumes_of(o).any(|volume| suspects.contains(volume));
        found.extend(some.into_iter().filter(|o| o.state.ended() && names_one(o)));
        if last {
            break;
        }
    }
    Ok(found)
}

async fn one_host(handle: HostHandle) -> (HostId, Result<HostSeen, Problem>) {
    let silent =
        |text: String| Problem::new(Reason::HostUnreachable, text).with("host", &handle.id);
    if handle.view.borrow().status != HostStatus::Up {
        let text = format!("the agent of host {} does not answer", handle.id);
        return (handle.id.clone(), Err(silent(text)));
    }
    let looked = tokio::time::timeout(HOST_LIMIT, host(handle.agent.as_ref())).await;
    let looked = looked.unwrap_or_else(|_elapsed| {
        let limit = HOST_LIMIT.as_secs();
        Err(silent(format!(
            "host {} took more than {limit} s",
            handle.id
        )))
    });
    (handle.id, looked)
}

async fn host(agent: &dyn HostAgent) -> Result<HostSeen, Problem> {
    let report = agent.report().await.map_err(HostError::into_problem)?;
    if !report.hypervisor_connected {
        let text = "the hypervisor does not answer, so the machines are not known";
        return Err(Problem::new(Reason::HypervisorUnreachable, text));
    }
    let mut seen = HostSeen {
        journals: report.damaged_journals,
        ..HostSeen::default()
    };
    // Volumes last: one that was made for a chain in between is named by its operation, and a chain
    // that has lost a layer before has lost its volume, too.
    let vms = report.vms.into_iter().map(|vm| machine(agent, vm));
    let mut vms = stream::iter(vms).buffer_unordered(CHAINS_AT_ONCE);
    while let Some((id, vm)) = vms.next().await {
        seen.vms.insert(id, vm);
    }
    for id in report.storages {
        let storage = domain(agent, &id).await;
        seen.storages.insert(id, storage);
    }
    Ok(seen)
}

async fn machine(agent: &dyn HostAgent, vm: VmSeen) -> (VmId, VmLook) {
    let read = agent.chains(vm.id, None).await;
    let (chains, unsupported) = match read {
        Ok(read) => (Ok(read.chains), read.unsupported),
        Err(error) => (Err(error.into_problem()), vec![]),
    };
    let look = VmLook {
        name: vm.name,
        state: vm.state,
        active: vm.disks.into_iter().map(|disk| disk.locator).collect(),
        chains,
        unsupported,
    };
    (vm.id, look)
}

async fn domain(agent: &dyn HostAgent, id: &StorageId) -> StorageSeen {
    StorageSeen {
        volumes: agent.volumes(id).await.map_err(HostError::into_problem),
        removals: agent.removals(id).await.map_err(HostError::into_problem),
    }
}
