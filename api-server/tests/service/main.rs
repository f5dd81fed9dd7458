//! The public API over a real store, with an agent that does as it is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod batch;
mod compressed;
mod damaged;
mod flood;
mod forecast;
mod late;
mod maintenance;
mod needed;
mod noted;
mod promised;
mod quiesce;
mod registering;
mod removals;
mod rules;
mod secured;
mod stand_in;
mod stopping;
mod versions;
mod waiting;
mod web;
mod wishes;

use agent::{Agent, HOST};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use livemerge_api_server::config::{Config, HostConfig};
use livemerge_api_server::grpc::{EventApi, InventoryApi, OperationApi, SnapshotApi};
use livemerge_api_server::hosts;
use livemerge_api_server::server;
use livemerge_api_server::store::{SqliteStore, Store};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::event_service_server::EventServiceServer;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::inventory_service_server::InventoryServiceServer;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::operation_service_server::OperationServiceServer;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_proto::v1::snapshot_service_server::SnapshotServiceServer;
use livemerge_runtime::{Client, Clock, Shutdown, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tonic::{Response, Status};
use uuid::Uuid;

/// A server with one host and one machine.
struct Rig {
    agent: Agent,
    vm: String,
    snapshots: SnapshotServiceClient<SnapshotServiceServer<SnapshotApi>>,
    operations: OperationServiceClient<OperationServiceServer<OperationApi>>,
    inventory: InventoryServiceClient<InventoryServiceServer<InventoryApi>>,
    events: EventServiceClient<EventServiceServer<EventApi>>,
    /// Asks the server to stop, and says when its operations stand still.
    shutdown: Shutdown,
    stopped: BoxFuture<'static, ()>,
    config: Config,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    _database: TempDir,
}

fn any_id() -> String {
    Uuid::new_v4().to_string()
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Problem {
    Problem::try_from(answer.unwrap_err()).unwrap()
}

/// Looks until it is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), looks).await;
    found.unwrap_or_else(|_| panic!("{what} does not come"))
}

impl Rig {
    async fn open(disks: &[&str]) -> Self {
        let vm = any_id();
        let (agent, endpoint) = Agent::serve(vm.clone(), disks).await;
        Self::around(vm, agent, vec![(HOST, endpoint)]).await
    }

    /// With these hosts, the first of which has the machine.
    async fn around(vm: String, agent: Agent, hosts: Vec<(&str, String)>) -> Self {
        Self::at(Arc::new(SystemClock), vm, agent, hosts).await
    }

    /// The same, by this clock.
    async fn at(
        clock: Arc<dyn Clock>,
        vm: String,
        agent: Agent,
        hosts: Vec<(&str, String)>,
    ) -> Self {
        let database = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&database.path().join("api.db")).await;
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let mut config = Config::default();
        config.heartbeat.silence_ms = 2_500;
        for (id, endpoint) in hosts {
            let host = HostConfig { endpoint };
            config.hosts.insert(id.parse().unwrap(), host);
        }
        let shutdown = Shutdown::new();
        let opened = server::open(
            &config,
            Arc::clone(&clock),
            Arc::clone(&store),
            hosts::dial(Client::default(), None),
            shutdown.clone(),
        );
        let services = opened.await.unwrap();
        let mut rig = Self {
            agent,
            vm,
            stopped: services.operations_stopped().boxed(),
            shutdown,
            config,
            clock,
            store,
            snapshots: SnapshotServiceClient::new(services.snapshots),
            operations: OperationServiceClient::new(services.operations),
            inventory: InventoryServiceClient::new(services.inventory),
            events: EventServiceClient::new(services.events),
            _database: database,
        };
        rig.machine().await;
        rig
    }

    async fn machine(&mut self) {
        until("the machine", async || {
            let request = v1::GetVmRequest {
                vm_id: self.vm.clone(),
            };
            self.inventory.get_vm(request).await.ok()
        })
        .await;
    }

    /// Waits until a host is shown so.
    async fn host_is(&mut self, host: &str, status: v1::HostStatus) -> v1::Host {
        until("the host's state", async || {
            let request = v1::GetHostRequest {
                host_id: host.to_owned(),
            };
            let answer = self.inventory.get_host(request).await.unwrap();
            let host = answer.into_inner().host.unwrap();
            (host.status() == status).then_some(host)
        })
        .await
    }

    /// Another server takes over, on the same database.
    async fn restart(&mut self) {
        self.shutdown.cancel();
        self.shutdown = Shutdown::new();
        let store = Arc::clone(&self.store);
        let opened = server::open(
            &self.config,
            Arc::clone(&self.clock),
            store,
            hosts::dial(Client::default(), None),
            self.shutdown.clone(),
        );
        let services = opened.await.unwrap();
        self.stopped = services.operations_stopped().boxed();
        self.snapshots = SnapshotServiceClient::new(services.snapshots);
        self.operations = OperationServiceClient::new(services.operations);
        self.inventory = InventoryServiceClient::new(services.inventory);
        self.events = EventServiceClient::new(services.events);
        self.machine().await;
    }

    /// All events of a kind.
    async fn events_of(&mut self, kind: v1::EventType) -> Vec<v1::Event> {
        let request = v1::ListEventsRequest {
            types: vec![kind.into()],
            ..v1::ListEventsRequest::default()
        };
        let events = self.events.list_events(request).await.unwrap();
        events.into_inner().events
    }

    /// Takes snapshots `s1`, `s2`, ...: their ids, oldest first.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 1..=count {
            let request = v1::CreateSnapshotRequest {
                request_id: any_id(),
                vm_id: self.vm.clone(),
                name: format!("s{number}"),
                description: String::new(),
                ..Default::default()
            };
            let answer = self.snapshots.create_snapshot(request).await.unwrap();
            let taken = self.ended(&answer.into_inner().operation.unwrap().id).await;
            assert_eq!(taken.state(), v1::OperationState::Succeeded);
            ids.push(taken.snapshot_id);
        }
        ids
    }

    fn batch(&self, ids: &[&String]) -> v1::BatchDeleteSnapshotsRequest {
        v1::BatchDeleteSnapshotsRequest {
            request_id: any_id(),
            vm_id: self.vm.clone(),
            snapshot_ids: ids.iter().map(|id| (*id).clone()).collect(),
            ..v1::BatchDeleteSnapshotsRequest::default()
        }
    }

    /// Accepts a batch: its operation.
    async fn delete(&mut self, ids: &[&String]) -> v1::Operation {
        let request = self.batch(ids);
        let answer = self.snapshots.batch_delete_snapshots(request).await;
        answer.unwrap().into_inner().operation.unwrap()
    }

    async fn operation(&mut self, id: &str) -> v1::Operation {
        let request = v1::GetOperationRequest {
            operation_id: id.to_owned(),
        };
        let answer = self.operations.get_operation(request).await.unwrap();
        answer.into_inner().operation.unwrap()
    }

    async fn ended(&mut self, id: &str) -> v1::Operation {
        // Longer than the longest pause between two tries.
        let limit = Duration::from_secs(90);
        let request = v1::WaitOperationRequest {
            operation_id: id.to_owned(),
            timeout: prost_types::Duration::try_from(limit).ok(),
        };
        let answer = self.operations.wait_operation(request).await.unwrap();
        let operation = answer.into_inner().operation.unwrap();
        assert!(operation.ended_at.is_some(), "still {operation:?}");
        operation
    }

    /// A snapshot's state; `None` when it is gone.
    async fn state(&mut self, snapshot: &str) -> Option<v1::SnapshotState> {
        let request = v1::GetSnapshotRequest {
            snapshot_id: snapshot.to_owned(),
        };
        match self.snapshots.get_snapshot(request).await {
            Ok(answer) => Some(answer.into_inner().snapshot.unwrap().state()),
            Err(status) => {
                let problem = Problem::try_from(status).unwrap();
                assert_eq!(problem.reason, Reason::SnapshotNotFound);
                None
            }
        }
    }

    /// The merges that are under way, as soon as there are so many.
    async fn merges(&self, count: usize) -> Vec<v1::Merge> {
        until("the merges", async || {
            let open = self.agent.open_merges();
            (open.len() == count).then_some(open)
        })
        .await
    }

    /// The kinds of an operation's events.
    async fn told(&mut self, operation: &str) -> Vec<v1::EventType> {
        let request = v1::ListEventsRequest {
            operation_id: operation.to_owned(),
            ..v1::ListEventsRequest::default()
        };
        let events = self.events.list_events(request).await.unwrap();
        let events = events.into_inner().events;
        events.iter().map(v1::Event::r#type).collect()
    }
}
