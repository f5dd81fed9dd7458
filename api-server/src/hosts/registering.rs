//! Hosts become known: an agent announces itself, somebody says where one is, a configuration does.
//!
//! ```text
//!   agent ─── generation of its start ──▶ newer than known? ─▶ taken
//!   operator, configuration ── none ────▶ known by an agent? ─▶ only to where a newer start of it answers
//!                                          └─ not ──────────▶ taken, and any agent of the host goes before it
//! ```
//!
//! Only an agent knows which start of it is the latest one. A number that somebody else makes up could be
//! above that, and the agent would be told that it is replaced.

use super::types::{HostStatus, HostView};
use super::{Hosts, agent, no_host};
use crate::snapshot::{EventKind, HostRecord, Severity};
use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::sync::Arc;
use std::time::Duration;

/// How long an agent may take to say who it is.
const IDENTITY_LIMIT: Duration = Duration::from_secs(3);

impl Hosts {
    /// As [`Self::register`], for an agent that announces itself as `caller`. Two of
    /// one start cannot be told apart, so the second is refused: each start of an agent has a
    /// generation of its own.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn announced(
        self: &Arc<Self>,
        record: HostRecord,
        caller: &str,
    ) -> Result<(HostRecord, HostView), Problem> {
        let known = self.record(&record.id);
        if known.as_ref() == Some(&record) {
            return self.register(record, Some(caller)).await;
        }
        let twin_of = known.filter(|known| {
            known.generation == record.generation && known.endpoint != record.endpoint
        });
        if let Some(known) = twin_of {
            return Err(twin(&known, record.generation));
        }
        let answers = |(_, view): (HostRecord, HostView)| view.status != HostStatus::Unresponsive;
        if self.get(&record.id).is_some_and(answers) {
            self.check_successor(&record).await?;
        }
        self.register(record, Some(caller)).await
    }

    /// Takes a host for where `caller` says that its agent is, who is not the agent: any agent of that host
    /// that announces itself goes before. The host of one that has done so is found elsewhere only where
    /// a newer start of it answers.
    ///
    /// # Errors
    /// `STALE_GENERATION` for where the agent of that start, or an older one, answers; `HOST_UNREACHABLE`
    /// where none of the host does; as [`Self::register`].
    pub async fn found(
        self: &Arc<Self>,
        host: HostId,
        endpoint: String,
        caller: &str,
    ) -> Result<(HostRecord, HostView), Problem> {
        let known = self.get(&host);
        if let Some((known, view)) = &known {
            let answers = view.status != HostStatus::Unresponsive;
            if known.endpoint != endpoint && (answers || known.generation > 0) {
                self.check_newer(known, &endpoint).await?;
            }
        }
        let (generation, version) = known
            .map(|(known, _)| (known.generation, known.version))
            .unwrap_or_default();
        let record = HostRecord {
            id: host,
            endpoint,
            generation,
            version,
        };
        self.register(record, Some(caller)).await
    }

    async fn check_newer(&self, known: &HostRecord, endpoint: &str) -> Result<(), Problem> {
        let host = &known.id;
        match self.who_answers(host, endpoint).await? {
            Some((id, generation)) if id == host.to_string() => {
                if generation > known.generation {
                    return Ok(());
                }
                Err(twin(known, generation))
            }
            _ => {
                let text = format!("no agent of host {host} answers at {endpoint}");
                Err(Problem::new(Reason::HostUnreachable, text).with("host", host))
            }
        }
    }

    /// A host that answers is not given away to an address where nobody of that name does.
    async fn check_successor(&self, record: &HostRecord) -> Result<(), Problem> {
        let found = self.who_answers(&record.id, &record.endpoint).await?;
        if found == Some((record.id.to_string(), record.generation)) {
            return Ok(());
        }
        let text = format!(
            "host {} is up, and no agent of it with generation {} answers at {}",
            record.id, record.generation, record.endpoint
        );
        Err(Problem::new(Reason::HostUnreachable, text).with("host", &record.id))
    }

    /// What the agent at an endpoint says that its host is, and its generation; nobody where another one
    /// than that of `host` answers, as far as that is asked for.
    async fn who_answers(
        &self,
        host: &HostId,
        endpoint: &str,
    ) -> Result<Option<(String, u64)>, Problem> {
        let channel =
            (self.dial)(host, endpoint).map_err(|error| Problem::field("endpoint", &error))?;
        let found = tokio::time::timeout(IDENTITY_LIMIT, agent::identity(channel)).await;
        Ok(found.ok().flatten())
    }

    /// Makes a host known, or takes its new address or generation.
    ///
    /// # Errors
    /// `STALE_GENERATION` when a newer agent of that id is known; a bad endpoint; the store's.
    pub async fn register(
        self: &Arc<Self>,
        record: HostRecord,
        caller: Option<&str>,
    ) -> Result<(HostRecord, HostView), Problem> {
        (self.dial)(&record.id, &record.endpoint)
            .map_err(|error| Problem::field("endpoint", &error))?;
        let _in_turn = self.registering.lock().await;
        let known = self.record(&record.id);
        if known.as_ref() != Some(&record) {
            let text = format!("host {} listens on {}", record.id, record.endpoint);
            let mut event = self.event(EventKind::HostRegistered, Severity::Info, &record.id, text);
            event.actor = caller.map(str::to_owned);
            self.store.put_host(&record, Some(&event)).await?;
            self.link(record.clone());
        }
        self.get(&record.id).ok_or_else(|| no_host(&record.id))
    }
}

/// That an agent of this start, or a newer one, is known to be elsewhere.
fn twin(known: &HostRecord, generation: u64) -> Problem {
    let text = format!(
        "the agent of host {} listens on {}, with generation {}: generation {generation} is not newer",
        known.id, known.endpoint, known.generation
    );
    Problem::new(Reason::StaleGeneration, text).with("host", &known.id)
}
