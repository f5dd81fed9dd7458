//! Bringing back a removed volume that a host keeps.
//!
//! ```text
//!   done before? ─▶ who keeps it ─▶ audit log: asked for, with its mark ─▶ restored there ─▶ audit log: restored
//!                     └─ nobody, and it was asked for by this request: is it back? ─────────────▲
//! ```
//!
//! What was asked for stands in the log before the act: so the same request gets the same answer when the first
//! one was lost, wherever that was. The volume is known by its mark, not by its name.

use super::{Domains, ask};
use crate::hosts::{HostAgent, HostError, HostHandle};
use crate::snapshot::{EventKind, Mark, NewEvent, Severity};
use crate::store::{EventFilter, Page};
use livemerge_proto::ids::{HostId, RequestId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, StorageId, VolumeRef};

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

/// Details of the entries in the log.
const REQUEST: &str = "request";
const REMOVAL: &str = "removal";
const STORAGE: &str = "storage";
const VOLUME: &str = "volume";
const IDENTITY: &str = "identity";

impl Domains {
    /// Brings a volume back, by a host that keeps it. The same request again gets the same answer.
    ///
    /// # Errors
    /// `REMOVAL_NOT_FOUND` when every host tells of its removals and none has this one; the first
    /// silent host's otherwise; the keeper's. `CONCURRENT_CHANGE` while an operation removes it: its next
    /// order would remove it again.
    pub async fn restore(&self, order: &RestoreOrder) -> Result<VolumeRef, Problem> {
        let asked = match self.logged(order).await? {
            Some((EventKind::VolumeRestored, mark)) => return Ok(mark.volume),
            asked => asked.map(|(_, mark)| mark),
        };
        let open = self.store.open_operations().await?;
        if let Some(operation) = open.iter().find(|open| open.removes(order.removal)) {
            let text = format!(
                "operation {} still removes it: wait for its end",
                operation.id
            );
            let problem = Problem::new(Reason::ConcurrentChange, text);
            return Err(problem.with("operation", operation.id));
        }
        let (keeper, mark) = match self.keeper(&order.storage, order.removal).await {
            Ok(found) => found,
            Err(none) => return self.back_before(order, asked, none).await,
        };
        if asked.is_none() {
            let requested = EventKind::VolumeRestoreRequested;
            let event = event(self, order, requested, &keeper.id, &mark);
            self.store.add_events(&[event]).await?;
        }
        let restored = keeper.agent.restore_volume(&order.storage, order.removal);
        match restored.await.map_err(HostError::into_problem) {
            Ok(_) => Ok(self.note(order, &keeper.id, mark).await),
            Err(problem) => self.back_before(order, Some(mark), problem).await,
        }
    }

    /// The volume, when nobody keeps it any more since an earlier call of this request has brought it back.
    ///
    /// # Errors
    /// That nobody keeps it, otherwise.
    async fn back_before(
        &self,
        order: &RestoreOrder,
        asked: Option<Mark>,
        problem: Problem,
    ) -> Result<VolumeRef, Problem> {
        let Some(mark) = asked.filter(|_| problem.reason == Reason::RemovalNotFound) else {
            return Err(problem);
        };
        let told = ask(self.hosts.handles(), |agent| {
            let mark = mark.clone();
            async move { has(agent.as_ref(), &mark).await }
        });
        let mut told = told.await.into_iter();
        match told.find(|(_, has)| matches!(has, Ok(true))) {
            Some((host, _)) => Ok(self.note(order, &host.id, mark).await),
            None => Err(problem),
        }
    }

    /// It is back: the answer does not fail for its entry in the log.
    async fn note(&self, order: &RestoreOrder, host: &HostId, mark: Mark) -> VolumeRef {
        let event = event(self, order, EventKind::VolumeRestored, host, &mark);
        if let Err(error) = self.store.add_events(&[event]).await {
            let (error, volume): (&dyn std::error::Error, _) = (&error, &mark.volume);
            tracing::error!(%volume, error, "a volume was brought back and that could not be noted");
        }
        mark.volume
    }

