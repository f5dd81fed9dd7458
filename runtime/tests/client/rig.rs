//! A health service that answers by a script. What a check answers is a number; a watch is a log of
//! numbers, read behind the one that the request names.

use futures::stream::{self, BoxStream, StreamExt as _};
use livemerge_runtime::client::{CallPolicy, Methods, Patience, Patient};
use livemerge_runtime::{Backoff, Client, Line};
use prost::Message as _;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
};
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the server does with a check, or at the end of a watch.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Answer(i32),
    Fail(Status),
    Hang,
}

/// A watch: so many pieces of the log, then this.
pub(crate) type Stretch = (usize, Step);

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) service: String,
    pub(crate) timeout: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(crate) checks: Arc<Mutex<VecDeque<Step>>>,
    pub(crate) watches: Arc<Mutex<VecDeque<Stretch>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<Mutex<usize>>,
}

impl Script {
    pub(crate) fn checks(steps: impl IntoIterator<Item = Step>) -> Self {
        let script = Script::default();
        script.checks.lock().unwrap().extend(steps);
        script
    }

    pub(crate) fn watches(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        let script = Script::default();
        script.watches.lock().unwrap().extend(stretches);
        script
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The tokens with which watches were opened.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.asked()
            .into_iter()
            .map(|asked| asked.service)
            .collect()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Waits until the server was asked so often.
    pub(crate) async fn asked_times(&self, times: usize) {
        while self.asked().len() < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn note(&self, request: &Request<HealthCheckRequest>) {
        let timeout = request.metadata().get("grpc-timeout");
        self.asked.lock().unwrap().push(Asked {
            at: Instant::now(),
            service: request.get_ref().service.clone(),
            timeout: timeout.map(|text| text.to_str().unwrap().to_owned()),
        });
    }
}

#[tonic::async_trait]
impl Health for Script {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.note(&request);
        let step = self.checks.lock().unwrap().pop_front();
        match step.unwrap_or(Step::Answer(0)) {
            Step::Answer(status) => Ok(Response::new(HealthCheckResponse { status })),
            Step::Fail(status) => Err(status),
            Step::Hang => std::future::pending().await,
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.note(&request);
        let behind: i32 = request.get_ref().service.parse().unwrap_or(0);
        let stretch = self.watches.lock().unwrap().pop_front();
        let (pieces, end) = stretch.unwrap_or((0, Step::Hang));
        let log = (behind + 1..).take(pieces);
        let log = log.map(|status| Ok(HealthCheckResponse { status }));
        let end = match end {
            Step::Answer(_) => stream::empty().boxed(),
            Step::Fail(status) if pieces == 0 => return Err(status),
            Step::Fail(status) => stream::iter([Err(status)]).boxed(),
            Step::Hang => stream::pending().boxed(),
        };
        Ok(Response::new(stream::iter(log).chain(end).boxed()))
    }
}

/// A server that was killed on this port may take a moment to let go of it.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A server with a runtime of its own, so that it can be killed with all its connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start(script: &Script) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), script)
    }

    pub(crate) fn at(address: SocketAddr, script: &Script) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let script = script.clone();
        let (told, hears) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = bind(address).await;
            told.send(listener.local_addr().unwrap()).unwrap();
            let connections = Arc::clone(&script.connections);
            let incoming = stream::unfold(listener, move |listener| {
                let connections = Arc::clone(&connections);
                async move {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    *connections.lock().unwrap() += 1;
                    Some((accepted, listener))
                }
            });
            let server = tonic::transport::Server::builder().add_service(HealthServer::new(script));
            server.serve_with_incoming(incoming.boxed()).await.unwrap();
        });
        Server {
            address: hears.recv().unwrap(),
            runtime: Some(runtime),
        }
    }

    /// Another one on the same port, once this is gone.
    pub(crate) fn killed_and_back(self, script: &Script) -> Self {
        let address = self.address;
        drop(self);
        Self::at(address, script)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn line(&self) -> Line {
        Client::default()
            .line(&self.url(), |endpoint| endpoint)
            .unwrap()
    }

    pub(crate) fn client(&self, patience: &Patience) -> HealthClient<Patient<Line>> {
        HealthClient::new(patience.over(self.line()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) const HASTE: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));

pub(crate) fn policy() -> CallPolicy {
    CallPolicy {
        tries: NonZeroU32::new(4).unwrap(),
        backoff: HASTE,
        repeats_per_second: 1_000,
        ..CallPolicy::default()
    }
}

/// A check is of this level; a watch is a stream.
pub(crate) fn methods(level: IdempotencyLevel) -> Methods {
    let method = |name: &str, streams| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".grpc.health.v1.HealthCheckRequest".to_owned()),
        server_streaming: Some(streams),
        options: Some(MethodOptions {
            idempotency_level: Some(level.into()),
            ..MethodOptions::default()
        }),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        package: Some("grpc.health.v1".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("HealthCheckRequest".to_owned()),
            field: vec![FieldDescriptorProto {
                name: Some("request_id".to_owned()),
                ..FieldDescriptorProto::default()
            }],
            ..DescriptorProto::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Health".to_owned()),
            method: vec![method("Check", false), method("Watch", true)],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    let set = FileDescriptorSet { file: vec![file] };
    Methods::of(&set.encode_to_vec()).unwrap()
}

pub(crate) fn reads() -> Patience {
    Patience::new(methods(IdempotencyLevel::NoSideEffects), policy())
}

pub(crate) fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// As LiveMerge's servers fail.
pub(crate) fn problem(code: Code, reason: &str, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "livemerge", HashMap::new());
    details.set_retry_info(retry_after);
    Status::with_error_details(code, "as the script says", details)
}

pub(crate) fn unavailable() -> Step {
    Step::Fail(Status::unavailable("as the script says"))
}

/// A proxy whose server goes away in the middle of its first answer: it resets that call, keeps the connection, and
/// answers the next ones. Each answer is the number of the call.
pub(crate) async fn resetting_proxy(with: h2::Reason) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut calls = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            calls += 1;
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            let message = HealthCheckResponse { status: calls }.encode_to_vec();
            let mut frame = vec![0];
            frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend(message);
            body.send_data(frame.into(), false).unwrap();
            if calls == 1 {
                tokio::spawn(async move {
                    // What was sent goes first.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    body.send_reset(with);
                });
                continue;
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        }
    });
    address
}
