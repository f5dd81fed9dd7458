//! The storage domains of all hosts: shown, and what they are removing or keep of what was removed,
//! listed and brought back.
//!
//! ```text
//!   shown     every host that is UP ─▶ its domains
//!   listed    every host that is UP ─▶ its domains ─▶ their removals, each once
//!   restored  a host that is UP and lists that removal ─▶ restored there ─▶ audit log
//! ```
//!
//! Two hosts that list one removal see one domain: the id is nobody else's.

use crate::hosts::{DomainSeen, HostAgent, HostError, HostHandle, HostStatus, Hosts, RemovalSeen};
use crate::snapshot::{Event, EventKind, NewEvent, Severity};
use crate::store::{EventFilter, Page, Store};
use futures::future::join_all;
use livemerge_proto::ids::{HostId, RequestId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use livemerge_storage::{RemovalId, StorageId, VolumeRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The storage domains of all hosts.
pub struct Domains {
    hosts: Arc<Hosts>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

/// Asks for a volume to be brought back.
#[derive(Debug, Clone)]
pub struct RestoreOrder {
    /// The request.
    pub request: RequestId,
    /// Who asks.
    pub caller: String,
    /// The storage domain.
    pub storage: StorageId,
    /// The removal that keeps it.
    pub removal: RemovalId,
}

/// Details of the entry in the log.
const REQUEST: &str = "request";
const REMOVAL: &str = "removal";
const STORAGE: &str = "storage";
const VOLUME: &str = "volume";

/// What hosts tell.
#[derive(Debug)]
pub struct Told<T> {
    /// What those told that answered.
    pub told: T,
    /// Hosts that are known and did not answer.
    pub silent: Vec<HostId>,
}

impl Domains {
    /// Over these hosts.
    pub fn new(hosts: Arc<Hosts>, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            hosts,
            store,
            clock,
        }
    }

    /// Whether there is such a host.
    pub fn knows(&self, host: &HostId) -> bool {
        self.hosts.get(host).is_some()
    }

    /// The domains that hosts see, of all hosts or of one.
    pub async fn shown(&self, only: Option<&HostId>) -> Told<Vec<(HostId, DomainSeen)>> {
        let mut hosts = self.hosts.handles();
        hosts.retain(|host| only.is_none_or(|only| *only == host.id));
        let asked = ask(hosts, |agent| async move { agent.domains().await }).await;
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for (host, domains) in asked {
            match domains {
                Ok(domains) => {
                    told.extend(domains.into_iter().map(|domain| (host.id.clone(), domain)));
                }
                Err(_) => silent.push(host.id),
            }
        }
        Told { told, silent }
    }

    /// All removals, or those of one storage domain: by `domain/id`.
    pub async fn removals(&self, only: Option<&StorageId>) -> Told<BTreeMap<String, RemovalSeen>> {
        let key = |seen: &RemovalSeen| format!("{}/{}", seen.mark.volume.storage, seen.id);
        let (mut told, mut silent) = (BTreeMap::new(), Vec::new());
        for (host, removals) in self.removals_of_each(only).await {
            match removals {
                Ok(removals) => {
                    told.extend(removals.into_iter().map(|seen| (key(&seen), seen)));
                }
                Err(_) => silent.push(host.id),
            }
        }
        Told { told, silent }
    }

    /// Brings a volume back, by a host that keeps it. The same request again gets the same answer.
    ///
    /// # Errors
    /// `REMOVAL_NOT_FOUND` when every host tells of its removals and none has this one; the first
    /// silent host's otherwise; the keeper's. `CONCURRENT_CHANGE` while an operation removes it: its next
    /// order would remove it again.
    pub async fn restore(&self, order: &RestoreOrder) -> Result<VolumeRef, Problem> {
        if let Some(volume) = self.restored(order).await? {
            return Ok(volume);
        }
        let open = self.store.open_operations().await?;
        if let Some(operation) = open.iter().find(|open| open.removes(order.removal)) {
            let text = format!(
                "operation {} still removes it: wait for its end",
                operation.id
            );
            let problem = Problem::new(Reason::ConcurrentChange, text);
            return Err(problem.with("operation", operation.id));
        }
        let keeper = self.keeper(&order.storage, order.removal).await?;
        let restored = keeper.agent.restore_volume(&order.storage, order.removal);
        let volume = restored.await.map_err(HostError::into_problem)?.mark.volume;
        // It is back: the answer does not fail for its entry in the log.
        if let Err(error) = self
            .store
            .add_events(&[self.event(order, &keeper.id, &volume)])
            .await
        {
            let error: &dyn std::error::Error = &error;
            tracing::error!(%volume, error, "a volume was brought back and that could not be noted");
        }
        Ok(volume)
    }

    fn event(&self, order: &RestoreOrder, keeper: &HostId, volume: &VolumeRef) -> NewEvent {
        let details = [
            (REQUEST, order.request.to_string()),
            (REMOVAL, order.removal.to_string()),
            (STORAGE, volume.storage.to_string()),
            (VOLUME, volume.name.to_string()),
        ];
        NewEvent {
            kind: EventKind::VolumeRestored,
            severity: Severity::Info,
            occurred_at: self.clock.now(),
            host: Some(keeper.clone()),
            vm: None,
            snapshot: None,
            operation: None,
            actor: Some(order.caller.clone()),
            message: format!("{volume} was brought back"),
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// What an earlier request of this id has brought back: the log says so.
    async fn restored(&self, order: &RestoreOrder) -> Result<Option<VolumeRef>, Problem> {
        let filter = EventFilter {
            vm: None,
            operation: None,
            least: None,
            kinds: vec![EventKind::VolumeRestored],
        };
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        let request = order.request.to_string();
        loop {
            let some = self.store.events(&filter, &page).await?;
            let is_it = |event: &&Event| event.entry.details.get(REQUEST) == Some(&request);
            if let Some(event) = some.iter().find(is_it) {
                return restored_by(&event.entry, order).map(Some);
            }
            page.after = some.last().map(|event| event.revision);
            if some.len() < page.limit {
                return Ok(None);
            }
        }
    }

    async fn keeper(&self, storage: &StorageId, id: RemovalId) -> Result<HostHandle, Problem> {
        let mut unheard = None;
        for (host, removals) in self.removals_of_each(Some(storage)).await {
            match removals {
                Ok(removals) if removals.iter().any(|removal| removal.id == id) => return Ok(host),
                Ok(_) => {}
                Err(error) => unheard = unheard.or(Some(error)),
            }
        }
        Err(unheard.map_or_else(|| no_removal(storage, id), HostError::into_problem))
    }

    async fn removals_of_each(
        &self,
        only: Option<&StorageId>,
    ) -> Vec<(HostHandle, Result<Vec<RemovalSeen>, HostError>)> {
        ask(self.hosts.handles(), |agent| {
            let only = only.cloned();
            async move { told_by(agent.as_ref(), only.as_ref()).await }
        })
        .await
    }
}

/// What each host answers, or why it does not; all of them at once.
async fn ask<T, F>(
    hosts: Vec<HostHandle>,
    what: impl Fn(Arc<dyn HostAgent>) -> F,
) -> Vec<(HostHandle, Result<T, HostError>)>
where
    F: Future<Output = Result<T, HostError>>,
{
    let asked = hosts.into_iter().map(|host| {
        let is_up = host.view.borrow().status == HostStatus::Up;
        let answer = is_up.then(|| what(Arc::clone(&host.agent)));
        async move {
            let told = match answer {
                Some(answer) => answer.await,
                None => Err(HostError::Unknown(silent(&host.id))),
            };
            (host, told)
        }
    });
    join_all(asked).await
}

async fn told_by(
    agent: &dyn HostAgent,
    only: Option<&StorageId>,
) -> Result<Vec<RemovalSeen>, HostError> {
    let mut domains = agent.report().await?.storages;
    domains.retain(|storage| only.is_none_or(|only| only == storage));
    let mut all = Vec::new();
    for storage in domains {
        all.extend(agent.removals(&storage).await?);
    }
    Ok(all)
}

/// # Errors
/// `REQUEST_ID_REUSED` when that request was about another removal.
fn restored_by(entry: &NewEvent, order: &RestoreOrder) -> Result<VolumeRef, Problem> {
    let detail = |name| {
        entry
            .details
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let volume = || {
        Some(VolumeRef {
            storage: detail(STORAGE).parse().ok()?,
            name: detail(VOLUME).parse().ok()?,
        })
    };
    let same = detail(REMOVAL) == order.removal.to_string();
    volume()
        .filter(|volume| same && volume.storage == order.storage)
        .ok_or_else(|| {
            let text = "the request id was used to bring another volume back";
            Problem::new(Reason::RequestIdReused, text).with("request_id", order.request)
        })
}

fn silent(host: &HostId) -> Problem {
    let text = format!("host {host} does not answer");
    Problem::new(Reason::HostUnreachable, text).with("host", host)
}

fn no_removal(storage: &StorageId, id: RemovalId) -> Problem {
    let text = format!("storage domain {storage} has no removal {id}");
    let problem = Problem::new(Reason::RemovalNotFound, text);
    problem.with("storage", storage).with("removal", id)
}
