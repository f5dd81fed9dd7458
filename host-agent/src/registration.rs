//! Makes this host known to its API server: at the start, and now and then, so that a server with
//! an empty database, or one that had been down, learns of it by itself.

use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::v1::RegisterHostRequest;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_runtime::metrics::{Calls, ClientMeter};
use livemerge_runtime::{Backoff, Line, Shutdown, Tries};
use std::time::Duration;
use tonic::transport::Endpoint;
use uuid::Uuid;

const EVERY: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), EVERY);
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What the API server is told.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The host's id.
    pub host: HostId,
    /// Where this agent listens.
    pub endpoint: String,
    /// This start of the agent.
    pub generation: u64,
}

/// How long the API server may take.
pub fn bounds(server: Endpoint) -> Endpoint {
    server.connect_timeout(TIME_LIMIT).timeout(TIME_LIMIT)
}

/// Registers until the agent stops. Failing is no reason to stop: merges go on without a server.
pub async fn keep(
    registration: Registration,
    server: Line,
    calls: ClientMeter,
    shutdown: Shutdown,
) {
    let mut client = InventoryServiceClient::new(calls.over(server));
    let mut tries = Tries::new(BACKOFF, &registration.host);
    loop {
        let pause = match register(&registration, &mut client).await {
            Ok(()) => {
                tries.succeeded();
                EVERY
            }
            Err(status) => {
                let (code, text) = (status.code(), status.message().to_owned());
                let reason = Problem::try_from(status).map(|problem| problem.reason.as_str());
                let reason = reason.unwrap_or_default();
                tracing::warn!(?code, reason, "cannot register: {text}");
                tries.failed()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn register(
    registration: &Registration,
    client: &mut InventoryServiceClient<Calls<Line>>,
) -> Result<(), tonic::Status> {
    let request = RegisterHostRequest {
        request_id: Uuid::new_v4().to_string(),
        host_id: registration.host.to_string(),
        endpoint: registration.endpoint.clone(),
        generation: i64::try_from(registration.generation).unwrap_or(i64::MAX),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    client.register_host(request).await.map(drop)
}
