//! A watch whose client does not read.

use crate::raw::{Raw, SETTINGS, WINDOW_UPDATE, frame, request};
use crate::rig::{Rig, SOON, begin, is_shed};
use livemerge_runtime::ServerConfig;
use std::num::{NonZeroU32, NonZeroU64};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[tokio::test]
async fn a_watch_that_is_not_read_is_cut_and_its_client_hears_why() {
    let rig = Rig::start(ServerConfig {
        max_watches: NonZeroU32::MIN,
        watch_stall_seconds: NonZeroU64::MIN,
        ..ServerConfig::default()
    })
    .await;
    let socket = TcpStream::connect(rig.address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/test.Open/Watch", rig.address))
        .header("content-type", "application/grpc")
        .header("authorization", "Bearer alice");
    let mut client = client.ready().await.unwrap();
    let (answer, _) = client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let mut body = answer.await.unwrap().into_body();

    // Nothing is taken: the place and the source are given up.
    let line = rig.channel().await;
    rig.open.inside(0).await;
    assert_eq!(rig.shed("slow_reader"), 1);
    let other = begin(&line, "bob", "Quiet").await;
    assert!(!other.headers().contains_key("grpc-status"), "{other:?}");
    let third = begin(&line, "carol", "Quiet").await;
    let refused = Status::from_header_map(third.headers()).unwrap();
    assert!(is_shed(&refused, "WATCH_LIMIT_REACHED"), "{refused:?}");

    // What had been sent is all that there is, and then the reason.
    let mut held_for_it = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        held_for_it += piece.len();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert!(held_for_it < 128 << 10, "{held_for_it} bytes");
    let trailers = timeout(SOON, body.trailers()).await.unwrap().unwrap();
    let status = Status::from_header_map(&trailers.unwrap()).unwrap();
    assert_eq!(status.code(), Code::Aborted);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "WATCH_CONSUMER_TOO_SLOW");
}

#[tokio::test]
async fn a_connection_that_is_not_read_outlives_no_drain() {
    let mut rig = Rig::start(ServerConfig {
        drain_seconds: 1,
        watch_stall_seconds: NonZeroU64::new(3600).unwrap(),
        ..ServerConfig::default()
    })
    .await;
    // It lets the server send as much as there is, and takes nothing.
    let mut raw = Raw::open(rig.address).await;
    let most = [0x7f, 0xff, 0xff, 0xff];
    let window = [&[0, 4], &most[..]].concat();
    raw.send(&frame(SETTINGS, 0, 0, &window)).await;
    let more = (i32::MAX - 65_535).to_be_bytes();
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &more)).await;
    raw.send(&request(1, "/test.Open/Watch")).await;
    rig.open.inside(1).await;
    rig.end().await;
    rig.open.inside(0).await;
}
