//! Clients that bend HTTP/2: too much, too large, too often, or nothing at all.

use crate::raw::{ENHANCE_YOUR_CALM, GOAWAY, REFUSED_STREAM, RST_STREAM, Raw, WINDOW_UPDATE};
use crate::raw::{frame, request};
use crate::rig::{Rig, SOON, call, check};
use livemerge_runtime::ServerConfig;
use std::num::{NonZeroU32, NonZeroU64};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::body::Body;
use tonic_health::pb::health_check_response::ServingStatus;
use tower::ServiceExt as _;

/// Opens streams, each followed by a frame that ends it at once, until the server has enough.
async fn storm(rig: &Rig, ending: impl Fn(u32) -> Vec<u8>) -> u32 {
    const AT_ONCE: u32 = 500;
    let mut raw = Raw::open(rig.address).await;
    for batch in 0..40 {
        let streams = (0..AT_ONCE).map(|stream| 2 * (batch * AT_ONCE + stream) + 1);
        let frames = streams.flat_map(|stream| {
            let call = request(stream, "/test.Open/Hold");
            [call, ending(stream)].concat()
        });
        if !raw.send(&frames.collect::<Vec<u8>>()).await {
            break;
        }
    }
    raw.first(GOAWAY).await.expect("a GOAWAY").error()
}

async fn is_well(rig: &Rig) {
    assert_eq!(rig.health().await, ServingStatus::Serving);
    let other = rig.channel().await;
    assert_eq!(call(&other, "bob", "Who").await.code(), Code::Ok);
    rig.open.inside(0).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_in_a_storm_end_their_connection_alone() {
    let rig = Rig::start(ServerConfig::default()).await;
    let cancel = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    assert_eq!(storm(&rig, cancel).await, ENHANCE_YOUR_CALM);
    is_well(&rig).await;
}

#[tokio::test]
async fn streams_that_the_server_is_made_to_reset_end_their_connection_alone() {
    let rig = Rig::start(ServerConfig::default()).await;
    // A window beyond what a window can be.
    let overflow = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
    assert_eq!(storm(&rig, overflow).await, ENHANCE_YOUR_CALM);
    is_well(&rig).await;
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_one_by_one() {
    let rig = Rig::start(ServerConfig {
        max_concurrent_streams: NonZeroU32::new(4).unwrap(),
        ..ServerConfig::default()
    })
    .await;
    let mut raw = Raw::open(rig.address).await;
    let calls = (0..7).flat_map(|call| request(2 * call + 1, "/test.Open/Hold"));
    assert!(raw.send(&calls.collect::<Vec<u8>>()).await);
    for stream in [9, 11, 13] {
        let refused = raw.first(RST_STREAM).await.unwrap();
        assert_eq!((refused.stream, refused.error()), (stream, REFUSED_STREAM));
    }
    rig.open.inside(4).await;
    drop(raw);
    is_well(&rig).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let rig = Rig::start(ServerConfig {
        max_message_bytes: NonZeroU32::new(1 << 10).unwrap(),
        ..ServerConfig::default()
    })
    .await;
    let line = rig.channel().await;
    let refused = check(line.clone(), &"x".repeat(1 << 10)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert_eq!(check(line, "").await.unwrap(), ServingStatus::Serving);
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_and_the_connection_goes_on() {
    let rig = Rig::start(ServerConfig::default()).await;
    let line = rig.channel().await;
    let large = format!("Bearer {}", "x".repeat(32 << 10));
    let request = http::Request::post("/test.Open/Who").header("authorization", large);
    let request = request.body(Body::empty()).unwrap();
    let answer = line.clone().oneshot(request).await.unwrap();
    let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    assert_eq!(answer.status(), status);
    assert_eq!(call(&line, "bob", "Who").await.code(), Code::Ok);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let rig = Rig::start(ServerConfig {
        handshake_seconds: NonZeroU64::MIN,
        ..ServerConfig::default()
    })
    .await;
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut said = Vec::new();
    let read = timeout(SOON, silent.read_to_end(&mut said)).await;
    // What the server has said of itself, and then its end, in one way or the other.
    drop(read.expect("it is closed"));
    is_well(&rig).await;
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_closed() {
    let rig = Rig::start(ServerConfig {
        keepalive_interval_seconds: NonZeroU64::MIN,
        keepalive_timeout_seconds: NonZeroU64::MIN,
        ..ServerConfig::default()
    })
    .await;
    let live = rig.channel().await;
    let mut dead = Raw::open(rig.address).await;
    while dead.next().await.is_some() {}
    // One that answers them stays, through more than one of them.
    assert_eq!(check(live, "").await.unwrap(), ServingStatus::Serving);
}
