//! The time of a call, on the wire and at its end.

use crate::rig::{Script, Server, Step, reads, request};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use livemerge_runtime::client::Patient;
use livemerge_runtime::{Line, ListenAddress, ListenConfig, Reach, ServerConfig};
use std::convert::Infallible;
use std::num::NonZeroU64;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// What `grpc-timeout` said, in microseconds.
fn told(script: &Script) -> Vec<Option<u64>> {
    let micros = |text: String| {
        let (digits, unit) = text.split_at(text.len() - 1);
        let amount: u64 = digits.parse().unwrap();
        amount * [1, 1_000][usize::from(unit == "m")]
    };
    let asked = script.asked().into_iter();
    asked.map(|asked| asked.timeout.map(micros)).collect()
}

#[tokio::test]
async fn each_try_tells_how_much_time_is_left() {
    let wait = Duration::from_millis(50);
    let status = crate::rig::problem(Code::Unavailable, "ANY", Some(wait));
    let script = Script::checks([Step::Fail(status), Step::Answer(7)]);
    let server = Server::start(&script);
    let mut asked = Request::new(request(""));
    asked.set_timeout(Duration::from_secs(60));
    server.client(&reads()).check(asked).await.unwrap();
    let told: Vec<u64> = told(&script).into_iter().map(Option::unwrap).collect();
    assert!(
        told[0] <= 60_000_000 && told[1] + 50_000 <= told[0],
        "{told:?}"
    );
}

#[tokio::test]
async fn a_call_without_a_time_has_that_of_the_policy_and_a_stream_has_none() {
    let script = Script::watches([(1, Step::Hang)]);
    let server = Server::start(&script);
    let mut client = server.client(&reads());
    client.check(request("")).await.unwrap();
    client.watch(request("")).await.unwrap();
    let told = told(&script);
    assert!(told[0].is_some_and(|left| left <= 30_000_000), "{told:?}");
    assert_eq!(told[1], None);
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_over() {
    let script = Script::checks([Step::Hang]);
    let server = Server::start(&script);
    let mut asked = Request::new(request(""));
    asked.set_timeout(Duration::from_millis(300));
    let ended = server.client(&reads()).check(asked).await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    let details = ended.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "DEADLINE_EXCEEDED");
}

/// A service that asks another one, in a call or in the stream that it answers.
#[derive(Clone)]
struct Front(HealthClient<Patient<Line>>);

impl NamedService for Front {
    const NAME: &'static str = "test.Front";
}

impl tower::Service<http::Request<Body>> for Front {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: http::Request<Body>) -> Self::Future {
        let mut back = self.0.clone();
        Box::pin(async move {
            match asked.uri().path() {
                // A change runs in a task of its own, to its end.
                "/test.Front/Change" => {
                    let change = async move { back.check(request("")).await };
                    tokio::spawn(change).await.unwrap().unwrap();
                }
                _ => drop(back.check(request("")).await.unwrap()),
            }
            Ok(Status::ok("").into_http())
        })
    }
}

#[tokio::test]
async fn what_is_called_for_another_call_ends_with_it() {
    let script = Script::default();
    let back = Server::start(&script);
    let config = ServerConfig {
        unary_deadline_seconds: NonZeroU64::new(20).unwrap(),
        drain_seconds: 0,
        ..ServerConfig::default()
    };
    let server = livemerge_runtime::Server::new(config).service(Front(back.client(&reads())));
    let shutdown = server.shutdown();
    let listener = ListenConfig::loopback(0).bind(Reach::Near).await.unwrap();
    let ListenAddress::Tcp(address) = listener.address().unwrap() else {
        panic!("loopback is TCP");
    };
    let serving = tokio::spawn(server.serve(listener));
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    for (method, timeout) in [("Read", Some("9S")), ("Read", None), ("Change", Some("9S"))] {
        let mut asked = http::Request::post(format!("http://{address}/test.Front/{method}"))
            .header("content-type", "application/grpc");
        if let Some(timeout) = timeout {
            asked = asked.header("grpc-timeout", timeout);
        }
        let answer = client
            .request(asked.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (head, body) = answer.into_parts();
        body.collect().await.unwrap();
        assert_eq!(
            Status::from_header_map(&head.headers).unwrap().code(),
            Code::Ok
        );
    }
    let told: Vec<u64> = told(&script).into_iter().map(Option::unwrap).collect();
    assert!(told[0] <= 9_000_000, "{told:?}");
    assert!(told[1] <= 20_000_000, "the server's own bound: {told:?}");
    assert!(
        told[2] > 20_000_000,
        "it has the time of the policy: {told:?}"
    );
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
