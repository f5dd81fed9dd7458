//! Many calls of one client, and what they leave to others.

use crate::rig::{Rig, begin, call, check, ending, is_shed};
use futures::future::join_all;
use livemerge_runtime::ServerConfig;
use std::num::NonZeroU32;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn places(calls: u32, watches: u32) -> ServerConfig {
    ServerConfig {
        max_concurrent_calls: NonZeroU32::new(calls).unwrap(),
        max_watches: NonZeroU32::new(watches).unwrap(),
        ..ServerConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_client_leaves_health_and_others_alone() {
    const CALLS: usize = 500;
    let rig = Rig::start(places(64, 8)).await;
    let mut lines = Vec::new();
    for _ in 0..5 {
        lines.push(rig.channel().await);
    }
    let calls = (0..CALLS).map(|call_no| {
        let line = lines[call_no % lines.len()].clone();
        tokio::spawn(async move { call(&line, "alice", "Hold").await })
    });
    let mut flood: Vec<_> = calls.collect();
    rig.open.inside(32).await;

    // All the while: health over the flooded connections and a fresh one, and another client.
    assert_eq!(rig.health().await, ServingStatus::Serving);
    let flooded = check(lines[0].clone(), "test.Open").await.unwrap();
    assert_eq!(flooded, ServingStatus::Serving);
    let other = rig.channel().await;
    for _ in 0..20 {
        assert_eq!(call(&other, "bob", "Who").await.code(), Code::Ok);
    }
    // What is not held comes back at once, refused, and what is held comes back when it may.
    let mut shed = 0;
    while shed < CALLS - 32 {
        let (ended, _, rest) = futures::future::select_all(flood).await;
        let status = ended.unwrap();
        assert!(is_shed(&status, "SERVER_OVERLOADED"), "{status:?}");
        (flood, shed) = (rest, shed + 1);
    }
    assert_eq!(rig.shed("client_calls"), shed as u64);
    assert_eq!(rig.shed("calls"), 0);
    rig.open.release();
    for ended in join_all(flood).await {
        assert_eq!(ended.unwrap().code(), Code::Ok);
    }
    assert_eq!(call(&lines[0], "alice", "Who").await.code(), Code::Ok);
}

#[tokio::test]
async fn many_clients_fill_a_server_and_leave_the_agents_and_servers_their_places() {
    let rig = Rig::start(places(2, 2)).await;
    let line = rig.channel().await;
    let mut held = Vec::new();
    for name in ["alice", "bob"] {
        let line = line.clone();
        held.push(tokio::spawn(async move { call(&line, name, "Hold").await }));
    }
    rig.open.inside(2).await;
    let refused = call(&line, "carol", "Who").await;
    assert!(is_shed(&refused, "SERVER_OVERLOADED"), "{refused:?}");
    assert_eq!(rig.shed("calls"), 1);
    assert_eq!(call(&line, "server", "Who").await.code(), Code::Ok);
    assert_eq!(rig.health().await, ServingStatus::Serving);
    rig.open.release();
    for ended in join_all(held).await {
        assert_eq!(ended.unwrap().code(), Code::Ok);
    }
    assert_eq!(call(&line, "carol", "Who").await.code(), Code::Ok);
}

#[tokio::test]
async fn a_place_is_held_to_the_end_of_the_body() {
    let rig = Rig::start(places(1, 1)).await;
    let line = rig.channel().await;
    let held = begin(&line, "alice", "Body").await;
    let refused = call(&line, "bob", "Who").await;
    assert!(is_shed(&refused, "SERVER_OVERLOADED"), "{refused:?}");
    rig.open.release();
    assert_eq!(ending(held).await.code(), Code::Ok);
    rig.open.inside(0).await;
    assert_eq!(call(&line, "bob", "Who").await.code(), Code::Ok);
}

#[tokio::test]
async fn watches_have_places_of_their_own() {
    let rig = Rig::start(places(1, 1)).await;
    let line = rig.channel().await;
    let open = begin(&line, "alice", "Quiet").await;
    let refused = call(&line, "bob", "Quiet").await;
    assert!(is_shed(&refused, "WATCH_LIMIT_REACHED"), "{refused:?}");
    assert_eq!(rig.shed("watches"), 1);
    assert_eq!(call(&line, "bob", "Who").await.code(), Code::Ok);
    drop(open);
    rig.open.inside(0).await;
    let next = begin(&line, "bob", "Quiet").await;
    assert!(!next.headers().contains_key("grpc-status"), "{next:?}");
}

#[tokio::test]
async fn streams_of_health_are_bounded_and_take_no_place_of_others() {
    let rig = Rig::start(places(1, 2)).await;
    let line = rig.channel().await;
    let watch = async |line: &Channel| {
        let mut health = HealthClient::new(line.clone());
        health.watch(HealthCheckRequest::default()).await
    };
    let _first = watch(&line).await.unwrap();
    // All from one address, which may have no more than it leaves free.
    let refused = watch(&line).await.unwrap_err();
    assert!(is_shed(&refused, "WATCH_LIMIT_REACHED"), "{refused:?}");
    assert_eq!(rig.health().await, ServingStatus::Serving);
    for name in ["alice", "bob"] {
        let open = begin(&line, name, "Quiet").await;
        assert!(!open.headers().contains_key("grpc-status"), "{open:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_places_back() {
    let rig = Rig::start(places(1, 1)).await;
    let line = rig.channel().await;
    let leaving = line.clone();
    let left = tokio::spawn(async move { call(&leaving, "alice", "Hold").await });
    rig.open.inside(1).await;
    left.abort();
    rig.open.inside(0).await;
    assert_eq!(call(&line, "bob", "Who").await.code(), Code::Ok);
}
