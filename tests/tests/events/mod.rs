//! The audit log: what it tells of merges and waits, and how it is followed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asking;
mod following;
mod telling;

use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_host_agent::hypervisor::HypervisorError;
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_tests::cluster::Cluster;
use tonic::{Status, Streaming};
use uuid::Uuid;
use v1::{EventSeverity as Severity, EventType as Type};

pub(crate) const QUICK: Pace = Pace::Every(Duration::from_millis(2));
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn problem(status: Status) -> Problem {
    Problem::try_from(status).expect("an error with a reason")
}

pub(crate) fn from_start() -> v1::WatchEventsRequest {
    v1::WatchEventsRequest {
        from_start: true,
        ..v1::WatchEventsRequest::default()
    }
}

pub(crate) fn behind(resume_token: &str) -> v1::WatchEventsRequest {
    v1::WatchEventsRequest {
        resume_token: resume_token.to_owned(),
        ..v1::WatchEventsRequest::default()
    }
}

/// A watch as a client has it: the events so far, and where it would go on.
pub(crate) struct Tail {
    pub(crate) stream: Streaming<v1::WatchEventsResponse>,
    pub(crate) events: Vec<v1::Event>,
    pub(crate) token: String,
}

impl Tail {
    pub(crate) async fn open(
        cluster: &mut Cluster,
        wanted: v1::WatchEventsRequest,
    ) -> Result<Self, Status> {
        let stream = cluster.api.events.watch_events(wanted).await?.into_inner();
        Ok(Self {
            stream,
            events: Vec::new(),
            token: String::new(),
        })
    }

    /// The next piece; `None` at a heartbeat.
    pub(crate) async fn piece(&mut self) -> Result<Option<v1::Event>, Status> {
        let next = tokio::time::timeout(LIMIT, self.stream.message()).await;
        let piece = next.expect("a watch says something")?;
        let piece = piece.expect("a watch has no end of its own");
        assert!(!piece.resume_token.is_empty());
        self.token = piece.resume_token;
        self.events.extend(piece.event.clone());
        Ok(piece.event)
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(&v1::Event) -> bool) -> Result<()> {
        let read = async {
            loop {
                if self.piece().await?.as_ref().is_some_and(&wanted) {
                    return Ok(());
                }
            }
        };
        let found = tokio::time::timeout(LIMIT, read).await;
        found.with_context(|| format!("not among {:#?}", self.events))?
    }

    pub(crate) fn revisions(&self) -> Vec<i64> {
        self.events.iter().map(|event| event.revision).collect()
    }
}

pub(crate) async fn list(
    cluster: &mut Cluster,
    request: v1::ListEventsRequest,
) -> Result<v1::ListEventsResponse, Status> {
    Ok(cluster.api.events.list_events(request).await?.into_inner())
}

/// The whole log.
pub(crate) async fn log(cluster: &mut Cluster) -> Result<Vec<v1::Event>> {
    let request = v1::ListEventsRequest {
        page_size: 1000,
        ..v1::ListEventsRequest::default()
    };
    Ok(list(cluster, request).await?.events)
}

pub(crate) async fn types(cluster: &mut Cluster) -> Result<Vec<Type>> {
    let log = log(cluster).await?;
    Ok(log.iter().map(v1::Event::r#type).collect())
}

pub(crate) async fn count(cluster: &mut Cluster, wanted: Type) -> Result<usize> {
    let types = types(cluster).await?;
    Ok(types.into_iter().filter(|found| *found == wanted).count())
}

pub(crate) async fn wait_for(cluster: &mut Cluster, wanted: Type) -> Result<v1::Event> {
    let look = async {
        loop {
            let log = log(cluster).await?;
            if let Some(found) = log.into_iter().find(|event| event.r#type() == wanted) {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, look).await;
    found.with_context(|| format!("no {}", wanted.as_str_name()))?
}

pub(crate) async fn wait_for_call(cluster: &Cluster, name: &str) -> Result<()> {
    let called = || {
        cluster
            .hypervisor
            .calls()
            .iter()
            .any(|call| call.name() == name)
    };
    let look = async {
        while !called() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, look)
        .await
        .context(name.to_owned())
}

/// A host that is registered again, which the log notes.
pub(crate) async fn note(cluster: &mut Cluster, generation: i64) -> Result<()> {
    let request = v1::RegisterHostRequest {
        request_id: Uuid::new_v4().to_string(),
        host_id: "host-9".to_owned(),
        endpoint: "http://nobody:1".to_owned(),
        generation,
        version: "test".to_owned(),
    };
    cluster.api.inventory.register_host(request).await?;
    Ok(())
}
