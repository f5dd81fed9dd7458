//! A client that asks without pause, and a delete of another one that ends all the while.

use crate::secured::Secured;
use crate::{any_id, until};
use livemerge_api_server::config::Config;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::{Line, Role};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CALLS: usize = 500;
const CONNECTIONS: usize = 5;

/// Reads the audit log without pause, by many calls at once, until it is dropped.
struct Flood {
    shed: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    calls: Vec<AbortOnDropHandle<()>>,
}

impl Flood {
    fn begin(secured: &Secured, role: Role) -> Self {
        let lines: Vec<Line> = (0..CONNECTIONS).map(|_| secured.line(Some(role))).collect();
        let [shed, served] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let calls = (0..CALLS).map(|call| {
            let mut events = EventServiceClient::new(lines[call % CONNECTIONS].clone());
            let (shed, served) = (Arc::clone(&shed), Arc::clone(&served));
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let asked = events.list_events(v1::ListEventsRequest::default()).await;
                    match asked.map_err(|status| Problem::try_from(status).unwrap()) {
                        Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                        Err(problem) => {
                            assert_eq!(problem.reason, Reason::ServerOverloaded, "{problem}");
                            shed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            }))
        });
        Self {
            calls: calls.collect(),
            shed,
            served,
        }
    }

    fn went_on(&self) -> bool {
        self.calls.iter().all(|call| !call.is_finished())
    }
}

async fn is_served(secured: &Secured) {
    let endpoint = Endpoint::from_shared(secured.address.clone()).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_client_keeps_no_delete_of_another_from_its_end() {
    let vm = any_id();
    let mut config = Config::default();
    config.server.max_concurrent_calls = NonZeroU32::new(8).unwrap();
    let secured = Secured::serve_as(&vm, config).await;
    secured.agent.merge_all();
    let flood = Flood::begin(&secured, Role::Viewer);
    let shed = || flood.shed.load(Ordering::Relaxed);
    until("the flood", async || (shed() > CALLS).then_some(())).await;

    let line = secured.line(Some(Role::Operator));
    let mut inventory = InventoryServiceClient::new(line.clone());
    until("the machine", async || {
        let vm_id = vm.clone();
        inventory.get_vm(v1::GetVmRequest { vm_id }).await.ok()
    })
    .await;
    let mut snapshots = SnapshotServiceClient::new(line.clone());
    let mut operations = OperationServiceClient::new(line);
    let mut ended = async |id: String| {
        let request = v1::WaitOperationRequest {
            operation_id: id,
            timeout: prost_types::Duration::try_from(Duration::from_secs(50)).ok(),
        };
        let answer = operations.wait_operation(request).await.unwrap();
        let operation = answer.into_inner().operation.unwrap();
        assert_eq!(operation.state(), v1::OperationState::Succeeded);
        operation
    };
    let create = v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: vm,
        name: "s1".to_owned(),
        ..v1::CreateSnapshotRequest::default()
    };
    let accepted = snapshots.create_snapshot(create).await.unwrap();
    let taken = ended(accepted.into_inner().operation.unwrap().id).await;
    is_served(&secured).await;
    let delete = v1::DeleteSnapshotRequest {
        request_id: any_id(),
        snapshot_id: taken.snapshot_id,
        ..v1::DeleteSnapshotRequest::default()
    };
    let accepted = snapshots.delete_snapshot(delete).await.unwrap();
    ended(accepted.into_inner().operation.unwrap().id).await;
    is_served(&secured).await;
    assert!(flood.went_on(), "and nothing else was ever answered to it");
    assert!(flood.served.load(Ordering::Relaxed) > 0);
}
