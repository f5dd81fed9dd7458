//! A signal reaches the whole process, so that this test has a process of its own.

use livemerge_runtime::{ListenConfig, Reach, Server, ServerConfig};
use rustix::process::{Signal, getpid, kill_process};
use std::time::Duration;

#[tokio::test]
async fn sigterm_begins_the_drain() {
    let server = Server::new(ServerConfig::default());
    let shutdown = server.shutdown();
    server.end_with_signals().unwrap();
    let listener = ListenConfig::loopback(0).bind(Reach::Near).await.unwrap();
    let address = listener.address().unwrap().to_string();
    let serving = tokio::spawn(server.serve(listener));
    let uri = format!("http://{address}");
    let channel = tonic::transport::Endpoint::from_shared(uri)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();

    kill_process(getpid(), Signal::TERM).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(shutdown.is_cancelled());
}
