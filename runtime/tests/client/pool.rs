//! One connection an endpoint.

use crate::rig::{Script, Server, reads, request};
use livemerge_runtime::client::Pool;
use livemerge_runtime::{Client, Line};
use tonic_health::pb::health_client::HealthClient;

async fn ask(line: &Line) {
    let mut client = HealthClient::new(reads().over(line.clone()));
    client.check(request("")).await.unwrap();
}

#[tokio::test]
async fn lines_to_an_endpoint_share_its_connection_as_long_as_there_is_one() {
    let script = Script::default();
    let (server, other) = (Server::start(&script), Script::default());
    let elsewhere = Server::start(&other);
    let pool = Pool::new(Client::default(), Pool::alive);
    let lines = [server.url(), server.url(), elsewhere.url()].map(|url| pool.line(&url).unwrap());
    assert_eq!(script.connections(), 0, "nobody has asked yet");
    for line in &lines {
        ask(line).await;
    }
    assert_eq!((script.connections(), other.connections()), (1, 1));
    let [first, second, _elsewhere] = lines;
    drop(first);
    ask(&pool.line(&server.url()).unwrap()).await;
    assert_eq!(script.connections(), 1);
    drop(second);
    ask(&pool.line(&server.url()).unwrap()).await;
    assert_eq!(script.connections(), 2, "it was closed with its last line");
    assert!(pool.line("ftp://127.0.0.1:1").is_err());
}
