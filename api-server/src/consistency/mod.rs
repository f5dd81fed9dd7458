//! Compares what the record says with what hosts and storage have, and repairs what is safe to.
//!
//! ```text
//!   store ──▶ record ─┐
//!                     ├─▶ compare (pure) ─▶ findings ─▶ repair: looks again, then acts
//!   hosts ──▶ seen ───┘                                  │          │         │
//!                                                   HostAgent   Snapshots   Store
//! ```
//!
//! Invariants:
//! - `compare` is pure: no clock, no call.
//! - What could not be looked at is a finding ([`Kind::Unknown`]), and takes the repair from every
//!   finding that depends on it.
//! - The record is read again after the hosts were looked at; what an operation may have changed
//!   meanwhile is not compared, and said so.
//! - A repair acts only on a finding that a fresh look shows again, with the same identity.
//!
//! It does not watch: it looks when it is asked. It does not merge and does not touch a guest.

mod collect;
mod compare;
mod finding;
mod record;
mod repair;
mod seen;
#[cfg(test)]
mod tests;

pub use compare::compare;
pub use finding::{Finding, FindingId, Kind, Remedy, Repair};
pub use record::Record;
pub use repair::{RepairOrder, Repaired};
pub use seen::{HostSeen, Seen, StorageSeen, VmLook};

use crate::hosts::Hosts;
use crate::snapshot::Snapshots;
use crate::store::{Store, StoreError};
use livemerge_proto::ids::{HostId, VmId};
use livemerge_runtime::Clock;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Looks, compares and repairs.
pub struct Consistency {
    store: Arc<dyn Store>,
    hosts: Arc<Hosts>,
    snapshots: Arc<Snapshots>,
    clock: Arc<dyn Clock>,
    /// One repair at a time, so that each sees what the one before it has done.
    repairing: Mutex<()>,
}

/// Which findings are wanted.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only what concerns this machine.
    pub vm: Option<VmId>,
    /// Only what concerns this host.
    pub host: Option<HostId>,
}

impl Consistency {
    /// Over a store, its hosts and its snapshots.
    pub fn new(
        store: Arc<dyn Store>,
        hosts: Arc<Hosts>,
        snapshots: Arc<Snapshots>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            hosts,
            snapshots,
            clock,
            repairing: Mutex::default(),
        }
    }

    /// What differs now, the gravest first. Everything is compared, whatever the scope: a volume is
    /// left over only if nobody refers to it.
    ///
    /// # Errors
    /// When the store cannot be read. A host that does not answer is a finding.
    pub async fn check(&self, scope: &Scope) -> Result<Vec<Finding>, StoreError> {
        let mut findings = self.findings().await?;
        let home = scope.vm.and_then(|vm| self.hosts.of_vm(vm));
        let home = home.map(|host| host.id);
        findings.retain(|finding| scope.wants(finding, home.as_ref()));
        Ok(findings)
    }

    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        let now = self.clock.now();
        let (record, seen) = collect::look(self.store.as_ref(), &self.hosts, now).await?;
        Ok(compare(&record, &seen))
    }
}

impl Scope {
    /// `home` is the host of the wanted machine: that it could not be looked at concerns the machine,
    /// and so may a merge of which nobody knows any more whose it was.
    fn wants(&self, finding: &Finding, home: Option<&HostId>) -> bool {
        let of_home = matches!(finding.kind, Kind::Unknown | Kind::JournalDamaged)
            && finding.vm.is_none()
            && home.is_some_and(|home| finding.hosts.contains(home));
        let vm = self.vm.is_none() || finding.vm == self.vm || of_home;
        let host = self.host.as_ref();
        vm && host.is_none_or(|host| finding.hosts.contains(host))
    }
}
