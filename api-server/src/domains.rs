//! The storage domains of all hosts: shown, and what they are removing or keep of what was removed,
//! listed and brought back.
//!
//! ```text
//!   shown     every host that is UP ─▶ its domains
//!   listed    every host that is UP ─▶ its domains ─▶ their removals, each once
//!   restored  a host that is UP and lists that removal ─▶ asked there (domains/restoring.rs)
//! ```
//!
//! Two hosts that list one removal see one domain: the id is nobody else's.

mod restoring;

pub use restoring::RestoreOrder;

use crate::hosts::{DomainSeen, HostAgent, HostError, HostHandle, HostStatus, Hosts, RemovalSeen};
use crate::store::Store;
use futures::future::join_all;
use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Clock;
use livemerge_storage::StorageId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The storage domains of all hosts.
pub struct Domains {
    hosts: Arc<Hosts>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

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

fn silent(host: &HostId) -> Problem {
    let text = format!("host {host} does not answer");
    Problem::new(Reason::HostUnreachable, text).with("host", host)
}