    /// What the log says of this request: that its volume is back, or was asked for.
    async fn logged(&self, order: &RestoreOrder) -> Result<Option<(EventKind, Mark)>, Problem> {
        let filter = EventFilter {
            vm: None,
            operation: None,
            least: None,
            kinds: vec![EventKind::VolumeRestoreRequested, EventKind::VolumeRestored],
            newest_first: false,
        };
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        let request = order.request.to_string();
        let mut asked = None;
        loop {
            let some = self.store.events(&filter, &page).await?;
            let entries = some.iter().map(|event| &event.entry);
            for entry in entries.filter(|entry| entry.details.get(REQUEST) == Some(&request)) {
                let found = (entry.kind, of_order(entry, order)?);
                if entry.kind == EventKind::VolumeRestored {
                    return Ok(Some(found));
                }
                asked = Some(found);
            }
            page.after = some.last().map(|event| event.revision);
            if some.len() < page.limit {
                return Ok(asked);
            }
        }
    }

    /// A host that keeps the volume, and the volume.
    async fn keeper(
        &self,
        storage: &StorageId,
        id: RemovalId,
    ) -> Result<(HostHandle, Mark), Problem> {
        let mut unheard = None;
        for (host, removals) in self.removals_of_each(Some(storage)).await {
            match removals {
                Ok(removals) => {
                    if let Some(removal) = removals.into_iter().find(|removal| removal.id == id) {
                        return Ok((host, removal.mark));
                    }
                }
                Err(error) => unheard = unheard.or(Some(error)),
            }
        }
        Err(unheard.map_or_else(|| no_removal(storage, id), HostError::into_problem))
    }
}

/// Whether a host has a volume in its domain.
async fn has(agent: &dyn HostAgent, mark: &Mark) -> Result<bool, HostError> {
    let storage = &mark.volume.storage;
    if !agent.report().await?.storages.contains(storage) {
        return Ok(false);
    }
    let volumes = agent.volumes(storage).await?;
    Ok(volumes.iter().any(|volume| volume.mark == *mark))
}

fn event(
    domains: &Domains,
    order: &RestoreOrder,
    kind: EventKind,
    host: &HostId,
    mark: &Mark,
) -> NewEvent {
    let volume = &mark.volume;
    let details = [
        (REQUEST, order.request.to_string()),
        (REMOVAL, order.removal.to_string()),
        (STORAGE, volume.storage.to_string()),
        (VOLUME, volume.name.to_string()),
        (IDENTITY, mark.identity.to_string()),
    ];
    let message = match kind {
        EventKind::VolumeRestored => format!("{volume} was brought back"),
        _ => format!("{volume} is to be brought back"),
    };
    NewEvent {
        kind,
        severity: Severity::Info,
        occurred_at: domains.clock.now(),
        host: Some(host.clone()),
        vm: None,
        snapshot: None,
        operation: None,
        actor: Some(order.caller.clone()),
        message,
        details: details.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// # Errors
/// `REQUEST_ID_REUSED` when that request was about another removal.
fn of_order(entry: &NewEvent, order: &RestoreOrder) -> Result<Mark, Problem> {
    let detail = |name| entry.details.get(name).map(String::as_str);
    let mark = || {
        let volume = VolumeRef {
            storage: detail(STORAGE)?.parse().ok()?,
            name: detail(VOLUME)?.parse().ok()?,
        };
        // An entry of an earlier version has none, and only says what is done.
        let identity = detail(IDENTITY).unwrap_or("unknown").parse().ok()?;
        Some(Mark { volume, identity })
    };
    let same = detail(REMOVAL) == Some(order.removal.to_string().as_str());
    mark()
        .filter(|mark| same && mark.volume.storage == order.storage)
        .ok_or_else(|| {
            let text = "the request id was used to bring another volume back";
            Problem::new(Reason::RequestIdReused, text).with("request_id", order.request)
        })
}

fn no_removal(storage: &StorageId, id: RemovalId) -> Problem {
    let text = format!("storage domain {storage} has no removal {id}");
    let problem = Problem::new(Reason::RemovalNotFound, text);
    problem.with("storage", storage).with("removal", id)
}
