//! A server in this process, a service that misbehaves, and a client without timers of its own.

use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use livemerge_runtime::{
    ListenAddress, ListenConfig, Reach, Readiness, RequestIds, ServeError, Server, ServerConfig,
    Shutdown,
};
use std::convert::Infallible;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};

pub(crate) struct Running {
    pub(crate) address: ListenAddress,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

/// Bounds of one second, so that tests need not wait long.
pub(crate) fn hasty() -> ServerConfig {
    let second = NonZeroU64::new(1).unwrap();
    ServerConfig {
        unary_deadline_seconds: second,
        max_deadline_seconds: second,
        drain_seconds: 1,
        ..ServerConfig::default()
    }
}

pub(crate) async fn start(config: ServerConfig, address: Option<ListenAddress>) -> Running {
    let mut listen = ListenConfig::loopback(0);
    if let Some(address) = address {
        listen.address = address;
    }
    let server = Server::new(config).service(Misbehaving).streams([
        "/test.Misbehaving/Drip",
        "/test.Misbehaving/PanicInStream",
        "/test.Misbehaving/Silence",
    ]);
    let (readiness, shutdown) = (server.readiness(), server.shutdown());
    let listener = listen.bind(Reach::Near).await.unwrap();
    let address = listener.address().unwrap();
    Running {
        address,
        readiness,
        shutdown,
        serving: tokio::spawn(server.serve(listener)),
    }
}

impl Running {
    pub(crate) async fn channel(&self) -> Channel {
        let uri = match &self.address {
            ListenAddress::Tcp(address) => format!("http://{address}"),
            ListenAddress::Unix(path) => format!("unix://{}", path.display()),
        };
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }

    /// Calls a method of the misbehaving service with an empty message.
    pub(crate) async fn call(&self, method: &str, headers: &[(&'static str, &str)]) -> Ended {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let path = format!("test.Misbehaving/{method}");
        self.send(&path, headers.collect(), Vec::new()).await
    }

    /// Calls a method with these very bytes.
    pub(crate) async fn send(
        &self,
        path: &str,
        headers: Vec<(&'static str, &[u8])>,
        body: Vec<u8>,
    ) -> Ended {
        let uri = format!("http://{}/{path}", self.address);
        let mut request = http::Request::post(uri).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let body = Full::<<Body as http_body::Body>::Data>::from(body);
        let response = client.request(request.body(body).unwrap()).await.unwrap();
        let (head, mut body) = response.into_parts();
        let mut status = Status::from_header_map(&head.headers);
        let mut messages = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { break };
            messages += usize::from(frame.is_data());
            status = frame
                .trailers_ref()
                .and_then(Status::from_header_map)
                .or(status);
        }
        Ended {
            status,
            messages,
            headers: head.headers,
        }
    }
}

/// How a call ended; no status when the connection broke.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<Status>,
    pub(crate) messages: usize,
    pub(crate) headers: HeaderMap,
}

/// A service whose every method does something a good one does not.
#[derive(Clone)]
struct Misbehaving;

impl NamedService for Misbehaving {
    const NAME: &'static str = "test.Misbehaving";
}

impl tower::Service<http::Request<Body>> for Misbehaving {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        if method == "PanicAtOnce" {
            panic!("secret of the call");
        }
        Box::pin(async move {
            Ok(match method.as_str() {
                "Panic" => panic!("secret of the handler"),
                "Hang" => std::future::pending().await,
                "Drip" => answer(Drip {
                    beats: 0,
                    last: usize::MAX,
                }),
                "PanicInStream" => answer(Drip { beats: 0, last: 2 }),
                "Silence" | "UnarySilence" => answer(Silence),
                "Ids" => Status::not_found(request.extensions().get::<RequestIds>().map_or_else(
                    || "none".to_owned(),
                    |ids| format!("{} {}", ids.request_id, ids.trace.trace_id()),
                ))
                .into_http(),
                _ => Status::unimplemented(method).into_http(),
            })
        })
    }
}

fn answer<B>(body: B) -> http::Response<Body>
where
    B: http_body::Body<Data = <Body as http_body::Body>::Data, Error = Status> + Send + 'static,
{
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(Body::new(body)).unwrap()
}

type Polled = Poll<Option<Result<Frame<<Body as http_body::Body>::Data>, Status>>>;

/// Empty messages every 20 ms, then a panic.
struct Drip {
    beats: usize,
    last: usize,
}

impl http_body::Body for Drip {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        // Odd polls rest, even ones answer.
        self.beats += 1;
        if self.beats % 2 == 1 {
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        assert!(self.beats / 2 <= self.last, "secret of the stream");
        Poll::Ready(Some(Ok(Frame::data(vec![0_u8; 5].into()))))
    }
}

/// Headers and then nothing, for ever.
struct Silence;

impl http_body::Body for Silence {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
        Poll::Pending
    }
}
