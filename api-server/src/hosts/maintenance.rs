//! Hosts in maintenance: what merges there goes on, and nothing new is begun.
//!
//! ```text
//!   SetHostMaintenance ─▶ store (host, entry of the log: one transaction) ─▶ shown to all lanes
//!                                                      │
//!   create, delete: refused ◀──────────────────────────┴──▶ accepted, not begun: waits
//! ```
//!
//! The log tells which requests were done, so that one which is repeated late undoes nothing that was
//! asked for since.

use super::{Hosts, no_host};
use crate::snapshot::{EventKind, NewEvent, Severity};
use crate::store::{EventFilter, Page};
use livemerge_proto::ids::{HostId, RequestId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::collections::BTreeSet;
use tokio::sync::watch;

/// Details of the entry in the log.
const REQUEST: &str = "request";
const MAINTENANCE: &str = "maintenance";

/// Takes a host into maintenance, or out of it.
#[derive(Debug, Clone)]
pub struct MaintenanceOrder {
    /// The request's id.
    pub request: RequestId,
    /// Who asks.
    pub caller: String,
    /// The host.
    pub host: HostId,
    /// Into it.
    pub maintenance: bool,
}

impl Hosts {
    /// Does as it is ordered, durably. The same request again changes nothing.
    ///
    /// # Errors
    /// `HOST_NOT_FOUND`, `REQUEST_ID_REUSED`, or the store's.
    pub async fn set_maintenance(&self, order: &MaintenanceOrder) -> Result<(), Problem> {
        let _in_turn = self.registering.lock().await;
        if self.get(&order.host).is_none() {
            return Err(no_host(&order.host));
        }
        if let Some(earlier) = self.done_by(order.request).await? {
            same(&earlier, order)?;
            // It may have been done by a commit whose success was not told.
            let maintained = self.store.maintenance().await?;
            self.maintained.send_replace(maintained);
            return Ok(());
        }
        let event = self.maintenance_event(order);
        self.store
            .set_maintenance(&order.host, order.maintenance, &event)
            .await?;
        self.maintained.send_modify(|hosts| {
            if order.maintenance {
                hosts.insert(order.host.clone());
            } else {
                hosts.remove(&order.host);
            }
        });
        Ok(())
    }

    /// Whether a host is in maintenance.
    pub fn in_maintenance(&self, host: &HostId) -> bool {
        self.maintained.borrow().contains(host)
    }

    /// The hosts in maintenance, now and after each change.
    pub fn maintained(&self) -> watch::Receiver<BTreeSet<HostId>> {
        self.maintained.subscribe()
    }

    /// Says that nothing new is begun for a machine, if its host is in maintenance.
    pub fn takes_no_work(&self, vm: VmId) -> Option<Problem> {
        let host = self.of_vm(vm)?.id;
        if !self.in_maintenance(&host) {
            return None;
        }
        let text = format!("host {host} is in maintenance");
        let problem = Problem::new(Reason::HostInMaintenance, text);
        Some(problem.with("host", host).with("vm", vm))
    }

    fn maintenance_event(&self, order: &MaintenanceOrder) -> NewEvent {
        let (host, wanted) = (&order.host, order.maintenance);
        let text = match (wanted, self.in_maintenance(host)) {
            (true, false) => format!("host {host} was taken into maintenance"),
            (false, true) => format!("host {host} takes work again"),
            (true, true) => format!("host {host} is in maintenance already"),
            (false, false) => format!("host {host} is in no maintenance"),
        };
        let details = [
            (REQUEST, order.request.to_string()),
            (MAINTENANCE, wanted.to_string()),
        ];
        let kind = EventKind::HostMaintenanceChanged;
        NewEvent {
            actor: Some(order.caller.clone()),
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
            ..self.event(kind, Severity::Info, host, text)
        }
    }

    /// The entry of an earlier request of this id.
    async fn done_by(&self, request: RequestId) -> Result<Option<NewEvent>, Problem> {
        let filter = EventFilter {
            kinds: vec![EventKind::HostMaintenanceChanged],
            ..EventFilter::default()
        };
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        let request = request.to_string();
        loop {
            let some = self.store.events(&filter, &page).await?;
            page.after = some.last().map(|event| event.revision);
            let last = some.len() < page.limit;
            let mut entries = some.into_iter().map(|event| event.entry);
            let found = entries.find(|entry| entry.details.get(REQUEST) == Some(&request));
            if last || found.is_some() {
                return Ok(found);
            }
        }
    }
}

/// # Errors
/// `REQUEST_ID_REUSED` when the earlier request asked for something else.
fn same(earlier: &NewEvent, order: &MaintenanceOrder) -> Result<(), Problem> {
    let wanted = earlier.details.get(MAINTENANCE);
    if earlier.host.as_ref() == Some(&order.host) && wanted == Some(&order.maintenance.to_string())
    {
        return Ok(());
    }
    let text = "the request id was used for another host, or the other way round";
    Err(Problem::new(Reason::RequestIdReused, text).with("request_id", order.request))
}
