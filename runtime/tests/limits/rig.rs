//! A server with tokens, a service whose calls stay open as long as the test likes, and clients.

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use livemerge_runtime::{
    AuthConfig, ListenAddress, ListenConfig, Metrics, Reach, Readiness, Role, Rules, Security,
    ServeError, Server, ServerConfig, Shutdown, TlsConfig,
};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tower::{Service, ServiceExt as _};

/// For what must come; no test takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) open: Open,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), ServeError>>,
    _readiness: Readiness,
    _dir: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const ROLES: [(&str, Role); 4] = [
    ("alice", Role::Operator),
    ("bob", Role::Operator),
    ("carol", Role::Viewer),
    ("server", Role::Server),
];

impl Rig {
    /// A server to which everybody must show a token.
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tokens_file = dir.path().join("tokens.toml");
        let entry = |(name, role): (&str, Role)| {
            let digest = Sha256::digest(name);
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let role = role.as_str();
            format!("[tokens.{name}]\nsha256 = \"{digits}\"\nrole = \"{role}\"\n")
        };
        std::fs::write(&tokens_file, ROLES.map(entry).concat()).unwrap();
        let auth = AuthConfig {
            tokens_file: Some(tokens_file),
            ..AuthConfig::default()
        };
        let rules = Rules::new().permit("test.Open", &METHODS, &Role::ALL);
        let security = Security::open(&TlsConfig::default(), Some(&auth), rules).unwrap();
        let metrics = Metrics::default();
        let open = Open::default();
        let server = Server::new(config)
            .metered(&metrics)
            .secured(security)
            .service(open.clone())
            .streams(["/test.Open/Watch", "/test.Open/Quiet"]);
        let (shutdown, readiness) = (server.shutdown(), server.readiness());
        readiness.set_all(true);
        let listener = ListenConfig::loopback(0).bind(Reach::Near).await.unwrap();
        let ListenAddress::Tcp(address) = listener.address().unwrap() else {
            panic!("TCP")
        };
        let serving = tokio::spawn(server.serve(listener));
        Rig {
            address,
            metrics,
            open,
            shutdown,
            serving,
            _readiness: readiness,
            _dir: dir,
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Asks it to end, and waits until it serves no more.
    pub(crate) async fn end(&mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(SOON, &mut self.serving).await;
        ended.expect("it ends").unwrap().unwrap();
    }

    /// Asks over a connection of its own how the server is.
    pub(crate) async fn health(&self) -> ServingStatus {
        check(self.channel().await, "").await.unwrap()
    }

    /// How much was shed.
    pub(crate) fn shed(&self, limit: &str) -> u64 {
        let text = self.metrics.text();
        let start = format!("livemerge_server_shed_total{{limit=\"{limit}\"}} ");
        let found = text.lines().find_map(|line| line.strip_prefix(&start));
        found.unwrap().parse().unwrap()
    }
}

pub(crate) async fn check(channel: Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await?;
    Ok(answer.get_ref().status())
}

/// Calls a method in somebody's name, up to the headers of the answer.
pub(crate) async fn begin(channel: &Channel, name: &str, method: &str) -> http::Response<Body> {
    try_begin(channel, name, method).await.unwrap()
}

/// The same, or what the client says without an answer.
pub(crate) async fn try_begin(
    channel: &Channel,
    name: &str,
    method: &str,
) -> Result<http::Response<Body>, tonic::transport::Error> {
    let request = http::Request::post(format!("/test.Open/{method}"))
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {name}"));
    let mut channel = channel.clone();
    let ready = channel.ready().await?;
    ready.call(request.body(Body::empty()).unwrap()).await
}

/// The status at the end of an answer.
pub(crate) async fn ending(response: http::Response<Body>) -> Status {
    let (head, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.trailers_ref().and_then(Status::from_header_map) {
                Some(status) => return status,
                None => continue,
            },
            Err(broken) => return Status::aborted(format!("broken: {broken}")),
        }
    }
    Status::unknown("no status")
}

pub(crate) async fn call(channel: &Channel, name: &str, method: &str) -> Status {
    ending(begin(channel, name, method).await).await
}

/// That it was refused with this reason, and says when to try again.
pub(crate) fn is_shed(status: &Status, reason: &str) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    status.code() == Code::ResourceExhausted
        && info.is_some_and(|info| info.reason == reason && info.domain == "livemerge")
        && details
            .retry_info()
            .is_some_and(|retry| retry.retry_delay.is_some())
}

const METHODS: [&str; 5] = ["Hold", "Body", "Watch", "Quiet", "Who"];

/// `Hold` answers once it is released; `Body` answers at once, and ends then; `Watch` has always
/// more, `Quiet` never anything; `Who` tells the address that is asked from.
#[derive(Clone)]
pub(crate) struct Open {
    /// How many calls are in the service: their handlers or their bodies live.
    inside: Arc<watch::Sender<usize>>,
    released: Arc<watch::Sender<bool>>,
}

impl Default for Open {
    fn default() -> Self {
        Open {
            inside: Arc::new(watch::Sender::new(0)),
            released: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Open {
    /// Waits until exactly so many calls are inside.
    pub(crate) async fn inside(&self, calls: usize) {
        let mut inside = self.inside.subscribe();
        let reached = inside.wait_for(|inside| *inside == calls);
        let reached = tokio::time::timeout(SOON, reached).await;
        drop(reached.expect("so many calls get in").unwrap());
    }

    /// `Hold` and `Body` end from now on.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    fn enter(&self) -> Inside {
        self.inside.send_modify(|inside| *inside += 1);
        Inside(self.clone())
    }
}

struct Inside(Open);

impl Inside {
    async fn until_released(&self) {
        let mut released = self.0.released.subscribe();
        drop(released.wait_for(|released| *released).await);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.send_modify(|inside| *inside -= 1);
    }
}

impl NamedService for Open {
    const NAME: &'static str = "test.Open";
}

impl Service<http::Request<Body>> for Open {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inside = self.enter();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "Hold" => {
                    inside.until_released().await;
                    Status::ok("held").into_http()
                }
                "Body" => streamed(futures::stream::once(async move {
                    inside.until_released().await;
                    trailers(&Status::ok("held"))
                })),
                "Watch" => streamed(futures::stream::repeat(()).map(move |()| {
                    let _inside = &inside;
                    Frame::data(Bytes::from_static(&[0; 16 << 10]))
                })),
                "Quiet" => streamed(futures::stream::once(async move {
                    let _inside = inside;
                    std::future::pending().await
                })),
                _ => {
                    let tcp = request.extensions().get::<TcpConnectInfo>();
                    let from = tcp.and_then(TcpConnectInfo::remote_addr);
                    Status::ok(from.unwrap().to_string()).into_http()
                }
            })
        })
    }
}

fn streamed(
    frames: impl futures::Stream<Item = Frame<Bytes>> + Send + 'static,
) -> http::Response<Body> {
    let response = http::Response::builder().header("content-type", "application/grpc");
    let body = StreamBody::new(frames.map(Ok::<_, Status>));
    response.body(Body::new(body)).unwrap()
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    Frame::trailers(trailers)
}
