//! Connections that have become old.

use crate::raw::{GOAWAY, NO_ERROR, Raw, request};
use crate::rig::{Rig, SOON, begin, call, ending, try_begin};
use livemerge_runtime::ServerConfig;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_types::StatusExt as _;

/// Old after a second, more or less.
fn short_lived(grace: u64) -> ServerConfig {
    ServerConfig {
        max_connection_age_seconds: 1,
        connection_grace_seconds: grace,
        ..ServerConfig::default()
    }
}

#[tokio::test]
async fn a_client_that_connects_again_sees_no_error_as_its_connections_become_old() {
    let rig = Rig::start(short_lived(30)).await;
    let line = rig.channel().await;
    let mut connections = BTreeSet::new();
    let mut unsent = 0;
    let calls = async {
        while connections.len() < 3 {
            match try_begin(&line, "alice", "Who").await {
                Ok(answer) => {
                    let status = ending(answer).await;
                    assert_eq!(status.code(), Code::Ok, "{status:?}");
                    connections.insert(status.message().to_owned());
                }
                // The client had taken it for a connection that it then found closed.
                Err(_) => unsent += 1,
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, calls).await.expect("it connects again");
    assert!(unsent < connections.len(), "{unsent}");
}

#[tokio::test]
async fn a_call_on_an_old_connection_ends_well_and_its_watch_with_a_reason() {
    let rig = Rig::start(short_lived(30)).await;
    let line = rig.channel().await;
    let held = line.clone();
    let held = tokio::spawn(async move { call(&held, "alice", "Hold").await });
    let watch = begin(&line, "alice", "Quiet").await;
    let status = timeout(SOON, ending(watch)).await.expect("it ends");
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SERVER_DRAINING");
    assert!(details.retry_info().is_some());
    rig.open.release();
    assert_eq!(held.await.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn an_old_connection_is_told_and_then_closed_although_it_has_a_call() {
    let rig = Rig::start(short_lived(1)).await;
    let mut raw = Raw::open(rig.address).await;
    assert!(raw.send(&request(1, "/test.Open/Hold")).await);
    let goaway = raw.first(GOAWAY).await.expect("it is told");
    assert_eq!(goaway.error(), NO_ERROR);
    while raw.next().await.is_some() {}
    rig.open.inside(0).await;
}

#[tokio::test]
async fn a_connection_may_live_for_ever() {
    let rig = Rig::start(ServerConfig {
        max_connection_age_seconds: 0,
        ..ServerConfig::default()
    })
    .await;
    let line = rig.channel().await;
    assert_eq!(call(&line, "alice", "Who").await.code(), Code::Ok);
}
