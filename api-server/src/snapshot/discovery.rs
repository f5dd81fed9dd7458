//! Layers that others have frozen (`virsh snapshot-create-as`, backup programs, leftovers of failed
//! jobs) are listed as snapshots, so that they can be deleted like any other.
//!
//! ```text
//!   machine is seen, has changed, was looked at long ago ─▶ no operation open? snapshots
//!                  ─▶ chains ─▶ find (pure) ─▶ nothing has changed meanwhile? ─▶ store
//! ```
//!
//! Invariants:
//! - What is not known is not changed: a machine on a silent host, on two hosts, or with an open
//!   operation is passed over.
//! - What is written builds on chains and a record of the same time: no operation was accepted
//!   between the look and the write.

mod find;

use self::find::{Machine, find};
use super::service::Snapshots;
use super::types::Snapshot;
use crate::hosts::{HostError, HostHandle, HostStatus, VmSeen};
use crate::store::{OperationFilter, Page};
use futures::stream::{self, StreamExt as _};
use livemerge_proto::ids::{OperationId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_runtime::Backoff;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often it is seen what the hosts show.
const GLANCE_EVERY: Duration = Duration::from_millis(500);
/// A machine whose chains could not be read is looked at again after so long.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
/// Each look makes its agent read headers.
const LOOKS_AT_ONCE: usize = 4;

/// Looks for what others have frozen.
pub struct Discovery {
    snapshots: Arc<Snapshots>,
    every: Duration,
    looked: HashMap<VmId, LastLook>,
}

/// A machine as it was when it was looked at.
struct LastLook {
    vm: VmSeen,
    next: Instant,
    /// How often in a row its chains could not be read.
    failed: u32,
}

impl Discovery {
    /// Looks at each machine when it is seen or changes, and every so often.
    pub fn new(snapshots: Arc<Snapshots>, every: Duration) -> Self {
        Self {
            snapshots,
            every,
            looked: HashMap::new(),
        }
    }

    /// Goes on until dropped.
    pub async fn keep(mut self) {
        loop {
            self.look_around().await;
            tokio::time::sleep(GLANCE_EVERY).await;
        }
    }

    async fn look_around(&mut self) {
        let shown = self.shown();
        self.looked.retain(|vm, _| shown.contains_key(vm));
        let snapshots = &self.snapshots;
        let due = shown.into_values().filter(|(_, vm)| self.is_due(vm));
        let looks = due.map(|(host, vm)| async move {
            let looked = snapshots.discover(&host, vm.id).await;
            (vm, looked)
        });
        // Collected first: a look must not hold on to what is changed below.
        let looks: Vec<_> = looks.collect();
        let looked: Vec<_> = stream::iter(looks)
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        for (vm, looked) in looked {
            let failed = self.looked.get(&vm.id).map_or(0, |last| last.failed) + 1;
            let (pause, failed) = match looked {
                Ok(Looked::Whole) => (self.every, 0),
                // It is due again at the next glance.
                Ok(Looked::Busy) => continue,
                Err(problem) => {
                    tracing::debug!(vm = %vm.id, %problem, "a machine cannot be looked at");
                    (self.every.min(BACKOFF.after(failed, vm.id)), failed)
                }
            };
            let next = Instant::now() + pause;
            self.looked.insert(vm.id, LastLook { vm, next, failed });
        }
    }

    fn is_due(&self, vm: &VmSeen) -> bool {
        let looked = self.looked.get(&vm.id);
        looked.is_none_or(|last| last.vm != *vm || Instant::now() >= last.next)
    }

    /// The machines that one host shows now. Where one is that two hosts show is not known.
    fn shown(&self) -> BTreeMap<VmId, (HostHandle, VmSeen)> {
        let mut shown = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for host in self.snapshots.around.hosts.handles() {
            let view = host.view.borrow().clone();
            let up = view.status == HostStatus::Up && view.hypervisor_connected;
            for vm in view.vms.iter().filter(|_| up).flat_map(|vms| vms.values()) {
                if shown.insert(vm.id, (host.clone(), vm.clone())).is_some() {
                    twice.insert(vm.id);
                }
            }
        }
        shown.retain(|vm, _| !twice.contains(vm));
        shown
    }
}

/// What came of a look.
enum Looked {
    /// The record has what there is.
    Whole,
    /// An operation works on the machine, or has meanwhile.
    Busy,
}

/// What the record has of a machine on which no operation works.
#[derive(PartialEq)]
struct Stand {
    newest: Option<OperationId>,
    snapshots: Vec<Snapshot>,
}

impl Snapshots {
    async fn discover(&self, host: &HostHandle, vm: VmId) -> Result<Looked, Problem> {
        let Some(before) = self.stand(vm).await? else {
            return Ok(Looked::Busy);
        };
        let read = host.agent.chains(vm, None).await;
        let read = read.map_err(HostError::into_problem)?;
        let machine = Machine {
            vm,
            host: &host.id,
            chains: &read.chains,
            snapshots: &before.snapshots,
            now: self.around.clock.now(),
        };
        let found = find(&machine, &mut Uuid::now_v7);
        if found.snapshots.is_empty() {
            return Ok(Looked::Whole);
        }
        let _nothing_is_accepted_meanwhile = self.accepting.of(vm).await;
        if self.stand(vm).await?.as_ref() != Some(&before) {
            return Ok(Looked::Busy);
        }
        let written = self
            .around
            .store
            .put_snapshots(&found.snapshots, &found.events);
        written.await?;
        Ok(Looked::Whole)
    }

    /// `None` while an operation is open.
    async fn stand(&self, vm: VmId) -> Result<Option<Stand>, Problem> {
        if self.has_open(vm).await? {
            return Ok(None);
        }
        let filter = OperationFilter {
            vm: Some(vm),
            states: vec![],
        };
        let page = Page {
            after: None,
            limit: 1,
        };
        let newest = self.around.store.operations(&filter, &page).await?;
        let (_, snapshots) = self.around.snapshots(vm, &BTreeSet::new()).await?;
        Ok(Some(Stand {
            newest: newest.first().map(|operation| operation.id),
            snapshots,
        }))
    }
}
