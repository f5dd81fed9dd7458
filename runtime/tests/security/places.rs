//! Places that may be taken: by handshakes, and by those who ask for health.

use crate::HEALTH;
use crate::authority::Files;
use crate::rig::{Rig, SERVED, call};
use livemerge_runtime::{ClientConfig, ListenConfig, Role};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tonic::Code;

#[tokio::test]
async fn a_handshake_that_hangs_delays_nobody() {
    let rig = Rig::start(|_, _, _| {}).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let address = rig.address.to_string();
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(
        call(&rig.of(Role::Viewer), HEALTH, &[]).await.code,
        Code::Ok
    );
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn silence_takes_no_place_of_a_connection() {
    let listen = ListenConfig {
        max_connections: NonZeroU32::new(2).unwrap(),
        ..ListenConfig::loopback(0)
    };
    let rig = Rig::start_at(listen, Files::new(), |_, _, _| {}).await;
    let open = rig.of(Role::Operator);
    assert_eq!(call(&open, "/test.Who/Write", &[]).await.code, SERVED);
    // More than there are handshakes at once.
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect(rig.address.to_string()).await.unwrap());
    }
    assert_eq!(call(&open, "/test.Who/Write", &[]).await.code, SERVED);
    let begun = Instant::now();
    let late = async {
        while call(&rig.of(Role::Operator), "/test.Who/Write", &[])
            .await
            .code
            != SERVED
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), late)
        .await
        .unwrap();
    println!("let in after {:?}", begun.elapsed());
}

#[tokio::test]
async fn health_is_beside_for_those_who_have_no_certificate() {
    let listen = ListenConfig {
        health_address: Some(([127, 0, 0, 1], 0).into()),
        ..ListenConfig::loopback(0)
    };
    let rig = Rig::start_at(listen, Files::new(), |_, _, _| {}).await;
    let client = ClientConfig::default().open(false).unwrap();
    let address = format!("http://{}", rig.health.unwrap());
    let probe = client.line(&address, |endpoint| endpoint).unwrap();
    assert_eq!(call(&probe, HEALTH, &[]).await.code, Code::Ok);
    for path in [
        "/test.Who/Read",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let outcome = call(&probe, path, &[]).await;
        assert_eq!(outcome.code, Code::Unimplemented, "{path} {outcome:?}");
    }
    rig.shutdown.cancel();
    let gone = async { while call(&probe, HEALTH, &[]).await.reason != "no answer" {} };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}
