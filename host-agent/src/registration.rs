//! Makes this host known to its API server: at the start, and now and then, so that a server with
//! an empty database, or one that had been down, learns of it by itself. So an agent learns, too, that
//! another one has taken its place while it stood still.

use crate::tenure::Tenure;
use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
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

/// Registers until the agent stops, or is replaced. Failing is no reason to stop: merges go on without
/// a server.
pub async fn keep(
    registration: Registration,
    server: Line,
    calls: ClientMeter,
    tenure: Tenure,
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
                let reason = Problem::try_from(status).map(|problem| problem.reason).ok();
                let shown = reason.map(Reason::as_str).unwrap_or_default();
                tracing::warn!(?code, reason = shown, "cannot register: {text}");
                if reason == Some(Reason::StaleGeneration) {
                    return tenure.replaced();
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Fence;
    use livemerge_runtime::ClientConfig;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};
    use tonic::body::Body;
    use tonic::codegen::{Service, http};
    use tonic::server::NamedService;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    /// Refuses each registration with the next of these reasons.
    #[derive(Clone)]
    struct Refuses {
        reasons: &'static [Reason],
        calls: Arc<AtomicUsize>,
    }

    impl NamedService for Refuses {
        const NAME: &'static str = "livemerge.v1.InventoryService";
    }

    impl Service<http::Request<Body>> for Refuses {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let place = self.calls.fetch_add(1, Ordering::SeqCst);
            let problem = Problem::new(self.reasons[place], "why it is so");
            ready(Ok(tonic::Status::from(problem).into_http()))
        }
    }

    #[tokio::test]
    async fn who_is_refused_as_older_is_the_hosts_agent_no_more() {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("http://{}", incoming.local_addr().unwrap());
        let server = Refuses {
            reasons: &[Reason::HostUnreachable, Reason::StaleGeneration],
            calls: Arc::default(),
        };
        let calls = Arc::clone(&server.calls);
        let serving = Server::builder().add_service(server);
        let serving = tokio::spawn(serving.serve_with_incoming(incoming));
        let client = ClientConfig::default().open(true).unwrap();
        let line = client.line(&address, bounds).unwrap();

        let state = tempfile::tempdir().unwrap();
        let fence = Arc::new(Fence::open(state.path()).unwrap());
        let (shutdown, registration) = (
            Shutdown::new(),
            Registration {
                host: "host-1".parse().unwrap(),
                endpoint: "http://127.0.0.1:1".to_owned(),
                generation: 4,
            },
        );
        let tenure = Tenure::new(Arc::clone(&fence), &shutdown);
        let meter = ClientMeter::default();
        let kept = keep(registration, line, meter, tenure.clone(), shutdown.clone());
        let ended = tokio::time::timeout(Duration::from_secs(20), kept).await;
        ended.expect("it asks no more");
        assert_eq!(calls.load(Ordering::SeqCst), 2, "the first was no answer");
        assert!(tenure.is_over() && !shutdown.is_cancelled());
        let refused = fence.pass(99).await.unwrap_err();
        assert_eq!(refused.reason, Reason::StaleGeneration);
        serving.abort();
    }
}
