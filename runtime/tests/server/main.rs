//! A server as its clients see it, over real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "what goes wrong in a test ends the test"
)]

mod hostile;
mod reflection;
mod rig;

use livemerge_runtime::{ListenAddress, ServerConfig};
use rig::{Running, hasty, start};
use std::time::{Duration, Instant};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const OVERALL: &str = "";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn health(server: &Running, service: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(server.channel().await);
    client
        .check(of(service))
        .await
        .map(|r| r.get_ref().status())
        .map_err(|s| s.code())
}

async fn ends_within(server: Running, bound: Duration) {
    let ended = tokio::time::timeout(bound, server.serving).await;
    ended.expect("the drain has a bound").unwrap().unwrap();
}

async fn serves_health(server: Running) {
    assert_eq!(
        health(&server, OVERALL).await,
        Ok(ServingStatus::NotServing)
    );
    assert_eq!(
        health(&server, "test.Misbehaving").await,
        Ok(ServingStatus::NotServing)
    );
    assert_eq!(health(&server, "test.Unknown").await, Err(Code::NotFound));
    server.readiness.set_all(true);
    assert_eq!(health(&server, OVERALL).await, Ok(ServingStatus::Serving));
    assert_eq!(
        health(&server, "test.Misbehaving").await,
        Ok(ServingStatus::Serving)
    );
    server.shutdown.cancel();
    ends_within(server, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn health_over_tcp() {
    serves_health(start(hasty(), None).await).await;
}

#[tokio::test]
async fn health_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let server = start(hasty(), Some(ListenAddress::Unix(path.clone()))).await;
    serves_health(server).await;
    assert!(!path.exists(), "the socket file goes with the server");
}

/// One reflection call of either version: the names of the services, and whether a symbol is known.
macro_rules! reflect {
    ($version:ident, $server:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()),
            MessageRequest::FileContainingSymbol("google.rpc.BadRequest".to_owned()),
        ]
        .map(|message| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        });
        let mut client = ServerReflectionClient::new($server.channel().await);
        let call = client
            .server_reflection_info(futures::stream::iter(ask))
            .await
            .unwrap();
        let mut answers = call.into_inner();
        let (mut services, mut files) = (Vec::new(), 0);
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(found) => {
                    files += found.file_descriptor_proto.len();
                }
                other => panic!("{other:?}"),
            }
        }
        (services, files)
    }};
}

const SERVED: [&str; 4] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "test.Misbehaving",
];

#[tokio::test]
async fn reflection_in_both_versions_knows_health_and_the_error_details() {
    let server = start(hasty(), None).await;
    for (services, files) in [reflect!(v1, server), reflect!(v1alpha, server)] {
        let mut services: Vec<String> = services;
        services.sort();
        assert_eq!(services, SERVED, "what is served, and nothing else");
        assert_eq!(files, 2);
    }
}

#[tokio::test]
async fn a_panic_is_internal_and_keeps_its_text_to_itself() {
    let server = start(hasty(), None).await;
    for method in ["Panic", "PanicAtOnce", "PanicInStream"] {
        let ended = server.call(method, &[]).await;
        let status = ended.status.expect(method);
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "internal error")
        );
        let details = status.get_error_details();
        let info = details.error_info().expect(method);
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INTERNAL_BUG", "livemerge")
        );
        let raw = String::from_utf8_lossy(status.details());
        assert!(!raw.contains("secret"), "{method}: {raw}");
        assert_eq!(
            ended.messages,
            if method == "PanicInStream" { 2 } else { 0 }
        );
    }
    assert_eq!(
        health(&server, OVERALL).await,
        Ok(ServingStatus::NotServing),
        "it still serves"
    );
}

#[tokio::test]
async fn an_expired_deadline_of_the_client_is_deadline_exceeded() {
    let server = start(ServerConfig::default(), None).await;
    // Headers only, body of a unary call, stream that never rests, stream that never speaks.
    for method in ["Hang", "UnarySilence", "Drip", "Silence"] {
        for timeout in ["1n", "90m", "150000u"] {
            let started = Instant::now();
            let ended = server.call(method, &[("grpc-timeout", timeout)]).await;
            let code = ended.status.map(|status| status.code());
            assert_eq!(code, Some(Code::DeadlineExceeded), "{method} {timeout}");
            assert!(
                started.elapsed() < Duration::from_secs(2),
                "{method} {timeout}"
            );
        }
    }
}

#[tokio::test]
async fn the_servers_bound_holds_for_unary_calls_and_not_for_streams() {
    let server = start(hasty(), None).await;
    for method in ["Hang", "UnarySilence"] {
        let ended = server.call(method, &[("grpc-timeout", "1H")]).await;
        assert_eq!(
            ended.status.unwrap().code(),
            Code::DeadlineExceeded,
            "{method}"
        );
    }
    let stream = server.call("Drip", &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(1500), stream)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_request_keeps_its_ids() {
    let server = start(hasty(), None).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let sent = [
        ("x-request-id", "req-7"),
        ("traceparent", traceparent.as_str()),
    ];
    let ended = server.call("Ids", &sent).await;
    assert_eq!(ended.headers["x-request-id"], "req-7");
    assert_eq!(ended.status.unwrap().message(), format!("req-7 {trace}"));
    let ended = server.call("Ids", &[]).await;
    let made = ended.headers["x-request-id"].to_str().unwrap();
    assert!(ended.status.unwrap().message().starts_with(made));
}

#[tokio::test]
async fn a_drain_tells_and_ends_an_open_health_watch() {
    let server = start(ServerConfig::default(), None).await;
    server.readiness.set_all(true);
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client
        .watch(Request::new(of(OVERALL)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );

    let started = Instant::now();
    server.shutdown.cancel();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let ended = watch.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    let details = ended.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SERVER_DRAINING");
    assert!(details.retry_info().is_some());
    ends_within(server, Duration::from_secs(5)).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the watch did not use up the drain"
    );
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_end() {
    let server = start(hasty(), None).await;
    let ListenAddress::Tcp(address) = server.address else {
        panic!("TCP")
    };
    let silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let shutdown = server.shutdown.clone();
    let drain = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shutdown.cancel();
        Instant::now()
    };
    let (ended, began) = tokio::join!(server.call("Drip", &[]), drain);
    assert!(ended.status.is_none(), "{ended:?}");
    ends_within(server, Duration::from_secs(3)).await;
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "calls had their time"
    );
    drop(silent);
}

#[tokio::test]
async fn a_running_call_finishes_during_the_drain() {
    let mut config = hasty();
    config.drain_seconds = 10;
    let server = start(config, None).await;
    let shutdown = server.shutdown.clone();
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(server.call("Hang", &[("grpc-timeout", "700m")]), drain);
    assert_eq!(ended.status.unwrap().code(), Code::DeadlineExceeded);
    ends_within(server, Duration::from_secs(5)).await;
}
